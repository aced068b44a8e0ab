"""From a request to a checked plan: the pure planner's steps, with commands, agents, permissions and predictions."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from apps.gateways.models import Agent
from apps.gateways.selectors import get_agents_by_host
from apps.maps.documents.commands import PreparedCommand, prepare_command
from apps.maps.enums import ComponentState
from apps.maps.models import Component, Map
from apps.maps.planning.durations import PlanPrediction, count_levels, predict_plan
from apps.maps.planning.graph import CyclicError, Graph
from apps.maps.planning.plans import (
    Plan,
    PlannedStep,
    Scope,
    StepAction,
    plan_repair,
    plan_restart,
    plan_start,
    plan_stop,
)
from apps.maps.planning.prediction import Prediction
from apps.maps.planning.rollback import INVERSES
from apps.maps.selectors import get_graph
from apps.operations.enums import FailurePolicy, OperationKind, OperationState
from apps.operations.exceptions import MapChangedError
from apps.operations.models import ComponentHold, Operation, QueuedClaim
from apps.operations.selectors import agent_of, get_predictions
from apps.operations.state_machine import condition_of
from apps.orgs.models import User
from apps.rbac.selectors import resolve_permissions

StepKey = tuple[uuid.UUID, StepAction]

DEFAULT_SCOPES = {
    OperationKind.START: Scope.WITH_DEPENDENCIES,
    OperationKind.STOP: Scope.WITH_DEPENDENTS,
    OperationKind.RESTART: Scope.ALONE,
}
_SHOWN_OF_CYCLE = 8


@dataclass(frozen=True, slots=True)
class Problem:
    """Why something cannot be carried out, in words, with a stable code."""

    code: str
    message: str
    component: str | None = None


@dataclass(frozen=True, slots=True)
class CheckedStep:
    """A planned step with everything its execution needs, or the problems that stand against it."""

    planned: PlannedStep[uuid.UUID]
    component: Component
    agent: Agent | None
    command: PreparedCommand | None
    is_allowed: bool
    prediction: Prediction | None
    problems: tuple[Problem, ...]


@dataclass(frozen=True, slots=True)
class CheckedPlan:
    """What a dry run shows and an execution follows."""

    kind: OperationKind
    target: str
    steps: Sequence[CheckedStep]
    untouched: Sequence[Component]
    problems: Sequence[Problem]
    graph: Graph[uuid.UUID]
    needed: frozenset[uuid.UUID] = frozenset()
    """The components that nobody else may have: those of its steps, and those that were chosen, also without a step."""
    holds: Sequence[ComponentHold] = field(default_factory=list)
    ahead: Sequence[Operation] = field(default_factory=list)
    """Queued operations that were asked for before and wait for one of `needed`."""
    prediction: PlanPrediction[uuid.UUID] | None = None
    levels: int = 0

    @property
    def is_free(self) -> bool:
        """Whether nobody has, or waits for, what it needs."""
        return not self.holds and not self.ahead

    @property
    def is_executable(self) -> bool:
        return bool(self.steps) and not self.problems and not any(step.problems for step in self.steps)

    def as_plan(self) -> Plan[uuid.UUID]:
        return Plan(tuple(step.planned for step in self.steps))

    def all_problems(self) -> list[Problem]:
        return [*self.problems, *(problem for step in self.steps for problem in step.problems)]


def make_plan(
    *,
    map: Map,
    user: User,
    kind: OperationKind,
    chosen: Collection[uuid.UUID],
    scope: Scope | None,
    failure_policy: FailurePolicy = FailurePolicy.CONTINUE,
    queue_number: int | None = None,
) -> CheckedPlan:
    """The plan for a request on a Map. Writes nothing and sends nothing.

    `chosen` are ids of components of this Map; empty means the whole Map. Unknown ids become problems. For an operation
    that waits in the queue itself, only those before its `queue_number` are ahead of it.

    Raises:
        MapChangedError: somebody changes the Map's structure right now. Never for a Map that is locked.
    """
    components = {component.pk: component for component in Component.objects.filter(map=map).order_by("name")}
    graph = _graph_of(map, components)
    faults = [Problem("unknown_component", f"This Map has no component {pk}.") for pk in set(chosen) - set(components)]
    known = [pk for pk in chosen if pk in components]
    try:
        plan = _plan(graph, components, kind, known if chosen else list(components), scope, is_whole=not chosen)
    except CyclicError as error:
        plan = Plan(())
        faults.append(_cycle_problem(error, components))
    plan = _without_missing_stops(plan, components)
    checked = _check_steps(map, user, components, plan)
    touched = plan.nodes
    # Also without a step: what somebody else is starting right now is not "already running".
    needed = frozenset(touched.union(known) or components)
    holds = _holds(needed)
    concerned = [components[pk] for pk in known] if chosen else list(components.values())
    ahead = _ahead(map, needed, queue_number)
    if failure_policy is FailurePolicy.ROLL_BACK:
        faults += _no_way_back(map, user, components, plan)
    problems = faults if plan.steps or faults or holds or ahead else [_nothing_to_do(kind, concerned)]
    predictions = {step.planned.key: step.prediction for step in checked if step.prediction is not None}
    return CheckedPlan(
        kind=kind,
        target=_target(map, components, plan, known, kind),
        steps=checked,
        untouched=[component for component in components.values() if component.pk not in touched],
        problems=problems,
        graph=graph,
        needed=needed,
        holds=holds,
        ahead=ahead,
        # Honest: without a history of every step there is no prediction of the whole, and no path that decides it.
        prediction=predict_plan(plan.steps, predictions) if plan.steps else None,
        levels=count_levels(plan.steps),
    )


def _graph_of(map: Map, components: dict[uuid.UUID, Component]) -> Graph[uuid.UUID]:
    """Raises MapChangedError if it is not of these components."""
    for is_read_anew in (False, True):
        graph = get_graph(map, is_read_anew=is_read_anew)
        if components.keys() == set(graph.nodes):
            return graph
    raise MapChangedError(f"{map.name} is being changed at this moment: ask again.")


def _plan(
    graph: Graph[uuid.UUID],
    components: dict[uuid.UUID, Component],
    kind: OperationKind,
    chosen: Collection[uuid.UUID],
    scope: Scope | None,
    *,
    is_whole: bool,
) -> Plan[uuid.UUID]:
    conditions = {pk: condition_of(ComponentState(component.state)) for pk, component in components.items()}
    if kind is OperationKind.REPAIR:
        return plan_repair(graph, conditions)
    reach = Scope.ALONE if is_whole else scope or DEFAULT_SCOPES[kind]
    if kind is OperationKind.START:
        return plan_start(graph, conditions, chosen, reach)
    if kind is OperationKind.STOP:
        return plan_stop(graph, conditions, chosen, reach)
    if len(chosen) == 1 and reach is Scope.ALONE:
        [only] = chosen
        if "restart" in components[only].spec.get("commands", {}):
            return Plan((PlannedStep(only, StepAction.RESTART),), frozenset(chosen))
    return plan_restart(graph, conditions, chosen, reach)


def _without_missing_stops(plan: Plan[uuid.UUID], components: dict[uuid.UUID, Component]) -> Plan[uuid.UUID]:
    """A failed component without a stop command is simply started: there is nothing of it to stop."""
    dropped = {
        step.key
        for step in plan.steps
        if step.action is StepAction.STOP
        and components[step.node].state == ComponentState.FAILED
        and "stop" not in components[step.node].spec.get("commands", {})
    }
    kept = [PlannedStep(step.node, step.action, step.after - dropped) for step in plan.steps if step.key not in dropped]
    return Plan(tuple(kept), plan.roots) if dropped else plan


def _check_steps(
    map: Map, user: User, components: dict[uuid.UUID, Component], plan: Plan[uuid.UUID]
) -> list[CheckedStep]:
    by_host = get_agents_by_host(map.organization_id)
    history = get_predictions(step.node for step in plan.steps)
    perms = {action: f"component:{action}" for action in {step.action for step in plan.steps}}
    granted = resolve_permissions(user, map.organization_id, perms.values())
    checked = []
    for step in plan.steps:
        component = components[step.node]
        agent = agent_of(component, by_host)
        command = prepare_command(component.spec, step.action)
        checked.append(
            CheckedStep(
                planned=step,
                component=component,
                agent=agent,
                command=command,
                is_allowed=granted[perms[step.action]],
                prediction=history.get(step.key),
                problems=tuple(_problems(component, step.action, agent, command, granted[perms[step.action]])),
            )
        )
    return checked


def _problems(
    component: Component,
    action: StepAction,
    agent: Agent | None,
    command: PreparedCommand | None,
    is_allowed: bool,
) -> list[Problem]:
    name = component.name
    problems = []
    if not is_allowed:
        problems.append(Problem("permission_denied", f"You may not {action} {name}.", name))
    if command is None:
        problems.append(Problem("no_command", f"{name} has no {action} command.", name))
    if agent is None:
        where = f"host {component.host!r}" if component.host else "the host it asks for"
        problems.append(Problem("unknown_host", f"{name}: no agent is known for {where}.", name))
    elif agent.quarantined_at is not None:
        because = f" ({agent.quarantine_reason})" if agent.quarantine_reason else ""
        message = f"{name}: the agent {agent.agent_id} is in quarantine{because}."
        problems.append(Problem("agent_quarantined", message, name))
    elif agent.revoked_at is not None:
        problems.append(Problem("agent_revoked", f"{name}: the agent {agent.agent_id} is revoked.", name))
    elif not agent.is_online:
        gateway = agent.gateway
        if gateway is not None and not gateway.is_online:
            message = f"{name}: the gateway {gateway.gateway_id}, by which {agent.agent_id} comes, is not connected."
            problems.append(Problem("gateway_offline", message, name))
        else:
            message = f"{name}: the agent {agent.agent_id} is not connected."
            problems.append(Problem("agent_offline", message, name))
    return problems


def _no_way_back(map: Map, user: User, components: dict[uuid.UUID, Component], plan: Plan[uuid.UUID]) -> list[Problem]:
    """What a roll back could need and would not have: better known before the first step than after a failed one."""
    granted = resolve_permissions(user, map.organization_id, ["component:start", "component:stop"])
    planned = {step.key for step in plan.steps}
    problems = []
    for step in plan.steps:
        action = INVERSES.get(step.action)
        if action is None or (step.node, action) in planned:
            continue
        component = components[step.node]
        if not granted[f"component:{action}"]:
            message = f"You may not {action} {component.name}, which a roll back may have to do."
            problems.append(Problem("permission_denied", message, component.name))
        if prepare_command(component.spec, action) is None:
            message = f"{component.name} has no {action} command, which a roll back may need."
            problems.append(Problem("no_command", message, component.name))
    return problems


def _nothing_to_do(kind: OperationKind, concerned: Sequence[Component]) -> Problem:
    if not concerned:
        return Problem("nothing_to_do", "This Map has no components yet.")
    unseen = [component.name for component in concerned if component.state == ComponentState.UNREACHABLE]
    if unseen and kind is not OperationKind.REPAIR:
        names = ", ".join(unseen[:3]) + (f" and {len(unseen) - 3} more" if len(unseen) > 3 else "")
        return Problem("unreachable", f"Nobody can see what is with {names}: the agents are not connected.")
    messages = {
        OperationKind.START: "Everything is already running.",
        OperationKind.STOP: "Everything is already stopped.",
        OperationKind.REPAIR: "Nothing has failed: there is nothing to repair.",
    }
    return Problem("nothing_to_do", messages.get(kind, "There is nothing to do."))


def _holds(component_ids: Iterable[uuid.UUID]) -> list[ComponentHold]:
    held = ComponentHold.objects.filter(component_id__in=component_ids)
    return list(held.select_related("component", "operation__requested_by").order_by("component__name"))


def _ahead(map: Map, component_ids: Collection[uuid.UUID], queue_number: int | None) -> list[Operation]:
    queued = Operation.objects.filter(map=map, state=OperationState.QUEUED)
    if queue_number is not None:
        queued = queued.filter(queue_number__lt=queue_number)
    # Nearly always nobody waits; then the many ids need not travel.
    if not queued.exists():
        return []
    claims = QueuedClaim.objects.filter(operation__in=queued, component_id__in=component_ids)
    concerned = queued.filter(pk__in=claims.values("operation_id"))
    return list(concerned.select_related("requested_by").order_by("queue_number"))


def _target(
    map: Map,
    components: dict[uuid.UUID, Component],
    plan: Plan[uuid.UUID],
    chosen: Collection[uuid.UUID],
    kind: OperationKind,
) -> str:
    about = plan.roots if kind is OperationKind.REPAIR else chosen
    if not about:
        return map.name
    names = sorted(components[pk].name for pk in about)
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"


def _cycle_problem(error: CyclicError, components: dict[uuid.UUID, Component]) -> Problem:
    """Documents with a cycle are refused, so that this should never be; if it is, nothing of it is carried out."""
    names = [components[pk].name for pk in error.cycle]
    shown = [*names[:_SHOWN_OF_CYCLE], *(["…"] if len(names) > _SHOWN_OF_CYCLE else []), names[0]]
    return Problem("cycle", f"There is no order in which to do this: {' needs '.join(shown)}.", names[0])
