"""Plans carried out on paper, with random durations, failures, pauses and cancels: they end as the plan says."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from apps.maps.planning.durations import critical_path, schedule
from apps.maps.planning.plans import (
    Condition,
    Plan,
    Scope,
    StepAction,
    plan_repair,
    plan_restart,
    plan_start,
    plan_stop,
)
from apps.maps.planning.rollback import plan_rollback
from apps.maps.tests.graphs import Case, Key, cases, levels, nodes_with, waits
from apps.maps.tests.simulation import Outcome, carry_out

examples = settings(max_examples=100, deadline=None)
PLANNERS = (plan_start, plan_stop, plan_restart)


@dataclass(frozen=True)
class Run:
    """A plan of any kind on a random Map, and what happens while it is carried out."""

    case: Case
    plan: Plan[str]
    durations: dict[Key, int]
    failing: frozenset[Key]
    pauses: tuple[tuple[int, int], ...]
    cancelled_at: int | None

    @property
    def up(self) -> set[str]:
        """What runs before. Of what has failed there is something left if the plan stops it, and nothing otherwise."""
        stopped = nodes_with(self.plan, StepAction.STOP)
        return {
            node
            for node, condition in self.case.conditions.items()
            if condition in {Condition.UP, Condition.IMPAIRED} or node in stopped
        }

    def carry_out(self) -> Outcome:
        return carry_out(
            self.plan,
            self.durations,
            up=self.up,
            failing=self.failing,
            pauses=self.pauses,
            cancelled_at=self.cancelled_at,
        )


@st.composite
def runs(draw: st.DrawFn) -> Run:
    case = draw(cases())
    number = draw(st.integers(0, len(PLANNERS)))
    if number == len(PLANNERS):
        plan = plan_repair(case.graph, case.conditions)
    else:
        plan = PLANNERS[number](case.graph, case.conditions, case.chosen, draw(st.sampled_from(Scope)))
    keys = [step.key for step in plan.steps]
    lengths = draw(st.lists(st.integers(0, 100), min_size=len(keys), max_size=len(keys)))
    begins = draw(st.lists(st.tuples(st.integers(0, 300), st.integers(1, 200)), max_size=2))
    return Run(
        case=case,
        plan=plan,
        durations=dict(zip(keys, lengths, strict=True)),
        failing=frozenset(draw(st.sets(st.sampled_from(keys), max_size=2)) if keys else ()),
        pauses=tuple((begin, begin + length) for begin, length in begins),
        cancelled_at=draw(st.none() | st.integers(0, 400)),
    )


@examples
@given(runs())
def test_what_did_not_run_waited_for_what_failed_or_for_what_was_cancelled(run: Run) -> None:
    outcome = run.carry_out()
    waiting = waits(run.plan)
    after = {step.key: step.after for step in run.plan.steps}

    assert outcome.failed == outcome.began & run.failing
    for key in outcome.began:
        assert after[key] <= outcome.succeeded
        assert all(outcome.ends[earlier] <= outcome.begins[key] for earlier in after[key])
    left = after.keys() - outcome.began
    doomed = {later for later, earlier in waiting if earlier in outcome.failed}
    if run.cancelled_at is None:
        assert left == doomed
    else:
        assert doomed <= left
        assert all(begin < run.cancelled_at for begin in outcome.begins.values())


@examples
@given(runs())
def test_nothing_begins_during_a_pause_and_all_goes_on_after_it(run: Run) -> None:
    outcome = run.carry_out()
    for begin, end in run.pauses:
        assert not any(begin <= began < end for began in outcome.begins.values())


@examples
@given(runs())
def test_nothing_is_ever_started_before_or_stopped_after_what_it_needs(run: Run) -> None:
    """Strong or weak, failures or not: of two components of the plan where one needs the other, never the upper alone.

    Where only one of the two is touched, or the lower is down already, the plan changes nothing about it.
    """
    outcome = run.carry_out()
    starts, stops = nodes_with(run.plan, StepAction.START), nodes_with(run.plan, StepAction.STOP)
    for upper, lower in run.case.needs():
        if {upper, lower} <= starts and (upper, StepAction.START) in outcome.begins:
            assert outcome.ends[lower, StepAction.START] <= outcome.begins[upper, StepAction.START]
        if {upper, lower} <= stops and (lower, StepAction.STOP) in outcome.begins:
            assert outcome.ends[upper, StepAction.STOP] <= outcome.begins[lower, StepAction.STOP]


@examples
@given(runs())
def test_nothing_outside_of_the_plan_changes(run: Run) -> None:
    outcome = run.carry_out()
    outside = run.case.conditions.keys() - run.plan.nodes
    for moment in outcome.moments:
        assert moment & outside == run.up & outside


@examples
@given(runs())
def test_undisturbed_it_takes_as_long_as_its_critical_path_and_never_longer_than_level_by_level(run: Run) -> None:
    outcome = carry_out(run.plan, run.durations, up=run.up)
    by_level = sum(max(run.durations[key] for key in level) for level in levels(run.plan.steps))
    took = max(outcome.ends.values(), default=0)

    assert outcome.succeeded == {step.key for step in run.plan.steps}
    assert took == critical_path(run.plan.steps, run.durations)[1] <= by_level
    timed = schedule(run.plan.steps, run.durations)
    assert {key: (step.begins_ms, step.ends_ms) for key, step in timed.items()} == {
        key: (outcome.begins[key], outcome.ends[key]) for key in outcome.began
    }


@examples
@given(runs())
def test_rolled_back_everything_that_succeeded_is_as_it_was(run: Run) -> None:
    outcome = run.carry_out()
    rollback = plan_rollback(run.plan.steps, outcome.succeeded)
    before = outcome.moments[-1] if outcome.moments else frozenset(run.up)
    undone = carry_out(rollback, {}, up=before)
    after = undone.moments[-1] if undone.moments else before

    assert undone.succeeded == {step.key for step in rollback.steps}
    # A restart also starts what was down: undone, it is down again.
    assert after & run.plan.nodes == run.up & run.plan.nodes


@examples
@given(runs())
def test_a_rollback_goes_the_same_ways_backwards(run: Run) -> None:
    succeeded = run.carry_out().succeeded
    rollback = plan_rollback(run.plan.steps, succeeded)
    inverse = {StepAction.START: StepAction.STOP, StepAction.STOP: StepAction.START}
    undone = {(node, inverse[action]) for node, action in (step.key for step in rollback.steps)}
    backwards = waits(rollback)

    assert undone <= succeeded
    # What stays is there twice: stopped and started.
    assert {node for node, _ in succeeded - undone} == {
        node for node, _ in succeeded if {(node, StepAction.START), (node, StepAction.STOP)} <= succeeded
    }
    for later, earlier in waits(run.plan):
        if {later, earlier} <= undone:
            assert ((earlier[0], inverse[earlier[1]]), (later[0], inverse[later[1]])) in backwards
