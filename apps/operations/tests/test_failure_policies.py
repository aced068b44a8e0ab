"""What becomes of the rest after a failure, how much runs at once, and whether a reason is asked for."""

from __future__ import annotations

import json

import pytest

from apps.audit.actor import Actor
from apps.audit.models import AuditEvent
from apps.gateways.models import Agent
from apps.gateways.tests.factories import SYSTEM, make_agent
from apps.maps.actions import apply_documents
from apps.maps.documents.reading import SourceFile
from apps.operations.actions.progress import sweep_operations
from apps.operations.actions.steering import retry_steps
from apps.operations.enums import FailurePolicy, OperationKind
from apps.operations.exceptions import NotExecutableError, ReasonRequiredError
from apps.operations.models import ComponentHold, Operation, Step
from apps.operations.plans import make_plan
from apps.operations.tests.factories import Stage, document, make_stage
from conftest import Cast

START, STOP, RESTART = OperationKind.START, OperationKind.STOP, OperationKind.RESTART
TWO_BRANCHES = {"db": [], "api": ["db"], "web": ["api"], "mail": [], "jobs": ["mail"]}


def rollback_steps(operation: Operation) -> dict[str, str]:
    rows = Step.objects.filter(operation=operation, is_rollback=True)
    return {f"{step.action} {step.component_name}": step.state for step in rows}


def succeed_rollback(stage: Stage, operation: Operation, *names: str) -> None:
    for name in names:
        step = Step.objects.select_related("command").get(operation=operation, component_name=name, is_rollback=True)
        assert step.command is not None
        stage.agent.succeed(step.command)


def test_with_stop_nothing_new_begins_after_a_failure(cast: Cast) -> None:
    stage = make_stage(cast, TWO_BRANCHES)
    operation = stage.start(START, failure_policy=FailurePolicy.STOP)
    stage.fail(operation, "start db")
    assert stage.steps(operation) == {
        "start db": "failed",
        "start api": "skipped",
        "start web": "skipped",
        "start mail": "running",
        "start jobs": "skipped",
    }
    stage.succeed(operation, "start mail")
    operation.refresh_from_db()
    assert operation.state == "failed"
    assert stage.component("mail").state == "running"
    assert not ComponentHold.objects.exists()


def test_with_stop_one_that_cannot_be_sent_holds_back_those_that_could(cast: Cast) -> None:
    stage = make_stage(cast, documents=[document("a"), document("b", ["a"], host="srv-2"), document("c", ["a"])])
    make_agent(stage.gateway, "srv-2")
    operation = stage.start(START, failure_policy=FailurePolicy.STOP)
    Agent.objects.filter(agent_id="srv-2").delete()
    stage.succeed(operation, "start a")
    assert stage.steps(operation) == {"start a": "succeeded", "start b": "failed", "start c": "skipped"}
    operation.refresh_from_db()
    assert operation.state == "failed"


def test_with_roll_back_what_succeeded_is_undone_in_reverse_order(stage: Stage) -> None:
    operation = stage.start(START, failure_policy=FailurePolicy.ROLL_BACK)
    stage.succeed(operation, "start db", "start cache")
    stage.fail(operation, "start queue")
    assert rollback_steps(operation) == {"stop cache": "running", "stop db": "waiting"}
    operation.refresh_from_db()
    assert (operation.state, operation.is_rolling_back) == ("running", True)
    succeed_rollback(stage, operation, "cache", "db")
    operation.refresh_from_db()
    assert operation.state == "rolled_back"
    assert stage.states() == {"db": "stopped", "cache": "stopped", "queue": "failed", "web": "unknown"}
    assert not ComponentHold.objects.exists()
    assert AuditEvent.objects.get(action="operation.finished").details["state"] == "rolled_back"


def test_a_roll_back_waits_for_what_runs(cast: Cast) -> None:
    stage = make_stage(cast, {"a": [], "b": [], "c": []})
    operation = stage.start(START, failure_policy=FailurePolicy.ROLL_BACK)
    stage.succeed(operation, "start a")
    stage.fail(operation, "start b")
    assert rollback_steps(operation) == {}
    stage.succeed(operation, "start c")
    assert rollback_steps(operation) == {"stop a": "running", "stop c": "running"}


def test_a_restart_is_rolled_back_by_starting_what_was_stopped(stage: Stage) -> None:
    stage.set_states()
    operation = stage.start(RESTART, "cache", "web", failure_policy=FailurePolicy.ROLL_BACK)
    stage.succeed(operation, "stop web", "stop cache")
    stage.fail(operation, "start cache")
    assert rollback_steps(operation) == {"start cache": "running", "start web": "waiting"}
    succeed_rollback(stage, operation, "cache", "web")
    operation.refresh_from_db()
    assert operation.state == "rolled_back"
    assert set(stage.states().values()) == {"running"}


