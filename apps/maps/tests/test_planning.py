"""Plans of random Maps, against a second opinion: order, perimeter, cycles, and what is left alone."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.maps.planning.graph import CyclicError, Edge, Graph, find_cycle
from apps.maps.planning.plans import (
    Condition,
    Plan,
    Scope,
    StepAction,
    find_roots,
    plan_repair,
    plan_restart,
    plan_start,
    plan_stop,
)
from apps.maps.tests.graphs import NAMES, Case, cases, nodes_with, reachable, waits

START, STOP = StepAction.START, StepAction.STOP
UP, DOWN, IMPAIRED, FAILED = Condition.UP, Condition.DOWN, Condition.IMPAIRED, Condition.FAILED
SCOPES = st.sampled_from(Scope)
examples = settings(max_examples=80, deadline=None)


def _reach(case: Case, scope: Scope) -> set[str]:
    """The chosen, and what a scope adds to them, by the slow way."""
    strong = case.needs(is_strong_only=True)
    if scope is Scope.WITH_DEPENDENCIES:
        return case.chosen | {lower for upper, lower in strong if upper in case.chosen}
    if scope is Scope.WITH_DEPENDENTS:
        return case.chosen | {upper for upper, lower in strong if lower in case.chosen}
    return set(case.chosen)


def _check_order(case: Case, plan: Plan[str]) -> None:
    """Every dependency among the steps is respected, and nothing waits without a reason."""
    keys = [step.key for step in plan.steps]
    assert len(keys) == len(set(keys))
    for position, step in enumerate(plan.steps):
        assert step.after <= set(keys[:position]), "a step waits for one that comes later, or for none of the plan"
    waiting = waits(plan)
    starts, stops = nodes_with(plan, START), nodes_with(plan, STOP)
    for upper, lower in case.needs():
        if {upper, lower} <= starts:
            assert ((upper, START), (lower, START)) in waiting
        if {upper, lower} <= stops:
            assert ((lower, STOP), (upper, STOP)) in waiting
    for node in starts & stops:
        assert ((node, START), (node, STOP)) in waiting
    for step in plan.steps:
        for other, action in step.after:
            pair = (other, step.node) if step.action is STOP else (step.node, other)
            assert pair in case.needs() or (other == step.node and (action, step.action) == (STOP, START))
            assert action is step.action or other == step.node


@examples
@given(cases(), SCOPES)
def test_start_begins_what_is_down_each_after_what_it_needs(case: Case, scope: Scope) -> None:
    plan = plan_start(case.graph, case.conditions, case.chosen, scope)

    _check_order(case, plan)
    assert nodes_with(plan, STOP) == set()
    assert nodes_with(plan, START) == {node for node in _reach(case, scope) if case.conditions[node] in {DOWN, FAILED}}
    assert plan.roots == case.chosen


@examples
@given(cases(), SCOPES)
def test_stop_ends_what_is_not_down_each_after_what_needs_it(case: Case, scope: Scope) -> None:
    plan = plan_stop(case.graph, case.conditions, case.chosen, scope)

    _check_order(case, plan)
    assert nodes_with(plan, START) == set()
    assert nodes_with(plan, STOP) == {node for node in _reach(case, scope) if case.conditions[node] is not DOWN}


@examples
@given(cases(), SCOPES)
def test_restart_stops_before_it_starts(case: Case, scope: Scope) -> None:
    plan = plan_restart(case.graph, case.conditions, case.chosen, scope)

    _check_order(case, plan)
    reach = _reach(case, scope)
    assert nodes_with(plan, START) == reach
    assert nodes_with(plan, STOP) == {node for node in reach if case.conditions[node] is not DOWN}


def _perimeter(case: Case) -> set[str]:
    """SPEC 10.2, by the slow way."""
    strong = case.needs(is_strong_only=True)
    troubled = {node for node, condition in case.conditions.items() if condition in {FAILED, IMPAIRED}}
    roots = {
        node
        for node in troubled
        if case.conditions[node] is FAILED or not any((node, other) in strong for other in troubled)
    }
    impacted = roots | {upper for upper, lower in strong if lower in roots}
    return {node for node in impacted if case.conditions[node] is not DOWN}


@examples
@given(cases())
def test_repair_touches_exactly_the_perimeter(case: Case) -> None:
    plan = plan_repair(case.graph, case.conditions)

    _check_order(case, plan)
    assert plan.nodes == nodes_with(plan, STOP) == nodes_with(plan, START) == _perimeter(case)


@examples
@given(cases())
def test_repair_leaves_no_trouble_unexplained(case: Case) -> None:
    roots = find_roots(case.graph, case.conditions)
    strong = case.needs(is_strong_only=True)

    for node, condition in case.conditions.items():
        if condition is FAILED:
            assert node in roots
        elif condition is IMPAIRED:
            assert node in roots or any((node, root) in strong for root in roots)
        else:
            assert node not in roots


@examples
@given(cases())
def test_carried_out_in_any_allowed_order_nothing_runs_without_what_it_needs(case: Case) -> None:
    """A whole restart, its steps taken in the reverse of the order given wherever that is allowed."""
    everything = dict.fromkeys(case.conditions, UP)
    plan = plan_restart(case.graph, everything, set(everything))
    left = {step.key: set(step.after) for step in plan.steps}
    running = set(everything)
    while left:
        node, action = [key for key, waiting in left.items() if not waiting & left.keys()][-1]
        del left[node, action]
        needed = {edge.target for edge in case.edges if edge.source == node}
        needing = {edge.source for edge in case.edges if edge.target == node}
        if action is STOP:
            assert not needing & running
            running.remove(node)
        else:
            assert needed <= running
            running.add(node)
    assert running == set(everything)


PAIRS = st.sets(st.tuples(st.sampled_from(NAMES), st.sampled_from(NAMES)), max_size=12)


@settings(max_examples=150, deadline=None)
@given(PAIRS)
def test_cycle_is_found_if_and_only_if_there_is_one(pairs: set[tuple[str, str]]) -> None:
    needs: dict[str, list[str]] = {name: [lower for upper, lower in pairs if upper == name] for name in NAMES}
    is_cyclic = any(upper == lower for upper, lower in reachable(pairs))

    cycle = find_cycle(needs)

    assert (cycle is not None) is is_cyclic
    if cycle is not None:
        assert len(cycle) == len(set(cycle))
        assert all(pair in pairs for pair in zip(cycle, [*cycle[1:], cycle[0]], strict=True))


def _graph(*edges: str) -> Graph[str]:
    """From texts such as "a>b" (a needs b) and "a~b" (for order only)."""
    return Graph(NAMES, [Edge(edge[0], edge[2], edge[1] == ">") for edge in edges])


def _steps(plan: Plan[str]) -> list[str]:
    return [f"{step.action} {step.node}" for step in plan.steps]


def _after(plan: Plan[str]) -> dict[str, set[str]]:
    return {f"{s.action} {s.node}": {f"{action} {node}" for node, action in s.after} for s in plan.steps}


def _conditions(**given: Condition) -> dict[str, Condition]:
    return dict.fromkeys(NAMES, UP) | given


def test_steps_look_through_components_that_are_left_alone() -> None:
    graph = _graph("a>b", "b>c", "c~d")
    plan = plan_start(graph, _conditions(a=DOWN, d=DOWN), {"a", "d"})

    assert _after(plan) == {"start d": set(), "start a": {"start d"}}


def test_independent_components_wait_for_nothing() -> None:
    plan = plan_start(_graph("a>b"), dict.fromkeys(NAMES, DOWN), set(NAMES))
    assert {step: after for step, after in _after(plan).items() if after} == {"start a": {"start b"}}


def test_chosen_components_keep_the_order_they_were_given_in() -> None:
    plan = plan_start(_graph(), dict.fromkeys(NAMES, DOWN), {"c", "b", "a"})
    assert _steps(plan) == ["start a", "start b", "start c"]


def test_restart_of_one_that_is_down_only_starts_it() -> None:
    assert _steps(plan_restart(_graph(), _conditions(a=DOWN), {"a"})) == ["start a"]


def test_start_of_one_that_failed_starts_it() -> None:
    assert _steps(plan_start(_graph(), _conditions(a=FAILED), {"a"})) == ["start a"]


def test_repair_bounces_the_branch_above_a_failure_and_nothing_beside_it() -> None:
    # a and e need b, which needs c; d is needed by c, f uses b for order only.
    graph = _graph("a>b", "b>c", "c>d", "e>b", "f~b", "g>d")
    plan = plan_repair(graph, _conditions(b=FAILED, a=IMPAIRED))

    assert plan.roots == {"b"}
    assert plan.nodes == {"a", "b", "e"}
    assert _after(plan)["start b"] == {"stop b"}
    assert _after(plan)["stop b"] == {"stop a", "stop e"}
    assert _after(plan)["start a"] == {"stop a", "start b"}


def test_repair_begins_at_an_impaired_component_that_nothing_explains() -> None:
    plan = plan_repair(_graph("a>b", "b>c"), _conditions(b=IMPAIRED, a=IMPAIRED))
    assert plan.roots == {"b"}
    assert plan.nodes == {"a", "b"}


def test_repair_leaves_down_what_nobody_wants_up() -> None:
    plan = plan_repair(_graph("a>b", "b>c"), _conditions(c=FAILED, b=DOWN))
    assert plan.nodes == {"c", "a"}
    assert _after(plan)["start a"] == {"stop a", "start c"}


@pytest.mark.parametrize("plan", [plan_start, plan_stop, plan_restart])
def test_nothing_chosen_is_an_empty_plan(plan: Callable[..., Plan[str]]) -> None:
    assert plan(_graph("a>b"), _conditions(), set()).steps == ()


def test_repair_of_a_healthy_map_is_an_empty_plan() -> None:
    assert plan_repair(_graph("a>b"), _conditions(c=DOWN)) == Plan(())


def test_graph_knows_its_nodes_in_order() -> None:
    graph = _graph("a>b")
    assert "".join(graph.nodes) == NAMES
    assert "a" in graph
    assert "z" not in graph


@pytest.mark.parametrize("plan", [plan_start, plan_stop, plan_restart])
def test_components_in_a_circle_are_refused_by_name(plan: Callable[..., Plan[str]]) -> None:
    graph = _graph("a>b", "b>c", "c~a", "d>a")
    conditions = dict.fromkeys(NAMES, DOWN if plan is plan_start else UP)
    with pytest.raises(CyclicError) as caught:
        plan(graph, conditions, {"a", "b", "c", "d"})
    cycle = caught.value.cycle
    pairs = {*zip(cycle, [*cycle[1:], cycle[0]], strict=True)}
    assert pairs == {("a", "b"), ("b", "c"), ("c", "a")}
    assert str(caught.value) == " needs ".join([*cycle, cycle[0]])


def test_a_circle_through_what_is_left_alone_is_refused_too() -> None:
    with pytest.raises(CyclicError):
        plan_start(_graph("a>b", "b>a"), _conditions(a=DOWN), {"a"})


def test_a_circle_elsewhere_is_no_reason_to_refuse() -> None:
    plan = plan_start(_graph("a>b", "c>d", "d>c", "a>d"), _conditions(a=DOWN, b=DOWN), {"a", "b"})
    assert _steps(plan) == ["start b", "start a"]


def test_repair_of_components_that_fail_in_a_circle_is_refused() -> None:
    with pytest.raises(CyclicError):
        plan_repair(_graph("a>b", "b>a"), _conditions(a=FAILED))


@examples
@given(cases())
def test_graph_of_columns_is_the_graph_of_its_edges(case: Case) -> None:
    names = list(case.conditions)
    columns = {
        is_strong: (
            [names.index(edge.source) for edge in case.edges if edge.is_strong is is_strong],
            [names.index(edge.target) for edge in case.edges if edge.is_strong is is_strong],
        )
        for is_strong in (True, False)
    }
    graph = Graph.of_columns(names, columns[True], columns[False])

    assert set(graph.edges()) == set(case.edges)
    assert (len(graph), graph.edge_count) == (len(names), len(case.edges))
    for name in names:
        mine = {(edge.target, edge.is_strong) for edge in case.edges if edge.source == name}
        assert set(graph.needs_of(name)) == mine
        assert set(graph.needed_by_of(name)) == {(e.source, e.is_strong) for e in case.edges if e.target == name}
    assert graph.start_order(names) == case.graph.start_order(names)


@examples
@given(cases())
def test_way_down_is_a_shortest_one(case: Case) -> None:
    pairs = {(edge.source, edge.target) for edge in case.edges}
    for upper in case.conditions:
        for lower in case.conditions:
            way = case.graph.find_way(upper, lower)
            if upper == lower:
                assert way == [upper]
            elif (upper, lower) not in case.needs():
                assert way is None
            else:
                assert way is not None
                assert (way[0], way[-1]) == (upper, lower)
                assert all(pair in pairs for pair in pairwise(way))
                assert (len(way) == 2) is ((upper, lower) in pairs)


def test_a_way_that_is_too_far_is_not_looked_for() -> None:
    graph = Graph(range(100), [Edge(number + 1, number) for number in range(99)])
    assert graph.find_way(99, 0, max_visited=10) is None
    assert len(graph.find_way(99, 0) or []) == 100
