"""Operations that wait for components: in order, started by themselves, never two at once, none forgotten."""

from __future__ import annotations

import random
import threading
from collections import defaultdict
from datetime import datetime
from itertools import pairwise

import pytest
from django.db import connection, transaction

from apps.audit.actor import Actor
from apps.audit.models import AuditEvent
from apps.gateways.actions.commands import change_state
from apps.gateways.enums import OPEN_STATES, CommandState
from apps.gateways.models import Command
from apps.gateways.tests.factories import SYSTEM
from apps.maps.actions import apply_documents
from apps.maps.planning.plans import Scope
from apps.operations.actions import queueing
from apps.operations.actions.operations import start_operation
from apps.operations.actions.progress import sweep_operations
from apps.operations.actions.steering import cancel_operation, pause_operation
from apps.operations.enums import IfHeld, OperationKind
from apps.operations.exceptions import HeldError, NotExecutableError, NotSteerableError, QueueFullError
from apps.operations.models import ComponentHold, Operation, QueuedClaim, Step
from apps.operations.payloads import describe_operation, describe_plan
from apps.operations.tests.factories import Stage, document, make_stage, sources_of
from apps.orgs.models import Membership
from conftest import Cast

START, STOP, RESTART = OperationKind.START, OperationKind.STOP, OperationKind.RESTART
ALONE = Scope.ALONE


def queue(stage: Stage, kind: OperationKind, *names: str) -> Operation:
    return stage.start(kind, *names, scope=ALONE, if_held=IfHeld.QUEUE)


def state_of(operation: Operation) -> str:
    return Operation.objects.get(pk=operation.pk).state


@pytest.fixture
def row(cast: Cast) -> Stage:
    """Four components side by side, all running."""
    stage = make_stage(cast, {name: [] for name in "abcd"})
    stage.set_states()
    return stage


def test_one_that_waits_begins_by_itself_when_its_components_are_free(row: Stage) -> None:
    first = queue(row, STOP, "a")
    second = queue(row, RESTART, "a", "b")
    assert (first.state, second.state) == ("running", "queued")
    assert row.steps(second) == {}
    assert set(QueuedClaim.objects.values_list("component__name", flat=True)) == {"a", "b"}
    row.succeed(first, "stop a")
    assert state_of(second) == "running"
    # Made anew: by now there is nothing of a to stop.
    assert row.steps(second) == {"stop b": "running", "start a": "running", "start b": "waiting"}
    assert not QueuedClaim.objects.exists()
    row.succeed(second, "stop b", "start a", "start b")
    assert state_of(second) == "succeeded"
    actions = AuditEvent.objects.filter(action__startswith="operation.", target__operationId=str(second.pk))
    assert list(actions.order_by("id").values_list("action", flat=True)) == [
        "operation.queued",
        "operation.begun",
        "operation.finished",
    ]


def test_its_turn_and_whom_it_waits_for_are_shown(row: Stage) -> None:
    first = queue(row, STOP, "a")
    second = queue(row, START, "a")
    third = queue(row, STOP, "a", "b")
    assert describe_operation(first)["queue"] is None
    shown = describe_operation(Operation.objects.get(pk=third.pk))["queue"]
    assert shown["position"] == 2
    assert [(item["id"], item["state"]) for item in shown["waitsFor"]] == [
        (str(first.pk), "running"),
        (str(second.pk), "queued"),
    ]
    assert shown["waitsFor"][0]["requestedBy"]["name"] == "Olivia"


