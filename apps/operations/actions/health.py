"""What agents say of components, and which agent watches what."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Sequence
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
from apps.operations.selectors import agent_of, components_of_agents
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
    """We cannot see the components on these hosts; that is not the same as their failure."""
    for map_id, components in components_of_agents(agents).items():
        lost = [Happening(component.pk, Trigger.AGENT_LOST, Cause.AGENT, reason) for component in components]
        apply_happenings(map_id, lost)
        touch_components(lock_map(map_id), [component.pk for component in components])


@transaction.atomic
def mark_agents_back(*, agents: Sequence[Agent]) -> None:
    """These hosts are visible again. What their components are, the checks will say; without a check it is unknown."""
    for agent in agents:
        assign_health_checks(organization_id=agent.organization_id, only=agent)
    for map_id, components in components_of_agents(agents).items():
        unchecked = [component for component in components if "healthcheck" not in component.spec]
        back = [Happening(component.pk, Trigger.AGENT_BACK, Cause.AGENT, "agent is back") for component in unchecked]
        apply_happenings(map_id, back)
        touch_components(lock_map(map_id), [component.pk for component in components])


@transaction.atomic
def assign_health_checks(*, organization_id: uuid.UUID, only: Agent | None = None) -> None:
    """Give each agent (or `only` this one) the checks of the components on its host."""
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
