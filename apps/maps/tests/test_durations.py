"""How long a plan takes: the critical path, against every chain and against the level-by-level schedule."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from apps.maps.planning.durations import count_levels, critical_path
from apps.maps.planning.graph import Edge, Graph
from apps.maps.planning.plans import Condition, Plan, StepAction, plan_restart, plan_start
from apps.maps.tests.graphs import Case, Key, cases, levels, longest_chain_ms

examples = settings(max_examples=60, deadline=None)


@st.composite
def timed_plans(draw: st.DrawFn) -> tuple[Plan[str], dict[Key, int]]:
    """A restart of everything on a random Map, with random durations for most of its steps."""
    case: Case = draw(cases())
    plan = plan_restart(case.graph, case.conditions, set(case.conditions))
    # Below zero: nothing is known of this step.
    lengths = draw(st.lists(st.integers(-1_000, 5_000), min_size=len(plan.steps), max_size=len(plan.steps)))
    return plan, {step.key: length for step, length in zip(plan.steps, lengths, strict=True) if length >= 0}


@examples
@given(timed_plans())
def test_critical_path_is_the_longest_of_all_chains(timed: tuple[Plan[str], dict[Key, int]]) -> None:
    plan, durations = timed
    path, length_ms = critical_path(plan.steps, durations)

    after = {step.key: step.after for step in plan.steps}
    assert length_ms == longest_chain_ms(plan.steps, durations)
    assert length_ms == sum(durations.get(key, 0) for key in path)
    assert all(earlier in after[later] for earlier, later in pairwise(path))
    assert path
    assert not after[path[0]]


@examples
@given(timed_plans())
def test_plan_is_never_longer_than_level_by_level(timed: tuple[Plan[str], dict[Key, int]]) -> None:
    plan, durations = timed
    by_level = sum(max(durations.get(key, 0) for key in level) for level in levels(plan.steps))

    assert critical_path(plan.steps, durations)[1] <= by_level


@examples
@given(timed_plans())
def test_each_step_released_on_its_own_ends_with_the_critical_path(timed: tuple[Plan[str], dict[Key, int]]) -> None:
    """What an operation really does: a step begins the moment the last one it waits for has ended."""
    plan, durations = timed
    ends: dict[Key, int] = {}
    for step in plan.steps:
        ends[step.key] = max((ends[key] for key in step.after), default=0) + durations.get(step.key, 0)

    assert max(ends.values()) == critical_path(plan.steps, durations)[1]


@examples
@given(timed_plans())
def test_levels_are_as_many_as_a_careful_person_counts(timed: tuple[Plan[str], dict[Key, int]]) -> None:
    plan, _ = timed
    assert count_levels(plan.steps) == len(levels(plan.steps))


def test_empty_plan_takes_no_time() -> None:
    assert critical_path([], {}) == ([], 0)
    assert count_levels([]) == 0


def test_slow_branch_decides_not_the_deep_one() -> None:
    # top needs slow, and top needs a chain of two that are quick.
    graph = Graph(
        ["top", "slow", "quick", "quicker"],
        [Edge("top", "slow"), Edge("top", "quick"), Edge("quick", "quicker")],
    )
    plan = plan_start(graph, dict.fromkeys(graph.nodes, Condition.DOWN), graph.nodes)
    start = StepAction.START
    durations = {("top", start): 10, ("slow", start): 100, ("quick", start): 20, ("quicker", start): 30}

    assert critical_path(plan.steps, durations) == ([("slow", start), ("top", start)], 110)
    assert count_levels(plan.steps) == 3


def test_weak_dependency_counts_for_the_time_like_a_strong_one() -> None:
    graph = Graph(["api", "cache"], [Edge("api", "cache", is_strong=False)])
    plan = plan_start(graph, dict.fromkeys(graph.nodes, Condition.DOWN), graph.nodes)
    assert critical_path(plan.steps, {step.key: 5 for step in plan.steps})[1] == 10
