"""Changing the states of components: one place, by the table, with history and a hint to whoever watches."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from django.db import transaction
from django.db.models import F
from django.utils import timezone

from apps.maps.actions import bump_version
from apps.maps.enums import ComponentState, DesiredState
from apps.maps.models import Component, Map
from apps.operations.enums import Cause
from apps.operations.events import notify_on_commit
from apps.operations.models import ComponentHealth, StateChange
from apps.operations.state_machine import Trigger, derive_state, next_state

TRIGGER_OF_HEALTH = {
    "healthy": Trigger.CHECK_HEALTHY,
    "degraded": Trigger.CHECK_DEGRADED,
    "unhealthy": Trigger.CHECK_UNHEALTHY,
}


@dataclass(frozen=True, slots=True)
class Happening:
    """Something that happened to a component."""

    component_id: uuid.UUID
    trigger: Trigger
    cause: Cause
    reason: str = ""


def lock_map(map_id: uuid.UUID) -> Map:
    """Serializes whatever changes one Map. Taken before anything of the Map, so that no two can wait for each other."""
    return Map.objects.select_for_update(no_key=True).defer("documents").get(pk=map_id)


def apply_happenings(map_id: uuid.UUID, happenings: Sequence[Happening]) -> None:
    """Move the components of one Map by the state machine. Call inside a transaction."""
    locked = lock_map(map_id)
    components = Component.objects.filter(map_id=map_id).in_bulk({item.component_id for item in happenings})
    moved: dict[uuid.UUID, Component] = {}
    changes: list[StateChange] = []
    now = timezone.now()
    for item in happenings:
        component = components.get(item.component_id)
        if component is None:
            continue
        previous = ComponentState(component.state)
        state, desired = next_state(previous, item.trigger, DesiredState(component.desired))
        if state == previous and desired == component.desired:
            continue
        component.desired = desired
        moved[component.pk] = component
        if state != previous:
            component.state, component.state_since, component.state_reason = state, now, item.reason[:500]
            changes.append(_change(component, previous, item))
    if moved:
        _store(locked, list(moved.values()), changes)


def _change(component: Component, previous: ComponentState, item: Happening) -> StateChange:
    return StateChange(
        component=component,
        previous=previous,
        state=component.state,
        cause=item.cause,
        reason=item.reason[:500],
    )


def _store(locked: Map, moved: list[Component], changes: list[StateChange]) -> None:
    version = touch_map(locked)
    for component in moved:
        component.version = version
    Component.objects.bulk_update(moved, ["state", "state_since", "state_reason", "desired", "version"], batch_size=500)
    StateChange.objects.bulk_create(changes, batch_size=1000)
    _derive_map_state(locked.pk)


def _derive_map_state(map_id: uuid.UUID) -> None:
    states = Component.objects.filter(map_id=map_id).order_by().values_list("state", flat=True).distinct()
    state = derive_state(ComponentState(value) for value in states)
    Map.objects.filter(pk=map_id).exclude(state=state).update(state=state)


def follow_structure(map_id: uuid.UUID, organization_id: uuid.UUID) -> None:
    """Components came or went: the Map's state derives from those that are left, and its watchers load it anew."""
    _derive_map_state(map_id)
    notify_on_commit(map_id, organization_id)


def touch_map(map: Map) -> int:
    """The Map's next version, with a hint to whoever watches it."""
    notify_on_commit(map.pk, map.organization_id)
    return bump_version(map.pk)


def touch_components(map: Map, component_ids: Collection[uuid.UUID]) -> None:
    """Something shown with these components changed (a hold, their agent), though not their state."""
    Component.objects.filter(pk__in=component_ids).update(version=touch_map(map))


def recheck_state(map_id: uuid.UUID, component_id: uuid.UUID) -> None:
    """Let the last word of the health check decide, after a command ended without settling the state."""
    health = ComponentHealth.objects.filter(component_id=component_id).first()
    if health is not None:
        trigger = TRIGGER_OF_HEALTH[health.status]
        apply_happenings(map_id, [Happening(component_id, trigger, Cause.CHECK, health_reason(health.details))])


def next_epoch(component_id: uuid.UUID) -> int:
    """The number of the next command about a component."""
    Component.objects.filter(pk=component_id).update(epoch=F("epoch") + 1)
    return Component.objects.values_list("epoch", flat=True).get(pk=component_id)


def health_reason(details: dict[str, object]) -> str:
    """The details of a health check in one line for people."""
    for key in ("error", "reason", "message"):
        if details.get(key):
            return str(details[key])
    status, expected = details.get("status"), details.get("expected_status")
    if expected is not None:
        return f"answered HTTP {status}, expected {expected}"
    return ""


@transaction.atomic
def reset_states(map_id: uuid.UUID) -> None:
    """Forget what was known and wanted of a Map's components, as if they had just been loaded."""
    locked = lock_map(map_id)
    idle = Component.objects.filter(map_id=map_id, hold__isnull=True, maintenance__isnull=True)
    idle.update(
        state=ComponentState.UNKNOWN,
        state_since=timezone.now(),
        state_reason="",
        desired=DesiredState.UNSPECIFIED,
        version=touch_map(locked),
    )
    ComponentHealth.objects.filter(component__in=idle).delete()
    _derive_map_state(map_id)
