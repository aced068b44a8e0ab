"""Asking for an operation: what it writes and holds, what it refuses, and how it is called off."""

from __future__ import annotations

import threading

import pytest
from django.db import IntegrityError, connection, transaction

from apps.audit.actor import Actor
from apps.audit.models import AuditEvent
from apps.gateways.models import Command
from apps.gateways.tests.factories import claim, failing_audit
from apps.maps.planning.plans import Scope
from apps.operations.actions.operations import start_operation
from apps.operations.actions.steering import cancel_operation
from apps.operations.enums import OperationKind
from apps.operations.exceptions import HeldError, NotExecutableError
from apps.operations.models import ComponentHold, Operation, StateChange, Step, StepOrder
from apps.operations.tests.factories import Stage, make_stage
from conftest import Cast
from opsmap.lib.problems import ProblemError

START, STOP, RESTART, REPAIR = OperationKind.START, OperationKind.STOP, OperationKind.RESTART, OperationKind.REPAIR


def nothing_was_written() -> bool:
    tables = (Operation, Step, StepOrder, ComponentHold, Command, StateChange)
    return not any(table._default_manager.exists() for table in tables)


def cancel(stage: Stage, operation: Operation) -> Operation:
    cancel_operation(operation=Operation.objects.get(pk=operation.pk), actor=Actor.person(stage.user))
    return Operation.objects.get(pk=operation.pk)


def test_start_operation_writes_steps_holds_and_the_audit_event(stage: Stage) -> None:
    operation = stage.start(START, reason="night release")
    row = Operation.objects.get()
    assert (row.pk, row.kind, row.state, row.target) == (operation.pk, "start", "running", "Trading Platform")
    assert (row.requested_by, row.reason) == (stage.user, "night release")
    assert stage.steps(operation) == {
        "start db": "running",
        "start cache": "waiting",
        "start queue": "waiting",
        "start web": "waiting",
    }
    assert StepOrder.objects.count() == 4
    assert ComponentHold.objects.filter(operation=operation).count() == 4
    event = AuditEvent.objects.get(action="operation.start.requested")
    assert event.actor["email"] == stage.user.email
    assert event.target == {"type": "operation", "operationId": str(row.pk), "mapId": str(stage.map.pk)}
    assert event.details == {"target": "Trading Platform", "steps": 4, "reason": "night release"}


def test_start_operation_sends_the_commands_of_the_first_steps_in_the_same_transaction(stage: Stage) -> None:
    operation = stage.start(START)
    command = stage.command(operation, "start db")
    [frame] = claim(stage.gateway)
    assert frame["request_id"] == str(command.pk)
    assert frame["command"]["path"] == "run"
    assert (frame["subject"], frame["epoch"]) == (str(stage.component("db").pk), 1)
    assert command.requested_by["email"] == stage.user.email
    assert stage.component("db").state == "starting"
    change = StateChange.objects.get()
    assert (change.previous, change.state, change.cause) == ("unknown", "starting", "person")
    assert change.reason == "start Trading Platform"


def test_start_operation_leaves_nothing_without_its_audit_event(stage: Stage) -> None:
    version = stage.fresh().version
    with failing_audit(), pytest.raises(IntegrityError):
        stage.start(START)
    assert nothing_was_written()
    assert (stage.fresh().version, set(stage.states().values())) == (version, {"unknown"})


@pytest.mark.django_db(transaction=True)
def test_start_operation_gives_one_hint_to_browsers_and_one_to_the_gateway(cast: Cast) -> None:
    stage = make_stage(cast)
    with transaction.atomic():
        stage.start(START)
        hints = [getattr(entry[1], "func", entry[1]).__name__ for entry in connection.run_on_commit]
    assert sorted(hints) == ["<lambda>", "_notify"], "however many changes it makes"


def test_an_operation_with_problems_is_refused_with_all_of_them(stage: Stage) -> None:
    stage.set_states()
    stage.agent.disconnect()
    changes = StateChange.objects.count()
    with pytest.raises(NotExecutableError) as refusal:
        stage.start(STOP, "queue", "cache")
    problems = refusal.value.extra["problems"]
    assert {(problem["code"], problem["component"]) for problem in problems} == {
        ("agent_offline", "queue"),
        ("agent_offline", "cache"),
        ("agent_offline", "web"),
    }
    assert "(2 more)" in str(refusal.value)
    assert not Operation.objects.exists()
    assert StateChange.objects.count() == changes


def test_an_operation_without_permission_is_refused(cast: Cast, stage: Stage) -> None:
    with pytest.raises(NotExecutableError) as refusal:
        start_operation(
            map=stage.map, user=cast.viewer, actor=Actor.person(cast.viewer), kind=START, chosen=stage.ids("db")
        )
    assert [problem["code"] for problem in refusal.value.extra["problems"]] == ["permission_denied"]
    assert nothing_was_written()


def test_an_operation_with_nothing_to_do_is_refused(stage: Stage) -> None:
    stage.set_states(others="running")
    with pytest.raises(NotExecutableError, match="Everything is already running"):
        stage.start(START)
    assert nothing_was_written()


