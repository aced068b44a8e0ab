"""From a wish ("start this", "repair") to the steps that carry it out, as parallel as the graph allows."""

from __future__ import annotations

from collections.abc import Collection, Iterable
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
    """What planning needs to know of a component's state."""

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
    graph: Graph[K], conditions: dict[K, Condition], chosen: Collection[K], scope: Scope = Scope.ALONE
) -> Plan[K]:
    """Start what is down among the chosen (and what they need, or what needs them, as the scope says)."""
    selected = _reach(graph, chosen, scope)
    to_start = {node for node in selected if conditions[node] in {Condition.DOWN, Condition.FAILED}}
    return Plan(tuple(_starts(graph, to_start)), frozenset(chosen))


def plan_stop(
    graph: Graph[K], conditions: dict[K, Condition], chosen: Collection[K], scope: Scope = Scope.ALONE
) -> Plan[K]:
    """Stop what is not down, each after everything that needs it."""
    selected = _reach(graph, chosen, scope)
    to_stop = {node for node in selected if conditions[node] is not Condition.DOWN}
    return Plan(tuple(_stops(graph, to_stop)), frozenset(chosen))


def plan_restart(
    graph: Graph[K], conditions: dict[K, Condition], chosen: Collection[K], scope: Scope = Scope.ALONE
) -> Plan[K]:
    """Stop in reverse order, start in order. A chosen component that is down is only started."""
    selected = _reach(graph, chosen, scope)
    to_stop = {node for node in selected if conditions[node] is not Condition.DOWN}
    return Plan(tuple(_bounce(graph, to_stop, selected)), frozenset(chosen))


def plan_repair(graph: Graph[K], conditions: dict[K, Condition]) -> Plan[K]:
    """The branch that is broken, and nothing else (SPEC 10.2).

    Roots are the failed components, and the impaired ones that no failed or impaired component below explains. The
    perimeter is what they impact through strong dependencies, less what is down anyway: nobody asked for that to run.
    """
    roots = find_roots(graph, conditions)
    perimeter = {node for node in graph.impacted_by(roots) if conditions[node] is not Condition.DOWN}
    return Plan(tuple(_bounce(graph, perimeter, perimeter)), frozenset(roots))


def find_roots(graph: Graph[K], conditions: dict[K, Condition]) -> set[K]:
    """The components that a repair must begin with."""
    troubled = {node for node, condition in conditions.items() if condition in {Condition.FAILED, Condition.IMPAIRED}}
    explained = graph.impacted_by(above for node in troubled for above in graph.strong_needed_by[node])
    return {node for node in troubled if conditions[node] is Condition.FAILED or node not in explained}


def _reach(graph: Graph[K], chosen: Collection[K], scope: Scope) -> set[K]:
    match scope:
        case Scope.WITH_DEPENDENCIES:
            return graph.required_by(chosen)
        case Scope.WITH_DEPENDENTS:
            return graph.impacted_by(chosen)
    return set(chosen)


def _starts(graph: Graph[K], to_start: set[K]) -> Iterable[PlannedStep[K]]:
    order = graph.order_within(to_start)
    return _in_order(
        PlannedStep(node, StepAction.START, frozenset((before, StepAction.START) for before in befores))
        for node, befores in order.items()
    )


def _stops(graph: Graph[K], to_stop: set[K]) -> Iterable[PlannedStep[K]]:
    order = graph.order_within(to_stop)
    waits: dict[K, set[tuple[K, StepAction]]] = {node: set() for node in order}
    for node, befores in order.items():
        for needed in befores:
            waits[needed].add((node, StepAction.STOP))
    return _in_order(PlannedStep(node, StepAction.STOP, frozenset(after)) for node, after in waits.items())


def _bounce(graph: Graph[K], to_stop: set[K], to_start: set[K]) -> Iterable[PlannedStep[K]]:
    """Stops, then starts: a component starts when it has stopped itself and what it needs is up again."""
    stops = list(_stops(graph, to_stop))
    starts = [
        PlannedStep(step.node, step.action, step.after | {(step.node, StepAction.STOP)})
        if step.node in to_stop
        else step
        for step in _starts(graph, to_start)
    ]
    return [*stops, *starts]


def _in_order(steps: Iterable[PlannedStep[K]]) -> Iterable[PlannedStep[K]]:
    """The steps so that each comes after those it waits for, otherwise in the order given."""
    pending = {step.key: step for step in steps}
    ordered: dict[tuple[K, StepAction], PlannedStep[K]] = {}
    for first in pending.values():
        stack = [first]
        while stack:
            step = stack[-1]
            if step.key in ordered:
                stack.pop()
                continue
            missing = [pending[key] for key in sorted(step.after, key=repr) if key in pending and key not in ordered]
            if missing:
                stack += missing
            else:
                ordered[step.key] = stack.pop()
    return ordered.values()
