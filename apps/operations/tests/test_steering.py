"""What people do with an operation under way: pause, resume, cancel, try again, go on without a step."""

from __future__ import annotations

import uuid

import pytest
from django.db import IntegrityError

from apps.audit.actor import Actor
from apps.audit.models import AuditEvent
from apps.gateways.models import Command
from apps.gateways.tests.factories import failing_audit
from apps.maps.planning.plans import Scope
from apps.operations.actions.progress import sweep_operations
from apps.operations.actions.steering import (
    cancel_operation,
    pause_operation,
    resume_operation,
    retry_steps,
    skip_step,
)
from apps.operations.enums import FailurePolicy, OperationKind
from apps.operations.exceptions import HeldError, NoSuchStepError, NotSteerableError, SupersededError
from apps.operations.models import ComponentHold, Operation, Step
from apps.operations.tests.factories import Stage, make_stage
from conftest import Cast

START, STOP, RESTART = OperationKind.START, OperationKind.STOP, OperationKind.RESTART


def pause(stage: Stage, operation: Operation) -> None:
    pause_operation(operation=operation, actor=Actor.person(stage.user), reason="wait for the network team")


def resume(stage: Stage, operation: Operation) -> None:
    resume_operation(operation=operation, user=stage.user, actor=Actor.person(stage.user))


def cancel(stage: Stage, operation: Operation) -> None:
    cancel_operation(operation=operation, actor=Actor.person(stage.user))


def step_of(operation: Operation, name: str) -> Step:
    return Step.objects.get(operation=operation, component_name=name, is_rollback=False)


def retry(stage: Stage, operation: Operation, *names: str) -> None:
    ids = [step_of(operation, name).pk for name in names]
    retry_steps(operation=operation, user=stage.user, actor=Actor.person(stage.user), step_ids=ids)


def skip(stage: Stage, operation: Operation, name: str, reason: str = "it runs elsewhere today") -> None:
    step_id = step_of(operation, name).pk
    skip_step(operation=operation, step_id=step_id, user=stage.user, actor=Actor.person(stage.user), reason=reason)


def state_of(operation: Operation) -> str:
    return Operation.objects.get(pk=operation.pk).state


def test_while_it_is_paused_nothing_new_begins_and_what_runs_ends(stage: Stage) -> None:
    operation = stage.start(START)
    pause(stage, operation)
    stage.succeed(operation, "start db")
    assert stage.steps(operation) == {
        "start db": "succeeded",
        "start cache": "waiting",
        "start queue": "waiting",
        "start web": "waiting",
    }
    sweep_operations()
    assert stage.steps(operation)["start cache"] == "waiting", "the safety net keeps to it"
    assert state_of(operation) == "running"
    resume(stage, operation)
    assert stage.steps(operation)["start cache"] == stage.steps(operation)["start queue"] == "running"
    stage.succeed(operation, "start cache", "start queue", "start web")
    assert state_of(operation) == "succeeded"


def test_pause_and_resume_are_audited_once_each_and_by_whom(stage: Stage) -> None:
    operation = stage.start(START)
    for _ in range(2):
        pause(stage, operation)
    for _ in range(2):
        resume(stage, operation)
    [paused] = AuditEvent.objects.filter(action="operation.paused")
    assert (paused.actor["email"], paused.details) == (stage.user.email, {"reason": "wait for the network team"})
    assert AuditEvent.objects.filter(action="operation.resumed").count() == 1


def test_what_begins_after_a_resume_begins_in_the_name_of_who_resumed(cast: Cast, stage: Stage) -> None:
    operation = stage.start(START)
    pause(stage, operation)
    stage.succeed(operation, "start db")
    resume_operation(operation=operation, user=cast.operator, actor=Actor.person(cast.operator))
    assert stage.command(operation, "start cache").requested_by["email"] == cast.operator.email


def test_a_pause_leaves_nothing_without_its_audit_event(stage: Stage) -> None:
    operation = stage.start(START)
    with failing_audit(), pytest.raises(IntegrityError):
        pause(stage, operation)
    operation.refresh_from_db()
    assert operation.paused_at is None