def test_a_held_component_is_refused_with_who_holds_it(stage: Stage) -> None:
    stage.set_states(others="running")
    first = stage.start(STOP, "cache", scope=Scope.ALONE)
    before = (Operation.objects.count(), Step.objects.count(), Command.objects.count(), ComponentHold.objects.count())
    with pytest.raises(HeldError) as refusal:
        stage.start(RESTART, "db", scope=Scope.WITH_DEPENDENTS)
    assert refusal.value.status == 409
    [holder] = refusal.value.extra["holders"]
    assert holder["component"] == {"id": str(stage.component("cache").pk), "name": "cache"}
    assert holder["operation"]["id"] == str(first.pk)
    assert holder["operation"]["requestedBy"]["email"] == "owner@acme.example"
    assert str(refusal.value) == "cache is held by “stop cache” of Olivia."
    after = (Operation.objects.count(), Step.objects.count(), Command.objects.count(), ComponentHold.objects.count())
    assert after == before


def test_operations_on_different_components_run_side_by_side(stage: Stage) -> None:
    stage.set_states(others="running")
    stage.start(STOP, "cache", scope=Scope.ALONE)
    second = stage.start(STOP, "queue", scope=Scope.ALONE)
    assert stage.steps(second) == {"stop queue": "running"}
    assert Command.objects.count() == 2


def test_holds_are_let_go_at_the_end_however_it_ends(stage: Stage) -> None:
    succeeded = stage.start(START, "db")
    stage.succeed(succeeded, "start db")
    assert not ComponentHold.objects.exists()
    failed = stage.start(START, "web")
    stage.fail(failed, "start cache")
    assert ComponentHold.objects.count() == 3, "the independent branch still runs"
    stage.succeed(failed, "start queue")
    assert not ComponentHold.objects.exists()
    again = stage.start(START, "cache")
    assert cancel(stage, again).state == "running"
    stage.succeed(again, "start cache")
    assert not ComponentHold.objects.exists()
    states = Operation.objects.order_by("id").values_list("state", flat=True)
    assert list(states) == ["succeeded", "failed", "cancelled"]


def test_cancel_lets_what_has_begun_end_and_begins_nothing_new(stage: Stage) -> None:
    operation = stage.start(START)
    row = cancel(stage, operation)
    assert (row.state, row.is_cancel_requested) == ("running", True)
    assert stage.steps(operation)["start db"] == "running"
    assert stage.steps(operation)["start web"] == "cancelled"
    stage.succeed(operation, "start db")
    row.refresh_from_db()
    assert row.state == "cancelled"
    assert row.finished_at is not None
    assert stage.steps(operation) == {
        "start db": "succeeded",
        "start cache": "cancelled",
        "start queue": "cancelled",
        "start web": "cancelled",
    }
    assert Command.objects.count() == 1
    assert stage.component("db").state == "running", "not left half started"


def test_cancel_is_audited_once(stage: Stage) -> None:
    operation = stage.start(START)
    cancel(stage, operation)
    cancel(stage, operation)
    event = AuditEvent.objects.get(action="operation.cancelled")
    assert event.actor["email"] == stage.user.email
    assert event.target["operationId"] == str(operation.pk)


def test_cancel_changes_nothing_without_its_audit_event(stage: Stage) -> None:
    operation = stage.start(START)
    with failing_audit(), pytest.raises(IntegrityError):
        cancel(stage, operation)
    assert not Operation.objects.get().is_cancel_requested
    assert stage.steps(operation)["start web"] == "waiting"


def test_cancel_leaves_an_ended_operation_alone(stage: Stage) -> None:
    operation = stage.start(START, "db")
    stage.succeed(operation, "start db")
    row = cancel(stage, operation)
    assert (row.state, row.is_cancel_requested) == ("succeeded", False)
    assert not AuditEvent.objects.filter(action="operation.cancelled").exists()


def test_the_end_of_an_operation_is_audited(stage: Stage) -> None:
    operation = stage.start(START, "db")
    stage.succeed(operation, "start db")
    event = AuditEvent.objects.get(action="operation.finished")
    assert event.actor == {"type": "system", "id": "operations", "email": "", "ip": ""}
    assert event.details == {"state": "succeeded", "steps": {"succeeded": 1}}


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("kind", [START, STOP, REPAIR])
def test_of_ten_people_who_ask_at_once_exactly_one_wins(cast: Cast, kind: OperationKind) -> None:
    stage = make_stage(cast)
    stage.set_states({"db": "failed"} if kind is REPAIR else {}, others="stopped" if kind is START else "running")
    together = threading.Barrier(10)
    won: list[Operation] = []
    refused: list[str] = []

    def ask() -> None:
        try:
            together.wait(10)
            won.append(stage.start(kind))
        except ProblemError as error:
            refused.append(error.code)
        finally:
            connection.close()

    people = [threading.Thread(target=ask) for _ in range(10)]
    for person in people:
        person.start()
    for person in people:
        person.join(20)
    assert len(won) == 1
    assert refused == ["held"] * 9
    assert Operation.objects.count() == 1
    assert ComponentHold.objects.count() == 4
    assert Command.objects.count() == 1
    assert Command.objects.values_list("epoch", flat=True).get() == 1
