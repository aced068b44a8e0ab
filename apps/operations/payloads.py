"""Maps, components, plans and operations as the API and the live feed show them (camelCase).

One function per thing, used by REST, pages and sockets alike: that is why initial state plus changes equals a reload.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from apps.gateways.models import Agent
from apps.gateways.selectors import describe_agent_briefly, describe_command, get_agents_by_host
from apps.maps.documents.commands import prepare_command
from apps.maps.models import Component, Map
from apps.maps.planning.diagrams import plan_as_mermaid
from apps.maps.planning.durations import PlanPrediction
from apps.maps.planning.prediction import Prediction
from apps.maps.planning.wording import plan_as_text
from apps.operations.enums import OperationState, StepState
from apps.operations.models import ComponentHealth, Maintenance, Operation, Step
from apps.operations.plans import CheckedPlan, CheckedStep, Problem, StepKey
from apps.operations.remaining import describe_remaining
from apps.operations.selectors import (
    agent_of,
    agents_for,
    changed_components,
    count_group_states,
    count_states,
    list_recent_commands,
    list_state_changes,
    neighbours,
    running_operations,
    shown_components,
    shown_operations,
    waits_of,
    with_steps,
)
from apps.operations.state_machine import derive_state
from apps.orgs.models import User
from apps.rbac.selectors import resolve_permissions

MAP_PERMISSIONS = ("component:start", "component:stop", "component:restart", "component:logs", "map:edit")
_TOLD_PROBLEMS = 50
COMMAND_NAMES = ("start", "stop", "restart", "status")


def map_url(map: Map) -> str:
    return f"/maps/{map.organization.slug}/{map.workspace.slug}/{map.slug}/"


def describe_maps(maps: Iterable[Map]) -> list[dict[str, Any]]:
    """MapSummaries, in two more queries however many there are."""
    listed = list(maps)
    ids = [map.pk for map in listed]
    counts, operations = count_states(ids), running_operations(ids)
    summaries = []
    for map in listed:
        operation = operations.get(map.pk)
        brief = {"id": str(operation.pk), "kind": operation.kind, "state": operation.state} if operation else None
        summaries.append(
            {
                **_map_head(map),
                "counts": counts[map.pk],
                "componentCount": sum(counts[map.pk].values()),
                "operation": brief,
            }
        )
    return summaries


def _map_head(map: Map) -> dict[str, Any]:
    return {
        "id": str(map.pk),
        "name": map.name,
        "slug": map.slug,
        "description": map.description,
        "state": map.state,
        "version": map.version,
        "organization": _named(map.organization),
        "workspace": _named(map.workspace),
        "url": map_url(map),
    }


def _named(thing: Any) -> dict[str, str]:
    return {"id": str(thing.pk), "name": thing.name, "slug": thing.slug}


def describe_map(map: Map, user: User) -> dict[str, Any]:
    """The whole of a Map: what a page needs to show it."""
    components = list(shown_components(map))
    by_host = get_agents_by_host(map.organization_id)
    return {
        **_map_head(map),
        "groups": _groups(map),
        "components": [describe_component(component, by_host) for component in components],
        "dependencies": [
            {"from": str(source), "to": str(target), "kind": kind}
            for source, target, kind in map.dependencies.values_list("component_id", "needs_id", "kind")
        ],
        "operations": describe_operations(shown_operations(map)),
        "requiresReason": map.requires_reason,
        "permissions": resolve_permissions(user, map.organization_id, MAP_PERMISSIONS),
    }


def _groups(map: Map) -> list[dict[str, Any]]:
    """The groups with their states, counted by the database: a change must not load a whole Map."""
    counts = count_group_states(map)
    return [
        {
            "name": group.name,
            "title": group.title or group.name,
            "state": derive_state(counts.get(group.pk, {})),
            "componentCount": sum(counts.get(group.pk, {}).values()),
        }
        for group in map.groups.order_by("position")
    ]


def describe_component(component: Component, by_host: Mapping[str, Agent]) -> dict[str, Any]:
    agent = agent_of(component, by_host)
    hold = getattr(component, "hold", None)
    return {
        "id": str(component.pk),
        "name": component.name,
        "type": component.type,
        "group": component.group.name if component.group else None,
        "host": component.host,
        "agent": describe_agent_briefly(agent) if agent else None,
        "state": component.state,
        "stateSince": component.state_since,
        "stateReason": component.state_reason,
        "technology": component.technology,
        "labels": component.labels,
        "commands": [name for name in COMMAND_NAMES if name in component.spec.get("commands", {})],
        "operation": str(hold.operation_id) if hold else None,
        "maintenance": _describe_maintenance(component),
        "version": component.version,
    }


def _describe_maintenance(component: Component) -> dict[str, Any] | None:
    """`isAlerting` says it to whoever sends alerts: of a component that is worked on there are none."""
    maintenance: Maintenance | None = getattr(component, "maintenance", None)
    if maintenance is None:
        return None
    person = maintenance.by
    return {
        "reason": maintenance.reason,
        "since": maintenance.since,
        "until": maintenance.until,
        "by": {"id": str(person.pk), "name": person.name, "email": person.email} if person else None,
        "isAlerting": False,
    }


def describe_component_fully(component: Component) -> dict[str, Any]:
    """What the drawer of a component shows."""
    by_host = agents_for(component.organization_id, [component])
    health = ComponentHealth.objects.filter(component=component).first()
    prepared = [prepare_command(component.spec, name) for name in COMMAND_NAMES]
    return {
        **describe_component(component, by_host),
        "mapId": str(component.map_id),
        "description": component.spec.get("description", ""),
        "commandDetails": [
            {
                "name": command.name,
                "summary": command.summary,
                "mode": command.execution["type"],
                "timeoutMs": command.timeout_ms,
            }
            for command in prepared
            if command is not None
        ],
        "health": {
            "status": health.status if health else None,
            "details": health.details if health else {},
            "checkedAt": health.checked_at if health else None,
        },
        **neighbours(component),
        "history": [
            {
                "previous": change.previous,
                "state": change.state,
                "cause": change.cause,
                "reason": change.reason,
                "at": change.at,
            }
            for change in list_state_changes(component)
        ],
        "recentCommands": [describe_command(command) for command in list_recent_commands(component)],
    }


def describe_changes(map: Map, since: int) -> dict[str, Any]:
    """What changed on a Map after version `since`, as one message of the live feed."""
    if since < map.structure_version:
        return {"type": "reload", "version": map.version}
    components = list(changed_components(map, since))
    by_host = agents_for(map.organization_id, components)
    operations = with_steps(Operation.objects.filter(map=map, version__gt=since)).order_by("id")
    return {
        "type": "changes",
        "version": map.version,
        "mapState": map.state,
        "groups": [{"name": group["name"], "state": group["state"]} for group in _groups(map)],
        "components": [describe_component(component, by_host) for component in components],
        "operations": describe_operations(operations),
    }


def describe_operations(operations: Iterable[Operation]) -> list[dict[str, Any]]:
    """Operations with their steps; load them with `with_steps`."""
    listed = list(operations)
    waits = waits_of(listed)
    return [_describe_operation(operation, waits.get(operation.pk, ())) for operation in listed]


def describe_operation(operation: Operation) -> dict[str, Any]:
    [described] = describe_operations([operation])
    return described


def _describe_operation(operation: Operation, waits_for: Sequence[Operation]) -> dict[str, Any]:
    steps = list(operation.steps.all())
    counts = {"total": len(steps), **{state.value: 0 for state in StepState}}
    for step in steps:
        counts[step.state] += 1
    return {
        "id": str(operation.pk),
        "kind": operation.kind,
        "state": operation.state,
        "detail": operation.detail,
        "mapId": str(operation.map_id),
        "target": operation.target,
        "reason": operation.reason,
        "failurePolicy": operation.failure_policy,
        "maxParallel": operation.max_parallel,
        "isCancelRequested": operation.is_cancel_requested,
        "isRollingBack": operation.is_rolling_back,
        "pausedAt": operation.paused_at,
        "queue": _describe_turn(waits_for) if operation.state == OperationState.QUEUED else None,
        "requestedBy": _describe_person(operation.requested_by),
        "steeredBy": _describe_person(operation.steered_by),
        "createdAt": operation.created_at,
        "finishedAt": operation.finished_at,
        "counts": counts,
        **describe_remaining(operation, steps),
        "steps": [_describe_step(step) for step in steps],
    }


def _describe_turn(waits_for: Sequence[Operation]) -> dict[str, Any]:
    """`position` 1 is next, once those that run and are named here have ended."""
    ahead = [other for other in waits_for if other.state == OperationState.QUEUED]
    return {
        "position": 1 + len(ahead),
        "waitsFor": [
            {
                "id": str(other.pk),
                "kind": other.kind,
                "target": other.target,
                "state": other.state,
                "requestedBy": _describe_person(other.requested_by),
            }
            for other in waits_for
        ],
    }


def _describe_person(person: User | None) -> dict[str, str] | None:
    return {"id": str(person.pk), "name": person.name, "email": person.email} if person else None


def _describe_step(step: Step) -> dict[str, Any]:
    return {
        "id": str(step.pk),
        "component": {
            "id": str(step.component_id) if step.component_id else None,
            "name": step.component_name,
        },
        "action": step.action,
        "state": step.state,
        "after": [str(order.before_id) for order in step.orders_before.all()],
        "commandId": str(step.command_id) if step.command_id else None,
        "startedAt": step.started_at,
        "finishedAt": step.finished_at,
        "detail": step.detail,
        "attempt": step.attempt,
        "isRollback": step.is_rollback,
    }


def describe_plan(plan: CheckedPlan) -> dict[str, Any]:
    """A dry run."""
    held = [*map(_held_problem, plan.holds), *map(_ahead_problem, plan.ahead)]
    return {
        "kind": plan.kind,
        "target": plan.target,
        "steps": [_describe_planned_step(step) for step in plan.steps],
        "untouched": [_brief(component) for component in plan.untouched],
        "problems": [*map_problems(plan.problems), *held],
        "isExecutable": plan.is_executable and not held,
        "criticalPath": [_key(key) for key in plan.prediction.path] if plan.prediction else [],
        **_describe_prediction(plan.prediction),
        "levels": plan.levels,
    }


def tell_plan(plan: CheckedPlan) -> str:
    """A dry run in words, with what stands against it."""
    names = _names(plan)
    head = f"{plan.kind.label}: {plan.target}\n"
    text = plan_as_text(plan.as_plan(), plan.graph, names.__getitem__, plan.prediction)
    problems = [problem["message"] for problem in describe_plan(plan)["problems"]]
    problems += [problem.message for step in plan.steps for problem in step.problems]
    shown = [f"- {message}\n" for message in problems[:_TOLD_PROBLEMS]]
    if len(problems) > _TOLD_PROBLEMS:
        shown.append(f"- … and {len(problems) - _TOLD_PROBLEMS} more.\n")
    against = "".join(["\nWhat stands against it:\n", *shown]) if shown else ""
    return f"{head}\n{text}{against}"


def draw_plan(plan: CheckedPlan) -> str:
    """A dry run as a Mermaid diagram."""
    critical = plan.prediction.path if plan.prediction else ()
    return plan_as_mermaid(plan.as_plan().steps, _names(plan).__getitem__, critical=critical)


def _names(plan: CheckedPlan) -> dict[uuid.UUID, str]:
    touched = [step.component for step in plan.steps]
    return {component.pk: component.name for component in [*touched, *plan.untouched]}


def _describe_planned_step(step: CheckedStep) -> dict[str, Any]:
    return {
        "key": _key(step.planned.key),
        "component": _brief(step.component),
        "action": step.planned.action,
        "after": sorted(_key(key) for key in step.planned.after),
        "host": step.component.host or (step.agent.hostname if step.agent else ""),
        "agent": describe_agent_briefly(step.agent) if step.agent else None,
        "command": step.command.summary if step.command else "",
        "isAllowed": step.is_allowed,
        "problems": map_problems(step.problems),
        **_describe_prediction(step.prediction),
    }


def _describe_prediction(prediction: Prediction | PlanPrediction[uuid.UUID] | None) -> dict[str, int | None]:
    """The time that is usual, and the one that is not exceeded nine times in ten; null without a history."""
    return {
        "predictedMs": prediction.p50_ms if prediction else None,
        "predictedP90Ms": prediction.p90_ms if prediction else None,
    }


def map_problems(problems: Iterable[Problem]) -> list[dict[str, Any]]:
    return [
        {"code": problem.code, "message": problem.message}
        | ({"component": problem.component} if problem.component else {})
        for problem in problems
    ]


def _held_problem(hold: Any) -> dict[str, Any]:
    message = f"{hold.component.name} is held by {_told(hold.operation)}."
    return {"code": "held", "message": message, "component": hold.component.name}


def _ahead_problem(operation: Operation) -> dict[str, Any]:
    message = f"{_told(operation)} waits for the same components, and was asked for before."
    return {"code": "held", "message": message}


def _told(operation: Operation) -> str:
    person = operation.requested_by
    who = (person.name or person.email) if person else "somebody who has left"
    return f"“{operation.kind} {operation.target}” of {who}"


def _brief(component: Component) -> dict[str, str]:
    return {"id": str(component.pk), "name": component.name, "state": component.state}


def _key(key: StepKey) -> str:
    component_id, action = key
    return f"{component_id}:{action}"