def test_a_roll_back_that_fails_itself_ends_failed_and_its_step_can_be_tried_again(stage: Stage) -> None:
    operation = stage.start(START, "cache", failure_policy=FailurePolicy.ROLL_BACK)
    stage.succeed(operation, "start db")
    stage.fail(operation, "start cache")
    undoing = Step.objects.select_related("command").get(is_rollback=True)
    assert undoing.command is not None
    stage.agent.fail(undoing.command)
    operation.refresh_from_db()
    assert operation.state == "failed"
    retry_steps(operation=operation, user=stage.user, actor=Actor.person(stage.user))
    assert stage.steps(operation)["start cache"] == "failed", "what is being undone is not done again"
    succeed_rollback(stage, operation, "db")
    operation.refresh_from_db()
    assert operation.state == "rolled_back"


def test_where_nothing_succeeded_nothing_is_undone(stage: Stage) -> None:
    operation = stage.start(START, failure_policy=FailurePolicy.ROLL_BACK)
    stage.fail(operation, "start db")
    operation.refresh_from_db()
    assert (operation.state, operation.is_rolling_back) == ("failed", False)
    assert operation.detail.startswith("Nothing had succeeded")


def test_a_roll_back_that_no_event_began_is_begun_by_the_sweep(stage: Stage) -> None:
    operation = stage.start(START, "cache", failure_policy=FailurePolicy.ROLL_BACK)
    stage.succeed(operation, "start db")
    Step.objects.filter(component_name="cache").update(state="failed")
    sweep_operations()
    assert rollback_steps(operation) == {"stop db": "running"}


def test_a_roll_back_that_would_have_no_way_is_refused_before_the_first_step(cast: Cast) -> None:
    stage = make_stage(cast, documents=[document("db", commands={"start": {"command": "run db"}})])
    with pytest.raises(NotExecutableError, match="db has no stop command, which a roll back may need"):
        stage.start(START, failure_policy=FailurePolicy.ROLL_BACK)
    assert stage.start(START).state == "running"


def test_whoever_may_not_undo_is_told_so_by_the_plan(cast: Cast, stage: Stage) -> None:
    plan = make_plan(
        map=stage.fresh(),
        user=cast.viewer,
        kind=START,
        chosen=stage.ids("db"),
        scope=None,
        failure_policy=FailurePolicy.ROLL_BACK,
    )
    assert {problem.code for problem in plan.problems} == {"permission_denied"}


def test_no_more_steps_run_at_once_than_allowed(cast: Cast) -> None:
    stage = make_stage(cast, {name: [] for name in "abcde"})
    operation = stage.start(START, max_parallel=2)
    for ended in range(5):
        states = list(stage.steps(operation).values())
        assert states.count("running") == min(2, 5 - ended)
        running = Step.objects.filter(operation=operation, state="running").first()
        assert running is not None
        stage.succeed(operation, f"start {running.component_name}")
    operation.refresh_from_db()
    assert operation.state == "succeeded"


def test_a_step_that_cannot_be_sent_leaves_its_place_to_the_next(cast: Cast) -> None:
    documents = [document("a"), document("b", ["a"], host="srv-2"), document("c", ["a"])]
    stage = make_stage(cast, documents=documents)
    make_agent(stage.gateway, "srv-2")
    operation = stage.start(START, max_parallel=1)
    Agent.objects.filter(agent_id="srv-2").delete()
    stage.succeed(operation, "start a")
    assert stage.steps(operation) == {"start a": "succeeded", "start b": "failed", "start c": "running"}


def test_a_map_can_ask_for_a_reason(stage: Stage) -> None:
    head = {
        "apiVersion": "opsmap.io/v1",
        "kind": "Map",
        "metadata": {"name": "Trading Platform"},
        "spec": {"requireReason": True},
    }
    sources = [SourceFile(f"{index}.yaml", json.dumps(item)) for index, item in enumerate([head, document("db")])]
    apply_documents(map=stage.map, sources=sources, actor=SYSTEM)
    for reason in ("", "  \t"):
        with pytest.raises(ReasonRequiredError, match="Trading Platform asks for a reason"):
            stage.start(START, reason=reason)
    assert not Operation.objects.exists()
    assert stage.start(START, reason="after the outage").reason == "after the outage"
