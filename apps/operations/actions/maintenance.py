"""Putting components into maintenance and out of it: watched as before, and alerting nobody."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable
from datetime import datetime

from django.db import transaction
from django.utils import timezone

from apps.audit.actions import record_event
from apps.audit.actor import Actor
from apps.maps.models import Component, Map
from apps.operations.actions.states import (
    TRIGGER_OF_HEALTH,
    Happening,
    apply_happenings,
    health_reason,
    lock_map,
    touch_components,
)
from apps.operations.enums import Cause
from apps.operations.exceptions import HeldError, NoSuchComponentError
from apps.operations.models import ComponentHealth, ComponentHold, Maintenance
from apps.operations.selectors import agent_of, agents_for
from apps.operations.state_machine import Trigger
from apps.orgs.models import User

_NAMED = 50
"""So many components an audit event names; it counts all."""


@transaction.atomic
def begin_maintenance(
    *,
    map: Map,
    chosen: Collection[uuid.UUID],
    reason: str,
    until: datetime | None = None,
    user: User,
    actor: Actor,
) -> int:
    """The chosen components, of none all of the Map, are worked on from now on. Returns how many.

    For those that are in maintenance already, the new reason and end count.

    Raises:
        NoSuchComponentError: one of the chosen is not of this Map; nothing is written.
        HeldError: an operation works with one of them; nothing is written.
    """
    locked = lock_map(map.pk)
    components = _components(locked, chosen)
    ids = [component.pk for component in components]
    _check_free(ids)
    Maintenance.objects.bulk_create(
        [Maintenance(component=component, reason=reason[:500], until=until, by=user) for component in components],
        update_conflicts=True,
        unique_fields=["component"],
        update_fields=["reason", "until", "by"],
        batch_size=1000,
    )
    apply_happenings(locked.pk, [Happening(pk, Trigger.MAINTENANCE_BEGAN, Cause.PERSON, reason) for pk in ids])
    touch_components(locked, ids)
    _record("maintenance.began", locked, components, actor, {"reason": reason[:500], "until": _written(until)})
    return len(components)


@transaction.atomic
def end_maintenance(*, map: Map, chosen: Collection[uuid.UUID], actor: Actor, reason: str = "") -> int:
    """Those of the chosen components, or of the Map, that are in maintenance are what their checks say again.

    Raises:
        NoSuchComponentError: one of the chosen is not of this Map.
    """
    locked = lock_map(map.pk)
    components = _components(locked, chosen, in_maintenance=True)
    if components:
        _end(locked, components, Cause.PERSON, reason)
        _record("maintenance.ended", locked, components, actor, {"reason": reason[:500]})
    return len(components)


def sweep_maintenance(*, now: datetime | None = None) -> None:
    """End what was to end by now, each Map in a transaction of its own."""
    moment = now or timezone.now()
    due = Maintenance.objects.filter(until__lte=moment)
    for map_id in sorted(set(due.values_list("component__map_id", flat=True))):
        with transaction.atomic():
            locked = lock_map(map_id)
            # Looked at again: somebody may have made it longer.
            ended = Maintenance.objects.filter(until__lte=moment, component__map_id=map_id).values("component_id")
            components = list(Component.objects.filter(pk__in=ended).order_by("name"))
            if components:
                _end(locked, components, Cause.TIME, "it was to end now")
                _record("maintenance.ended", locked, components, Actor.system("maintenance"), {"reason": "end reached"})


def _components(map: Map, chosen: Collection[uuid.UUID], *, in_maintenance: bool = False) -> list[Component]:
    components = Component.objects.filter(map=map).order_by("name")
    wanted = set(chosen)
    if wanted:
        components = components.filter(pk__in=wanted)
        if missing := wanted - set(components.values_list("pk", flat=True)):
            raise NoSuchComponentError(f"This Map has no component {min(missing)}.")
    return list(components.filter(maintenance__isnull=False) if in_maintenance else components)


def _check_free(component_ids: Collection[uuid.UUID]) -> None:
    """While an operation starts or stops a component, its end must be able to say what the component is."""
    holds = ComponentHold.objects.filter(component_id__in=component_ids)
    hold = holds.select_related("component", "operation").order_by("component__name").first()
    if hold is None:
        return
    others = holds.count() - 1
    more = f" (and {others} more)" if others else ""
    operation = hold.operation
    raise HeldError(
        f"{hold.component.name}{more} is held by “{operation.kind} {operation.target}”: wait for its end.",
        holders=[
            {
                "component": {"id": str(hold.component_id), "name": hold.component.name},
                "operation": {"id": str(operation.pk), "kind": operation.kind, "target": operation.target},
            }
        ],
    )


def _end(map: Map, components: Collection[Component], cause: Cause, reason: str) -> None:
    ids = [component.pk for component in components]
    Maintenance.objects.filter(component_id__in=ids).delete()
    ended = [Happening(pk, Trigger.MAINTENANCE_ENDED, cause, reason) for pk in ids]
    apply_happenings(map.pk, [*ended, *_what_is_now(map.organization_id, components)])
    touch_components(map, ids)


def _what_is_now(organization_id: uuid.UUID, components: Collection[Component]) -> Iterable[Happening]:
    """What was not to change their states meanwhile: the last words of their checks, and agents that are gone."""
    by_host = agents_for(organization_id, components)
    health = ComponentHealth.objects.in_bulk([component.pk for component in components])
    for component in components:
        agent = agent_of(component, by_host)
        said = health.get(component.pk)
        if agent is not None and not agent.is_online:
            yield Happening(component.pk, Trigger.AGENT_LOST, Cause.AGENT, f"agent {agent.agent_id} is not connected")
        elif agent is not None and said is not None:
            yield Happening(component.pk, TRIGGER_OF_HEALTH[said.status], Cause.CHECK, health_reason(said.details))


def _written(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None


def _record(
    action: str, map: Map, components: Collection[Component], actor: Actor, details: dict[str, str | None]
) -> None:
    names = [component.name for component in components]
    record_event(
        action,
        actor=actor,
        organization_id=map.organization_id,
        target={"type": "map", "mapId": str(map.pk)},
        details={"components": len(names), "names": names[:_NAMED], **details},
    )
