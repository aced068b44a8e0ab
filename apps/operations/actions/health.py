"""What agents say of components, and which agent watches what."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any, Protocol

from django.db import connection, transaction

from apps.audit.actions import record_event
from apps.audit.actor import Actor
from apps.gateways.actions.health_checks import find_watchers, set_checks_of_agents
from apps.gateways.models import Agent
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
from apps.operations.selectors import agent_of, agents_for, components_around, components_near
from apps.operations.state_machine import Trigger

_NAMED = 20
"""So many agents an audit event names; it counts all."""


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
    around = components_around(agents)
    _record_loss(agents, around, reason)
    for map_id, found in around.items():
        lost = [component.pk for component, agent in found if not agent.is_online]
        apply_happenings(map_id, [Happening(pk, Trigger.AGENT_LOST, Cause.AGENT, reason) for pk in lost])
        touch_components(lock_map(map_id), [component.pk for component, _ in found])
    _reassign_by_labels(chain(*around.values()))


def _record_loss(
    agents: Sequence[Agent], around: Mapping[uuid.UUID, Sequence[tuple[Component, Agent]]], reason: str
) -> None:
    """A lost gateway is one event for an organization, however many agents and components are behind it."""
    for organization_id in sorted({agent.organization_id for agent in agents}):
        mine = [agent for agent in agents if agent.organization_id == organization_id]
        lost = [
            component
            for found in around.values()
            for component, agent in found
            if component.organization_id == organization_id and not agent.is_online
        ]
        record_event(
            "agents.lost",
            actor=Actor.system("operations"),
            organization_id=organization_id,
            target={"agents": len(mine), "names": sorted(agent.agent_id for agent in mine)[:_NAMED]},
            details={
                "reason": reason,
                "components": len(lost),
                "maps": len({component.map_id for component in lost}),
            },
        )


@transaction.atomic
def mark_agents_back(*, agents: Sequence[Agent]) -> None:
    """These hosts are visible again. What their components are, the checks will say; without a check it is unknown."""
    here = {agent.pk for agent in agents}
    for organization_id in {agent.organization_id for agent in agents}:
        mine = [agent.pk for agent in agents if agent.organization_id == organization_id]
        assign_health_checks(organization_id=organization_id, only=mine)
    # What another agent runs, it ran before these came.
    around = {
        map_id: run_here
        for map_id, found in components_around(agents).items()
        if (run_here := [(component, agent) for component, agent in found if agent.pk in here])
    }
    for map_id, found in around.items():
        unchecked = [component.pk for component, _ in found if "healthcheck" not in component.spec]
        back = [Happening(pk, Trigger.AGENT_BACK, Cause.AGENT, "agent is back") for pk in unchecked]
        apply_happenings(map_id, back)
        touch_components(lock_map(map_id), [component.pk for component, _ in found])
    _reassign_by_labels(chain(*around.values()))


def _reassign_by_labels(found: Iterable[tuple[Component, Agent]]) -> None:
    """Components that ask for a host by labels may have gone over from one agent to another."""
    by_organization: dict[uuid.UUID, set[uuid.UUID]] = defaultdict(set)
    for component, _ in found:
        if not component.host:
            by_organization[component.organization_id].add(component.pk)
    for organization_id, component_ids in by_organization.items():
        transaction.on_commit(partial(_reassign, organization_id, component_ids))


@transaction.atomic
def _reassign(organization_id: uuid.UUID, component_ids: Collection[uuid.UUID]) -> None:
    """Those who run these components now get their checks, those who ran them before lose them."""
    _take_turns(organization_id)
    components = list(Component.objects.filter(pk__in=component_ids).only("pk", "host", "spec"))
    by_host = agents_for(organization_id, components)
    runners = {agent.pk for component in components if (agent := agent_of(component, by_host))}
    watchers = find_watchers(organization_id, [str(pk) for pk in component_ids])
    assign_health_checks(organization_id=organization_id, only=runners | watchers)


def assign_health_checks_on_commit(organization_id: uuid.UUID) -> None:
    """Give every agent its checks, in a transaction of its own.

    Whoever changes a Map holds the Map, and reports hold their agents before they ask for the Map: to take agents in
    the same transaction as a Map is a deadlock with them.
    """
    transaction.on_commit(partial(_assign_all, organization_id))


@transaction.atomic
def _assign_all(organization_id: uuid.UUID) -> None:
    _take_turns(organization_id)
    assign_health_checks(organization_id=organization_id)


def _take_turns(organization_id: uuid.UUID) -> None:
    """Of two that distribute checks at once, the second sees what the first did. Taken before any row is."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"health checks {organization_id}"])


@transaction.atomic
def assign_health_checks(*, organization_id: uuid.UUID, only: Collection[uuid.UUID] | None = None) -> None:
    """Give each agent (or `only` these) the checks of the components on its host."""
    agents = Agent.objects.filter(organization_id=organization_id)
    # Locked first, in the order of their ids: of two that do this at once, the second sees what the first was for.
    concerned = agents if only is None else agents.filter(pk__in=only)
    locked = list(concerned.select_for_update(no_key=True).order_by("pk").only("agent_id", "hostname", "labels"))
    components = Component.objects.filter(organization_id=organization_id)
    if only is not None:
        components = components_near(organization_id, locked)
    described = list(components.order_by("pk").only("pk", "host", "spec"))
    by_host = agents_for(organization_id, described)
    checks: dict[uuid.UUID, list[dict[str, Any]]] = {agent.pk: [] for agent in locked}
    for component in described:
        agent = agent_of(component, by_host)
        check = health_check(component.spec, str(component.pk))
        if agent is not None and agent.pk in checks and check is not None:
            checks[agent.pk].append(check)
    set_checks_of_agents(checks)