def test_one_that_is_paused_ends_if_all_of_it_had_begun(stage: Stage) -> None:
    operation = stage.start(START, "db")
    pause(stage, operation)
    stage.succeed(operation, "start db")
    operation.refresh_from_db()
    assert (operation.state, operation.paused_at) == ("succeeded", None)
    assert not ComponentHold.objects.exists()


def test_one_that_is_paused_can_be_cancelled(stage: Stage) -> None:
    operation = stage.start(START)
    pause(stage, operation)
    stage.succeed(operation, "start db")
    cancel(stage, operation)
    assert state_of(operation) == "cancelled"
    assert not ComponentHold.objects.exists()


def test_what_has_ended_or_is_being_cancelled_cannot_be_paused(stage: Stage) -> None:
    operation = stage.start(START, "db")
    cancel(stage, operation)
    with pytest.raises(NotSteerableError, match="being cancelled"):
        pause(stage, operation)
    stage.succeed(operation, "start db")
    for act in (pause, resume, retry):
        with pytest.raises(NotSteerableError, match="It has ended: it is cancelled"):
            act(stage, operation)


@pytest.mark.parametrize("ending", ["succeed", "fail", "lose"])
@pytest.mark.parametrize("kind", [START, STOP, RESTART])
def test_a_cancel_never_leaves_a_component_starting_or_stopping(stage: Stage, kind: OperationKind, ending: str) -> None:
    stage.set_states(others="stopped" if kind is START else "running")
    operation = stage.start(kind)
    cancel(stage, operation)
    for step in Step.objects.filter(operation=operation, state="running").select_related("command"):
        assert step.command is not None
        if ending == "lose":
            # The agent is removed, and its commands with it.
            Command.objects.filter(pk=step.command.pk).delete()
        else:
            getattr(stage.agent, ending)(step.command)
    sweep_operations()
    assert state_of(operation) == "cancelled"
    assert not {"starting", "stopping"} & set(stage.states().values())
    assert not ComponentHold.objects.exists()


def test_a_failed_step_is_tried_again_with_what_was_skipped_because_of_it(stage: Stage) -> None:
    operation = stage.start(START)
    stage.succeed(operation, "start db")
    first = stage.command(operation, "start cache")
    stage.fail(operation, "start cache")
    assert stage.steps(operation)["start web"] == "skipped"
    retry(stage, operation)
    assert stage.steps(operation) == {
        "start db": "succeeded",
        "start cache": "running",
        "start queue": "running",
        "start web": "waiting",
    }
    step = step_of(operation, "cache")
    assert (step.attempt, step.detail) == (2, "")
    assert step.command_id != first.pk
    stage.succeed(operation, "start queue", "start cache")
    stage.succeed(operation, "start web")
    assert state_of(operation) == "succeeded"


def test_an_operation_that_failed_is_opened_again_and_holds_its_components_anew(stage: Stage) -> None:
    operation = stage.start(START)
    stage.fail(operation, "start db")
    assert state_of(operation) == "failed"
    retry(stage, operation, "db")
    operation.refresh_from_db()
    assert (operation.state, operation.finished_at) == ("running", None)
    assert ComponentHold.objects.filter(operation=operation).count() == 4
    stage.succeed(operation, "start db", "start cache", "start queue", "start web")
    assert state_of(operation) == "succeeded"
    assert not ComponentHold.objects.exists()
    assert AuditEvent.objects.filter(action="operation.steps_retried").count() == 1


def test_of_two_failures_one_is_tried_again_and_what_waits_for_the_other_stays_skipped(cast: Cast) -> None:
    stage = make_stage(cast, {"a": [], "b": [], "on-a": ["a"], "on-both": ["a", "b"]})
    operation = stage.start(START)
    stage.fail(operation, "start a")
    stage.fail(operation, "start b")
    retry(stage, operation, "a")
    assert stage.steps(operation) == {
        "start a": "running",
        "start b": "failed",
        "start on-a": "waiting",
        "start on-both": "skipped",
    }
    stage.succeed(operation, "start a", "start on-a")
    assert state_of(operation) == "failed"
    retry(stage, operation)
    assert stage.steps(operation)["start on-both"] == "waiting"
    stage.succeed(operation, "start b", "start on-both")
    assert state_of(operation) == "succeeded"