def test_nobody_overtakes_who_asked_before_for_the_same_component(row: Stage) -> None:
    holder = queue(row, STOP, "a")
    both = queue(row, STOP, "a", "b")
    with pytest.raises(HeldError, match=r"“stop a, b” of Olivia waits for the same components"):
        row.start(STOP, "b", scope=ALONE)
    behind = queue(row, STOP, "b")
    assert behind.state == "queued", "b is free, but asked for"
    free = queue(row, STOP, "c")
    assert free.state == "running"
    problems = describe_plan(row.plan(STOP, "b", scope=ALONE))["problems"]
    assert {problem["code"] for problem in problems} == {"held"}
    row.succeed(holder, "stop a")
    assert (state_of(both), state_of(behind)) == ("running", "queued")
    row.succeed(both, "stop b")
    behind.refresh_from_db()
    assert (behind.state, behind.detail) == ("succeeded", "Everything is already stopped.")


def test_what_it_waits_for_grows_and_never_shrinks_so_that_it_is_not_starved(row: Stage) -> None:
    holder = queue(row, STOP, "a")
    waiting = row.start(STOP, if_held=IfHeld.QUEUE)
    row.set_states({"b": "stopped"})
    other = queue(row, START, "b")
    assert other.state == "queued", "the whole Map was asked for before"
    row.succeed(holder, "stop a")
    assert set(row.steps(waiting)) == {"stop c", "stop d"}
    assert state_of(other) == "running", "nothing of b had to be stopped"


def test_one_that_waits_is_cancelled_at_once_and_those_behind_go_on(row: Stage) -> None:
    queue(row, STOP, "a")
    both = queue(row, STOP, "a", "b")
    behind = queue(row, STOP, "b")
    cancel_operation(operation=both, actor=Actor.person(row.user))
    assert (state_of(both), state_of(behind)) == ("cancelled", "running")
    assert row.steps(behind) == {"stop b": "running"}


def test_one_that_waits_can_only_be_cancelled(row: Stage) -> None:
    queue(row, STOP, "a")
    waiting = queue(row, STOP, "a")
    with pytest.raises(NotSteerableError, match="can only be cancelled"):
        pause_operation(operation=waiting, actor=Actor.person(row.user))


def test_permissions_are_asked_again_when_its_turn_comes(cast: Cast, row: Stage) -> None:
    first = queue(row, STOP, "a")
    second = start_operation(
        map=row.map,
        user=cast.operator,
        actor=Actor.person(cast.operator),
        kind=RESTART,
        chosen=row.ids("a"),
        if_held=IfHeld.QUEUE,
    )
    Membership.objects.filter(user=cast.operator).delete()
    row.succeed(first, "stop a")
    second.refresh_from_db()
    assert (second.state, second.detail) == ("failed", "You may not start a.")
    assert not ComponentHold.objects.exists()


def test_one_whose_components_are_gone_by_then_fails_and_says_so(row: Stage) -> None:
    first = queue(row, STOP, "a")
    waiting = queue(row, START, "a", "b")
    documents = [document(name) for name in "acd"]
    apply_documents(map=row.map, sources=sources_of(documents), actor=SYSTEM)
    row.succeed(first, "stop a")
    waiting.refresh_from_db()
    assert waiting.state == "failed"
    assert "This Map has no component" in waiting.detail


def test_who_may_not_do_it_does_not_wait_either(cast: Cast, row: Stage) -> None:
    row.set_states({"a": "stopped"})
    first = queue(row, START, "a")
    for kind, wanted in ((START, "start"), (STOP, "stop")):
        with pytest.raises(NotExecutableError, match=f"You may not {wanted}"):
            start_operation(
                map=row.map,
                user=cast.viewer,
                actor=Actor.person(cast.viewer),
                kind=kind,
                chosen=row.ids("a"),
                if_held=IfHeld.QUEUE,
            )
    assert list(Operation.objects.all()) == [first]


def test_the_queue_of_a_map_is_bounded(row: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queueing, "MAX_QUEUED", 2)
    queue(row, STOP, "a")
    for _ in range(2):
        queue(row, START, "a")
    with pytest.raises(QueueFullError, match="2 operations of Trading Platform wait already"):
        queue(row, START, "a")
    assert Operation.objects.count() == 3


