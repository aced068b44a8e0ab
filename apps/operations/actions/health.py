"""What agents say of components, and which agent watches what."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, Protocol

from django.db import transaction

from apps.gateways.actions.sessions import set_health_checks
from apps.gateways.models import Agent
from apps.gateways.selectors import get_agents_by_host
from apps.maps.documents.commands import health_check
from apps.maps.models import Component
from apps.operations.actions.states import (
    TRIGGER_OF_HEALTH,
    Happening,
    apply_happenings,
    health_reason,
    lock_map,
    touch_components,
)
from apps.operations.enums import Cause
from apps.operations.models import ComponentHealth
from apps.operations.selectors import agent_of, components_around
from apps.operations.state_machine import Trigger


class HealthReport(Protocol):
    """What delivery hands up of a health check. `check_id` is the component's id."""

    check_id: str
    status: str
    details: dict[str, Any]
    checked_at: Any


@transaction.atomic
def record_health(*, agent: Agent, reports: Sequence[HealthReport]) -> None:
    """Store what the checks of one agent concluded. Checks that the agent was not given are ignored."""
    given = {check["check_id"] for check in agent.health_checks}
    latest = {report.check_id: report for report in reports if report.check_id in given}
    components = Component.objects.filter(pk__in=latest, organization_id=agent.organization_id).only("pk", "map_id")
    happenings: dict[uuid.UUID, list[Happening]] = defaultdict(list)
    rows = []
    for component in components:
        report = latest[str(component.pk)]
        status = str(report.status)
        rows.append(
            ComponentHealth(component=component, status=status, details=report.details, checked_at=report.checked_at)
        )
        happenings[component.map_id].append(
            Happening(component.pk, TRIGGER_OF_HEALTH[status], Cause.CHECK, health_reason(report.details))
        )
    # Maps first and in the order of their ids: the lock that everything about a Map begins with.
    for map_id in sorted(happenings):
        apply_happenings(map_id, happenings[map_id])
    ComponentHealth.objects.bulk_create(
        rows,
        update_conflicts=True,
        unique_fields=["component"],
        update_fields=["status", "details", "checked_at"],
    )


@transaction.atomic
def mark_agents_lost(*, agents: Sequence[Agent], reason: str) -> None:
    """We cannot see the components on these hosts; that is not the same as their failure.

    One that asks for a host by labels may go over to another agent, which then watches it.
    """
    for map_id, found in components_around(agents).items():
        lost = [component.pk for component, agent in found if not agent.is_online]
        apply_happenings(map_id, [Happening(pk, Trigger.AGENT_LOST, Cause.AGENT, reason) for pk in lost])
        touch_components(lock_map(map_id), [component.pk for component, _ in found])
        _reassign_if_by_labels(component for component, _ in found)


@transaction.atomic
def mark_agents_back(*, agents: Sequence[Agent]) -> None:
    """These hosts are visible again. What their components are, the checks will say; without a check it is unknown."""
    for agent in agents:
        assign_health_checks(organization_id=agent.organization_id, only=agent)
    for map_id, found in components_around(agents).items():
        unchecked = [component.pk for component, _ in found if "healthcheck" not in component.spec]
        back = [Happening(pk, Trigger.AGENT_BACK, Cause.AGENT, "agent is back") for pk in unchecked]
        apply_happenings(map_id, back)
        touch_components(lock_map(map_id), [component.pk for component, _ in found])
        _reassign_if_by_labels(component for component, _ in found)


def _reassign_if_by_labels(components: Iterable[Component]) -> None:
    for organization_id in {component.organization_id for component in components if not component.host}:
        assign_health_checks_on_commit(organization_id)


def assign_health_checks_on_commit(organization_id: uuid.UUID) -> None:
    """Give every agent its checks, in a transaction of its own.

    Whoever changes a Map holds the Map, and reports hold their agents before they ask for the Map: to take agents in
    the same transaction as a Map is a deadlock with them.
    """
    transaction.on_commit(partial(assign_health_checks, organization_id=organization_id))


@transaction.atomic
def assign_health_checks(*, organization_id: uuid.UUID, only: Agent | None = None) -> None:
    """Give each agent (or `only` this one) the checks of the components on its host."""
    agents = Agent.objects.filter(organization_id=organization_id)
    # Locked first, in the order of their ids: of two that do this at once, the second sees what the first was for.
    list((agents.filter(pk=only.pk) if only else agents).select_for_update(no_key=True).order_by("pk").values("pk"))
    by_host = get_agents_by_host(organization_id)
    checks: dict[uuid.UUID, list[dict[str, Any]]] = {agent.pk: [] for agent in by_host.values()}
    components = Component.objects.filter(organization_id=organization_id).order_by("pk")
    for component in components.only("pk", "host", "spec").iterator(chunk_size=2000):
        agent = agent_of(component, by_host)
        check = health_check(component.spec, str(component.pk))
        if agent is not None and check is not None:
            checks[agent.pk].append(check)
    for agent in {agent.pk: agent for agent in by_host.values()}.values():
        if only is None or agent.pk == only.pk:
            set_health_checks(agent=agent, checks=checks[agent.pk])
