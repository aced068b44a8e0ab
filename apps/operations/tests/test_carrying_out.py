"""Operations carried out by a simulated agent under random failures, pauses, cancels, retries and a queue.

On the real actions and a real PostgreSQL. After each thing that happens the rules hold, and in the end everything has
ended as its plan and its policy say.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from django.db import transaction
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from apps.audit.actor import Actor
from apps.gateways.actions.commands import change_state
from apps.gateways.enums import CommandState
from apps.maps.planning.plans import Scope
from apps.operations.actions.progress import sweep_operations
from apps.operations.actions.steering import (
    cancel_operation,
    pause_operation,
    resume_operation,
    retry_steps,
    skip_step,
)
from apps.operations.enums import FailurePolicy, IfHeld, OperationKind, OperationState, StepState
from apps.operations.models import ComponentHold, Operation, QueuedClaim, Step, StepOrder
from apps.operations.tests.factories import Stage, make_stage
from conftest import Cast
from opsmap.lib.problems import ProblemError

NAMES = "abcde"
SHAPE = {"a": [], "b": ["a"], "c": ["a"], "d": ["b", "c"], "e": []}
DONE = {StepState.SUCCEEDED, StepState.WAIVED}
FAILURES = (CommandState.FAILED, CommandState.EXPIRED, CommandState.REJECTED, CommandState.NOT_STARTED)

wishes = st.tuples(
    st.sampled_from([OperationKind.START, OperationKind.STOP, OperationKind.RESTART]),
    st.sets(st.sampled_from(NAMES)),
    st.sampled_from(Scope),
    st.sampled_from(FailurePolicy),
    st.none() | st.integers(1, 2),
)
happenings = st.lists(
    st.tuples(
        st.sampled_from(
            ["succeed", "succeed", "succeed", "fail", "fail", "pause", "resume", "cancel", "retry", "skip"]
        ),
        st.integers(0, 20),
    ),
    max_size=14,
)


@dataclass
class Night:
    """What happens to the operations of one Map, and the rules that hold meanwhile."""

    stage: Stage
    begun: set[tuple[object, int]] = field(default_factory=set)
    """Steps that were seen running, with the attempt."""

    @property
    def actor(self) -> Actor:
        return Actor.person(self.stage.user)

    def ask(self, wish: tuple[OperationKind, set[str], Scope, FailurePolicy, int | None]) -> None:
        kind, chosen, scope, policy, limit = wish
        self.attempt(
            lambda: self.stage.start(
                kind,
                *sorted(chosen),
                scope=scope,
                failure_policy=policy,
                max_parallel=limit,
                if_held=IfHeld.QUEUE,
            )
        )

    def happen(self, what: str, number: int) -> None:
        if what in {"succeed", "fail"}:
            self.end(what, number)
            return
        operations = list(Operation.objects.order_by("id"))
        if not operations:
            return
        operation = operations[number % len(operations)]
        steps = list(operation.steps.all())
        acts: dict[str, Callable[[], object]] = {
            "pause": lambda: pause_operation(operation=operation, actor=self.actor),
            "resume": lambda: resume_operation(operation=operation, user=self.stage.user, actor=self.actor),
            "cancel": lambda: cancel_operation(operation=operation, actor=self.actor),
            "retry": lambda: retry_steps(operation=operation, user=self.stage.user, actor=self.actor),
            "skip": lambda: skip_step(
                operation=operation,
                step_id=steps[number % len(steps)].pk if steps else operation.pk,
                user=self.stage.user,
                actor=self.actor,
                reason="not tonight",
            ),
        }
        self.attempt(acts[what])

    def end(self, what: str, number: int) -> None:
        """The command of one of the steps that run ends."""
        running = list(Step.objects.filter(state=StepState.RUNNING).order_by("id"))
        if running:
            command_id = running[number % len(running)].command_id
            assert command_id is not None
            state = CommandState.SUCCEEDED if what == "succeed" else FAILURES[number % len(FAILURES)]
            with transaction.atomic():
                change_state(command_id, CommandState.SENT)
                change_state(command_id, state)
            self.check()

    def attempt(self, act: Callable[[], object]) -> None:
        """What people do; they may be refused, and then nothing of it is left."""
        before = _written()
        is_refused = False
        try:
            act()
        except ProblemError:
            is_refused = True
        assert not is_refused or _written() == before
        self.check()

    def check(self) -> None:
        states = self.stage.states()
        steps = list(Step.objects.select_related("operation"))
        state_of = {step.pk: step.state for step in steps}
        running = [step for step in steps if step.state == StepState.RUNNING]
        for step in running:
            if (step.pk, step.attempt) not in self.begun:
                self.begun.add((step.pk, step.attempt))
                before = StepOrder.objects.filter(step=step).values_list("before_id", flat=True)
                assert {state_of[pk] for pk in before} <= DONE, "no step before what it waits for"
                operation = step.operation
                assert operation.paused_at is None, "nothing begins while it is paused"
                assert not operation.is_cancel_requested, "nothing begins once it is cancelled"
        under_way = {step.component_name for step in running}
        for name, state in states.items():
            assert (state in {"starting", "stopping"}) == (name in under_way), (name, state)
        holds = set(ComponentHold.objects.values_list("component__name", "operation_id"))
        open_ones = {step.operation_id for step in steps if step.operation.state == OperationState.RUNNING}
        assert holds == {(step.component_name, step.operation_id) for step in steps if step.operation_id in open_ones}
        for operation in Operation.objects.filter(state=OperationState.RUNNING).exclude(max_parallel=None):
            mine = [step for step in running if step.operation_id == operation.pk]
            assert operation.max_parallel is not None
            assert len(mine) <= operation.max_parallel

    def drain(self) -> None:
        """Everything that is paused is resumed, and every command succeeds."""
        for _ in range(200):
            for operation in Operation.objects.filter(paused_at__isnull=False):
                resume_operation(operation=operation, user=self.stage.user, actor=self.actor)
            if not Step.objects.filter(state=StepState.RUNNING).exists():
                return
            self.end("succeed", 0)
        raise AssertionError("it never ends")

    def check_end(self) -> None:
        sweep_operations()
        assert not ComponentHold.objects.exists()
        assert not QueuedClaim.objects.exists()
        for operation in Operation.objects.all():
            ended = {step.state for step in operation.steps.filter(is_rollback=False)}
            assert ended <= {*DONE, StepState.FAILED, StepState.SKIPPED, StepState.CANCELLED}
            self.check_outcome(operation, ended)

    def check_outcome(self, operation: Operation, ended: set[str]) -> None:
        undone = {step.state for step in operation.steps.filter(is_rollback=True)}
        match operation.state:
            case OperationState.SUCCEEDED:
                assert ended <= DONE
            case OperationState.ROLLED_BACK:
                assert StepState.FAILED in ended
                assert undone <= DONE
            case OperationState.FAILED:
                assert operation.detail or StepState.FAILED in ended | undone
                if undone:
                    assert undone & {StepState.FAILED, StepState.SKIPPED}
            case OperationState.CANCELLED:
                assert operation.is_cancel_requested or not ended
            case _:
                raise AssertionError(f"{operation} has not ended: it is {operation.state}")


def _written() -> tuple[object, ...]:
    tables = (Operation, Step, ComponentHold, QueuedClaim)
    return tuple(sorted(map(str, table._default_manager.values_list())) for table in tables)


@pytest.mark.django_db
@settings(
    max_examples=12,
    deadline=None,
    # To find the smallest example on a database takes minutes; the one that was found tells enough.
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    asked=st.lists(wishes, min_size=1, max_size=3),
    things=happenings,
    states=st.lists(st.sampled_from(["running", "stopped"]), min_size=len(NAMES), max_size=len(NAMES)),
)
def test_operations_end_as_their_plans_say(
    cast: Cast,
    asked: list[tuple[OperationKind, set[str], Scope, FailurePolicy, int | None]],
    things: list[tuple[str, int]],
    states: list[str],
) -> None:
    with transaction.atomic():
        stage = make_stage(cast, SHAPE)
        stage.set_states(dict(zip(NAMES, states, strict=True)))
        night = Night(stage)
        for wish in asked:
            night.ask(wish)
        for what, number in things:
            night.happen(what, number)
        night.drain()
        night.check_end()
        transaction.set_rollback(True)