def test_the_sweep_begins_what_no_event_did(row: Stage) -> None:
    first = queue(row, STOP, "a")
    waiting = queue(row, STOP, "a", "b")
    ComponentHold.objects.filter(operation=first).delete()
    Operation.objects.filter(pk=first.pk).update(state="failed")
    assert state_of(waiting) == "queued"
    sweep_operations()
    assert state_of(waiting) == "running"


@pytest.mark.django_db(transaction=True)
def test_of_fifty_at_once_no_two_touch_a_component_together_and_none_is_forgotten(cast: Cast) -> None:
    stage = make_stage(cast, {name: [] for name in "abcdef"})
    stage.set_states()
    names = {name: stage.component(name).pk for name in "abcdef"}
    rng = random.Random(50)  # noqa: S311 - the same fifty each time
    wishes = [(rng.choice([START, STOP]), rng.sample("abcdef", rng.randint(1, 3))) for _ in range(50)]
    together = threading.Barrier(50)
    asked: list[Operation] = []
    refused: list[Exception] = []

    def ask(kind: OperationKind, chosen: list[str]) -> None:
        try:
            together.wait(20)
            operation = start_operation(
                map=stage.map,
                user=stage.user,
                actor=Actor.person(stage.user),
                kind=kind,
                chosen=[names[name] for name in chosen],
                scope=ALONE,
                if_held=IfHeld.QUEUE,
            )
            asked.append(operation)
            # While others still ask, commands end.
            _answer_one()
        except Exception as error:
            refused.append(error)
        finally:
            connection.close()

    people = [threading.Thread(target=ask, args=wish) for wish in wishes]
    for person in people:
        person.start()
    for person in people:
        person.join(60)
    while _answer_one():
        pass

    # Nothing to do is the one reason to refuse: nobody was before them, and it is as they want it.
    assert {str(error) for error in refused} <= {"Everything is already running.", "Everything is already stopped."}
    assert len(asked) + len(refused) == 50
    assert set(Operation.objects.values_list("state", flat=True)) == {"succeeded"}
    assert not ComponentHold.objects.exists()
    assert not QueuedClaim.objects.exists()
    assert not {"starting", "stopping"} & set(stage.states().values())
    _check_never_together()
    _check_in_order()


def _answer_one() -> bool:
    """One command that is open succeeds; of two that answer the same one, the second changes nothing."""
    pk = Command.objects.filter(state__in=OPEN_STATES).values_list("pk", flat=True).first()
    if pk is None:
        return False
    with transaction.atomic():
        change_state(pk, CommandState.SUCCEEDED)
    return True


def _check_never_together() -> None:
    spans: dict[object, list[tuple[datetime, datetime]]] = defaultdict(list)
    for step in Step.objects.select_related("operation"):
        assert step.started_at is not None
        assert step.operation.finished_at is not None
        spans[step.component_id].append((step.started_at, step.operation.finished_at))
    for held in spans.values():
        held.sort()
        assert all(end <= begin for (_, end), (begin, _) in pairwise(held))


def _check_in_order() -> None:
    """Of two that waited for a common component, who asked first began first."""
    touched: dict[str, set[object]] = defaultdict(set)
    for operation_id, chosen in Operation.objects.values_list("pk", "chosen"):
        touched[str(operation_id)] = set(chosen)
    events = AuditEvent.objects.filter(action__in=["operation.queued", "operation.begun", "operation.finished"])
    queued: list[str] = []
    left: list[str] = []
    for action, target in events.order_by("id").values_list("action", "target"):
        operation_id = target["operationId"]
        if action == "operation.queued":
            queued.append(operation_id)
        elif operation_id in queued and operation_id not in left:
            left.append(operation_id)
    turns = {operation_id: turn for turn, operation_id in enumerate(left)}
    for index, earlier in enumerate(queued):
        for later in queued[index + 1 :]:
            if touched[earlier] & touched[later]:
                assert turns[earlier] < turns[later]
