"""How long a plan takes: the critical path, against every chain and against the level-by-level schedule."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.maps.planning.durations import count_levels, critical_path, predict_plan, predict_rest, schedule
from apps.maps.planning.graph import Edge, Graph
from apps.maps.planning.plans import Condition, Plan, StepAction, plan_restart, plan_start
from apps.maps.planning.prediction import Prediction
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


@examples
@given(timed_plans(), st.integers(1, 4))
def test_with_a_limit_order_and_limit_hold_and_graham_s_bound(
    timed: tuple[Plan[str], dict[Key, int]], limit: int
) -> None:
    plan, durations = timed
    scheduled = schedule(plan.steps, durations, max_parallel=limit)
    after = {step.key: step.after for step in plan.steps}

    assert scheduled.keys() == after.keys()
    for key, step in scheduled.items():
        assert step.ends_ms - step.begins_ms == durations.get(key, 0)
        assert all(scheduled[earlier].ends_ms <= step.begins_ms for earlier in after[key])
        at_once = [other for other in scheduled.values() if other.begins_ms <= step.begins_ms < other.ends_ms]
        assert len(at_once) <= limit
        if step.released_by is not None:
            assert scheduled[step.released_by].ends_ms == step.begins_ms
        else:
            assert step.begins_ms == 0
    # No list schedule is longer than this: while it waits for room, all the others are at work.
    unlimited = critical_path(plan.steps, durations)[1]
    work = sum(durations.get(key, 0) for key in after)
    path, took = critical_path(plan.steps, durations, max_parallel=limit)
    assert unlimited <= took <= work / limit + (1 - 1 / limit) * unlimited + 1e-6
    assert took == sum(durations.get(key, 0) for key in path)


def test_the_longest_chain_goes_first_if_there_is_room_for_one() -> None:
    graph = Graph(["quick", "slow", "above"], [Edge("above", "slow")])
    plan = plan_start(graph, dict.fromkeys(graph.nodes, Condition.DOWN), graph.nodes)
    durations = {step.key: 10 for step in plan.steps}
    order = [node for node, _ in schedule(plan.steps, durations, max_parallel=1)]
    assert order == ["slow", "quick", "above"]


def test_a_limit_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        schedule([], {}, max_parallel=0)


@examples
@given(timed_plans(), st.none() | st.integers(1, 3), st.data())
def test_what_is_left_of_a_plan_that_is_under_way(
    timed: tuple[Plan[str], dict[Key, int]], limit: int | None, data: st.DataObject
) -> None:
    """Stopped at any moment of its schedule, what ended and what runs give what the schedule still takes."""
    plan, known = timed
    durations = {step.key: known.get(step.key, 0) for step in plan.steps}
    predictions = {key: Prediction(max(1, length), 2 * max(1, length), 9) for key, length in durations.items()}
    whole = schedule(plan.steps, {key: p.p50_ms for key, p in predictions.items()}, max_parallel=limit)
    took = max(step.ends_ms for step in whole.values())
    now = data.draw(st.integers(0, took))
    ended = {key for key, step in whole.items() if step.ends_ms <= now}
    elapsed = {key: now - step.begins_ms for key, step in whole.items() if step.begins_ms <= now < step.ends_ms}

    rest = predict_plan(plan.steps, predictions, max_parallel=limit, ended=ended, elapsed_ms=elapsed)
    assert rest is not None
    assert rest.p50_ms <= rest.p90_ms
    assert not {*rest.path} & ended
    if now == 0:
        assert rest.p50_ms == took
    if len(ended) == len(plan.steps):
        assert (rest.p50_ms, rest.p90_ms, rest.path) == (0, 0, ())


def test_a_plan_with_a_step_that_nobody_knows_has_no_prediction_until_that_has_ended() -> None:
    graph = Graph(["api", "db"], [Edge("api", "db")])
    plan = plan_start(graph, dict.fromkeys(graph.nodes, Condition.DOWN), graph.nodes)
    api, db = ("api", StepAction.START), ("db", StepAction.START)
    known = {api: Prediction(1000, 3000, 5)}

    assert predict_plan(plan.steps, known) is None
    rest = predict_plan(plan.steps, known, ended={db})
    assert rest is not None
    assert (rest.path, rest.p50_ms, rest.p90_ms) == ((api,), 1000, 3000)


def test_the_branch_that_may_be_slow_decides_about_nine_times_in_ten() -> None:
    graph = Graph(["steady", "moody"], [])
    plan = plan_start(graph, dict.fromkeys(graph.nodes, Condition.DOWN), graph.nodes)
    steady, moody = ("steady", StepAction.START), ("moody", StepAction.START)
    predicted = predict_plan(plan.steps, {steady: Prediction(1000, 1100, 9), moody: Prediction(900, 5000, 9)})
    assert predicted is not None
    assert (predicted.path, predicted.p50_ms, predicted.p90_ms) == ((steady,), 1000, 5000)


def test_who_is_late_may_still_take_long() -> None:
    prediction = Prediction(10_000, 20_000, 9)
    rests = [predict_rest(prediction, elapsed_ms) for elapsed_ms in (0, 5_000, 30_000, 60_000, 600_000)]

    assert rests[0] == prediction
    assert rests[1].p50_ms < 10_000
    assert all(0 < rest.p50_ms < rest.p90_ms for rest in rests)
    late = [rest.p50_ms for rest in rests[2:]]
    assert late == sorted(late), "the later, the longer it may still take"


def test_what_is_left_is_what_was_left_of_a_hundred_thousand_runs() -> None:
    chance = random.Random(1)  # noqa: S311 - nothing secret
    spread = 0.5
    runs = [10_000 * chance.lognormvariate(0, spread) for _ in range(100_000)]
    prediction = Prediction(10_000, round(10_000 * 2.718281828 ** (1.2815515655 * spread)), 50)
    for elapsed_ms in (4_000, 12_000, 20_000):
        left = sorted(run - elapsed_ms for run in runs if run > elapsed_ms)
        rest = predict_rest(prediction, elapsed_ms)
        assert rest.p50_ms == pytest.approx(left[len(left) // 2], rel=0.06)
        assert rest.p90_ms == pytest.approx(left[len(left) * 9 // 10], rel=0.06)


@pytest.mark.parametrize("elapsed_ms", [1, 10**6, 10**12])
@pytest.mark.parametrize("prediction", [Prediction(0, 0, 1), Prediction(5, 5, 1), Prediction(10**9, 10**10, 1)])
def test_what_is_left_is_never_absurd(prediction: Prediction, elapsed_ms: int) -> None:
    rest = predict_rest(prediction, elapsed_ms)
    assert 0 <= rest.p50_ms <= rest.p90_ms < 10**13
