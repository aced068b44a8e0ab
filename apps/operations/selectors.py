"""Reads that join components with agents, holds and health."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from django.db.models import BooleanField, Count, ExpressionWrapper, F, Func, IntegerField, Prefetch, Q, QuerySet
from django.db.models.functions import Collate

from apps.gateways.models import Agent, Command
from apps.gateways.selectors import REVOKED_FIRST
from apps.maps.enums import ComponentState
from apps.maps.models import Component, Map
from apps.maps.planning.plans import StepAction
from apps.maps.planning.prediction import Prediction
from apps.operations.enums import OPEN_OPERATIONS, OperationState
from apps.operations.models import ActionDuration, Operation, QueuedClaim, StateChange, Step, StepOrder
from apps.orgs.models import User

_RUN_COUNT = Func("runs", function="jsonb_array_length", output_field=IntegerField())


def agent_of(component: Component, by_host: Mapping[str, Agent]) -> Agent | None:
    """The agent that runs a component's commands: of its host, or the first online one that its selector fits."""
    if component.host:
        return by_host.get(component.host)
    fitting = [agent for agent in by_host.values() if fits(component, agent)]
    return min(fitting, key=lambda agent: (not agent.is_online, agent.agent_id), default=None)


def fits(component: Component, agent: Agent) -> bool:
    """Whether the agent has the labels that a component without a host asks for."""
    wanted = _wanted_labels(component)
    return bool(wanted) and wanted.items() <= agent.labels.items()


def agents_for(organization_id: uuid.UUID, components: Iterable[Component]) -> dict[str, Agent]:
    """As much of `get_agents_by_host` as `agent_of` needs for these components: not a whole fleet for a few of them."""
    hosts = {component.host for component in components if component.host}
    here = Agent.objects.filter(organization_id=organization_id, removed_at=None)
    named = here.filter(Q(agent_id__in=hosts) | Q(hostname__in=hosts))
    agents = list(named.defer("health_checks").order_by(REVOKED_FIRST, "agent_id"))
    by_host = {agent.hostname: agent for agent in agents if agent.hostname in hosts}
    by_host.update({agent.agent_id: agent for agent in agents})
    for labels in _distinct(_wanted_labels(component) for component in components if not component.host):
        fitting = here.filter(labels__contains=labels)
        # The order of `agent_of`, which compares ids as Python does.
        is_away = ExpressionWrapper(Q(session_id__isnull=True), BooleanField())
        ranked = fitting.order_by(is_away.asc(), Collate("agent_id", "C"))
        for first in ranked.defer("health_checks")[:1]:
            by_host[first.agent_id] = first
    return by_host


def _wanted_labels(component: Component) -> dict[str, str]:
    labels: dict[str, str] = component.spec.get("hostSelector", {}).get("labels") or {}
    return labels


def _distinct(labels: Iterable[dict[str, str]]) -> list[dict[str, str]]:
    return list({tuple(sorted(each.items())): each for each in labels if each}.values())


def components_near(organization_id: uuid.UUID, agents: Collection[Agent]) -> QuerySet[Component]:
    """The components that these agents of one organization run or could run."""
    names = {name for agent in agents for name in (agent.agent_id, agent.hostname)}
    here = Component.objects.filter(organization_id=organization_id)
    by_labels = here.filter(host="").order_by().values_list("spec__hostSelector__labels", flat=True).distinct()
    near = Q(host__in=names)
    for labels in by_labels:
        if labels and any(labels.items() <= agent.labels.items() for agent in agents):
            near |= Q(host="", spec__hostSelector__labels=labels)
    return here.filter(near)


def components_around(agents: Sequence[Agent]) -> dict[uuid.UUID, list[tuple[Component, Agent]]]:
    """The components that these agents run or could run, each with the agent that runs it now.

    By Map, Maps in the order of their ids. Those with a selector are there even if another agent runs them now: it may
    have taken over from one of these just before.
    """
    found: dict[uuid.UUID, list[tuple[Component, Agent]]] = defaultdict(list)
    for organization_id in {agent.organization_id for agent in agents}:
        mine = {agent.pk: agent for agent in agents if agent.organization_id == organization_id}
        components = list(components_near(organization_id, mine.values()).order_by("map_id", "pk"))
        by_host = agents_for(organization_id, components)
        for component in components:
            agent = agent_of(component, by_host)
            if agent is not None and (agent.pk in mine or not component.host):
                found[component.map_id].append((component, agent))
    return dict(sorted(found.items()))


def list_maps(user: User) -> QuerySet[Map]:
    """The Maps a person may see."""
    return (
        Map.objects.filter(organization__memberships__user=user)
        .select_related("organization", "workspace")
        .defer("documents")
        .order_by("organization__name", "workspace__name", "name")
    )