def test_only_failed_steps_of_this_operation_are_tried_again(stage: Stage) -> None:
    operation = stage.start(START)
    with pytest.raises(NotSteerableError, match="No step of it has failed"):
        retry(stage, operation)
    with pytest.raises(NotSteerableError, match="start db did not fail"):
        retry(stage, operation, "db")
    with pytest.raises(NoSuchStepError):
        retry_steps(operation=operation, user=stage.user, actor=Actor.person(stage.user), step_ids=[uuid.uuid4()])


def test_what_others_hold_or_did_something_to_since_is_not_tried_again(stage: Stage) -> None:
    operation = stage.start(START, "db")
    stage.fail(operation, "start db")
    other = stage.start(START, "db")
    with pytest.raises(HeldError, match=r"db is held by “start db” by now"):
        retry(stage, operation)
    stage.succeed(other, "start db")
    with pytest.raises(SupersededError, match="did something to db"):
        retry(stage, operation)
    assert state_of(operation) == "failed"


def test_a_late_answer_to_the_first_attempt_does_not_settle_the_second(stage: Stage) -> None:
    operation = stage.start(START, "db")
    first = stage.command(operation, "start db")
    stage.fail(operation, "start db")
    retry(stage, operation)
    stage.agent.succeed(first)
    assert stage.steps(operation) == {"start db": "running"}


def test_what_waits_for_a_skipped_step_goes_on(stage: Stage) -> None:
    operation = stage.start(START)
    skip(stage, operation, "cache")
    stage.succeed(operation, "start db", "start queue", "start web")
    assert stage.steps(operation)["start cache"] == "waived"
    assert state_of(operation) == "succeeded"
    assert stage.component("cache").state == "unknown", "nothing was done to it"
    assert step_of(operation, "cache").detail == "it runs elsewhere today"
    [event] = AuditEvent.objects.filter(action="operation.step_skipped")
    assert event.details["component"] == "cache"
    assert (event.details["was"], event.details["reason"]) == ("waiting", "it runs elsewhere today")


def test_a_failed_step_is_skipped_also_when_the_operation_has_ended(stage: Stage) -> None:
    operation = stage.start(START)
    stage.fail(operation, "start db")
    assert state_of(operation) == "failed"
    skip(stage, operation, "db")
    assert stage.steps(operation)["start cache"] == stage.steps(operation)["start queue"] == "running"
    stage.succeed(operation, "start cache", "start queue", "start web")
    assert state_of(operation) == "succeeded"


def test_a_step_that_runs_or_was_done_is_not_skipped(stage: Stage) -> None:
    operation = stage.start(START)
    with pytest.raises(NotSteerableError, match="it is running"):
        skip(stage, operation, "db")
    stage.succeed(operation, "start db")
    with pytest.raises(NotSteerableError, match="it is succeeded"):
        skip(stage, operation, "db")


def test_a_paused_operation_that_would_roll_back_lets_the_failed_step_be_tried_again(stage: Stage) -> None:
    operation = stage.start(START, "cache", failure_policy=FailurePolicy.ROLL_BACK)
    stage.succeed(operation, "start db")
    pause(stage, operation)
    stage.fail(operation, "start cache")
    sweep_operations()
    assert state_of(operation) == "running"
    assert not Step.objects.filter(is_rollback=True).exists()
    retry(stage, operation)
    resume(stage, operation)
    stage.succeed(operation, "start cache")
    assert state_of(operation) == "succeeded"


def test_a_retry_asks_for_no_more_than_may_run_at_once(cast: Cast) -> None:
    stage = make_stage(cast, {"a": [], "b": [], "c": []})
    operation = stage.start(START, max_parallel=1, scope=Scope.ALONE)
    for name in "abc":
        stage.fail(operation, f"start {name}")
    retry(stage, operation)
    assert sorted(stage.steps(operation).values()) == ["running", "waiting", "waiting"]
