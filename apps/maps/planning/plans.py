"""From a wish ("start this", "repair") to the steps that carry it out, as parallel as the graph allows."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Generic

from apps.maps.planning.graph import Graph, K


class StepAction(StrEnum):
    START = "start"
    STOP = "stop"
    RESTART = "restart"


class Scope(StrEnum):
    """How far an operation on chosen components reaches."""

    ALONE = "alone"
    WITH_DEPENDENCIES = "with_dependencies"
    WITH_DEPENDENTS = "with_dependents"


class Condition(StrEnum):
    """What planning needs to know of a component's state. A component of which nothing is said is up."""

    UP = "up"
    DOWN = "down"
    IMPAIRED = "impaired"
    """Answers, but not well: needs a repair when nothing below it explains it."""
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class PlannedStep(Generic[K]):
    """One action on one component; it may begin when every step in `after` has succeeded."""

    node: K
    action: StepAction
    after: frozenset[tuple[K, StepAction]] = frozenset()

    @property
    def key(self) -> tuple[K, StepAction]:
        return (self.node, self.action)


@dataclass(frozen=True, slots=True)
class Plan(Generic[K]):
    """Steps in an order in which each comes after those it waits for."""

    steps: tuple[PlannedStep[K], ...]
    roots: frozenset[K] = field(default_factory=frozenset)
    """What the plan is about: the chosen components, or for a repair those that failed by themselves."""

    @property
    def nodes(self) -> set[K]:
        return {step.node for step in self.steps}


def plan_start(
    graph: Graph[K], conditions: Mapping[K, Condition], chosen: Collection[K], scope: Scope = Scope.ALONE
) -> Plan[K]:
    """Start what is down among the chosen (and what they need, or what needs them, as the scope says)."""
    selected = _reach(graph, chosen, scope)
    to_start = {node for node in selected if conditions.get(node) in {Condition.DOWN, Condition.FAILED}}
    return Plan(tuple(_starts(graph, to_start)), frozenset(chosen))


def plan_stop(
    graph: Graph[K], conditions: Mapping[K, Condition], chosen: Collection[K], scope: Scope = Scope.ALONE
) -> Plan[K]:
    """Stop what is not down, each after everything that needs it."""
    selected = _reach(graph, chosen, scope)
    to_stop = {node for node in selected if conditions.get(node) is not Condition.DOWN}
    return Plan(tuple(_stops(graph, to_stop)), frozenset(chosen))


def plan_restart(
    graph: Graph[K], conditions: Mapping[K, Condition], chosen: Collection[K], scope: Scope = Scope.ALONE
) -> Plan[K]:
    """Stop in reverse order, start in order. A chosen component that is down is only started."""
    selected = _reach(graph, chosen, scope)
    to_stop = {node for node in selected if conditions.get(node) is not Condition.DOWN}
    return Plan(tuple(_bounce(graph, to_stop, selected)), frozenset(chosen))


def plan_repair(graph: Graph[K], conditions: Mapping[K, Condition]) -> Plan[K]:
    """The branch that is broken, and nothing else (SPEC 10.2): stopped in reverse order, started in order."""
    roots = find_roots(graph, conditions)
    perimeter = find_perimeter(graph, conditions, roots)
    return Plan(tuple(_bounce(graph, perimeter, perimeter)), frozenset(roots))


def find_roots(graph: Graph[K], conditions: Mapping[K, Condition]) -> set[K]:
    """What a repair begins with: the failed, and the impaired that no failed or impaired one below explains."""
    troubled = {node for node, condition in conditions.items() if condition in {Condition.FAILED, Condition.IMPAIRED}}
    explained = graph.above(troubled)
    return {node for node in troubled if conditions[node] is Condition.FAILED or node not in explained}


def find_perimeter(graph: Graph[K], conditions: Mapping[K, Condition], roots: Collection[K]) -> set[K]:
    """What a repair touches: what the roots impact, less what is down anyway: nobody asked for that to run."""
    return {node for node in graph.impacted_by(roots) if conditions.get(node) is not Condition.DOWN}


def _reach(graph: Graph[K], chosen: Collection[K], scope: Scope) -> set[K]:
    match scope:
        case Scope.WITH_DEPENDENCIES:
            return graph.required_by(chosen)
        case Scope.WITH_DEPENDENTS:
            return graph.impacted_by(chosen)
    return set(chosen)


def _starts(graph: Graph[K], to_start: set[K]) -> list[PlannedStep[K]]:
    return _steps(StepAction.START, graph.start_order(to_start))


def _stops(graph: Graph[K], to_stop: set[K]) -> list[PlannedStep[K]]:
    return _steps(StepAction.STOP, graph.stop_order(to_stop))


def _steps(action: StepAction, order: Mapping[K, Collection[K]]) -> list[PlannedStep[K]]:
    return [
        PlannedStep(node, action, frozenset([(before, action) for before in befores]))
        for node, befores in order.items()
    ]


def _bounce(graph: Graph[K], to_stop: set[K], to_start: set[K]) -> Iterable[PlannedStep[K]]:
    """Stops, then starts: a component starts when it has stopped itself and what it needs is up again."""
    starts = [
        PlannedStep(step.node, step.action, step.after | {(step.node, StepAction.STOP)})
        if step.node in to_stop
        else step
        for step in _starts(graph, to_start)
    ]
    return [*_stops(graph, to_stop), *starts]