def count_states(map_ids: Collection[uuid.UUID]) -> dict[uuid.UUID, dict[str, int]]:
    """How many components of each Map are in which state."""
    rows = Component.objects.filter(map_id__in=map_ids).order_by().values_list("map_id", "state").annotate(Count("pk"))
    counts: dict[uuid.UUID, dict[str, int]] = defaultdict(dict)
    for map_id, state, count in rows:
        counts[map_id][state] = count
    return counts


def count_group_states(map: Map) -> dict[int, dict[ComponentState, int]]:
    """How many components of each group of a Map are in which state."""
    grouped = Component.objects.filter(map=map, group__isnull=False).order_by()
    counts: dict[int, dict[ComponentState, int]] = defaultdict(dict)
    for group_id, state, count in grouped.values_list("group_id", "state").annotate(Count("pk")):
        assert group_id is not None
        counts[group_id][ComponentState(state)] = count
    return counts


def running_operations(map_ids: Collection[uuid.UUID]) -> dict[uuid.UUID, Operation]:
    """One running operation of each Map that has any, the newest."""
    operations = Operation.objects.filter(map_id__in=map_ids, state=OperationState.RUNNING).order_by("id")
    return {operation.map_id: operation for operation in operations}


def with_steps(operations: QuerySet[Operation]) -> QuerySet[Operation]:
    """Operations with what their description needs, in three queries."""
    orders = Prefetch("orders_before", queryset=StepOrder.objects.only("step_id", "before_id"))
    steps = Prefetch("steps", queryset=Step.objects.prefetch_related(orders))
    return operations.select_related("requested_by", "steered_by").prefetch_related(steps)


def shown_operations(map: Map) -> list[Operation]:
    """What the Map page shows: operations that run or wait for their turn, and the last that ended."""
    operations = with_steps(Operation.objects.filter(map=map))
    is_open = list(operations.filter(state__in=OPEN_OPERATIONS).order_by("-id"))
    return is_open + list(operations.exclude(state__in=OPEN_OPERATIONS).order_by("-finished_at", "-id")[:1])


def waits_of(operations: Iterable[Operation]) -> dict[uuid.UUID, list[Operation]]:
    """For each that is queued, whom it waits for: who holds its components, then who asked for them before.

    No query if none is queued, else three.
    """
    queued = [operation.pk for operation in operations if operation.state == OperationState.QUEUED]
    if not queued:
        return {}
    claims = QueuedClaim.objects.filter(operation__in=queued).order_by()
    holding = claims.filter(component__hold__isnull=False).values_list("operation_id", "component__hold__operation_id")
    ahead = claims.filter(component__claims__operation__queue_number__lt=F("operation__queue_number"))
    pairs = [*holding.distinct(), *ahead.values_list("operation_id", "component__claims__operation_id").distinct()]
    others = Operation.objects.select_related("requested_by").in_bulk({other for _, other in pairs})
    waits: dict[uuid.UUID, list[Operation]] = {pk: [] for pk in queued}
    for pk, other in pairs:
        if other in others:
            waits[pk].append(others[other])
    for pk in waits:
        waits[pk].sort(key=lambda other: (other.queue_number or 0, other.pk))
    return waits


def changed_components(map: Map, since: int) -> QuerySet[Component]:
    return shown_components(map).filter(version__gt=since)


def shown_components(map: Map) -> QuerySet[Component]:
    return Component.objects.filter(map=map).select_related("group", "hold", "maintenance__by").order_by("name")


def get_predictions(component_ids: Iterable[uuid.UUID]) -> dict[tuple[uuid.UUID, StepAction], Prediction]:
    """What past durations predict of the actions on these components, in one query; nothing of what was never done."""
    rows = ActionDuration.objects.filter(component_id__in=set(component_ids)).annotate(run_count=_RUN_COUNT)
    return {
        (component_id, StepAction(action)): Prediction(p50_ms, p90_ms, runs)
        for component_id, action, p50_ms, p90_ms, runs in rows.values_list(
            "component_id", "action", "p50_ms", "p90_ms", "run_count"
        )
    }


def list_state_changes(component: Component, limit: int = 20) -> QuerySet[StateChange]:
    return component.state_changes.order_by("-id")[:limit]


def list_recent_commands(component: Component, limit: int = 10) -> QuerySet[Command]:
    return Command.objects.filter(subject=component.pk).select_related("agent").order_by("-id")[:limit]


def neighbours(component: Component) -> dict[str, list[dict[str, Any]]]:
    """What a component needs and what needs it, for the API."""
    needed = component.needs_links.select_related("needs").order_by("needs__name")
    needing = component.needed_by_links.select_related("component").order_by("component__name")
    return {
        "dependencies": [_neighbour(link.needs, link.kind) for link in needed],
        "dependents": [_neighbour(link.component, link.kind) for link in needing],
    }


def _neighbour(component: Component, kind: str) -> dict[str, Any]:
    return {"id": str(component.pk), "name": component.name, "kind": kind, "state": component.state}
