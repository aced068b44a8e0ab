"""Operations and agents in quarantine: planned as refused, and failed with the reason if it comes in between."""

from __future__ import annotations

import pytest

from apps.gateways.actions.quarantine import quarantine_agent, release_agent
from apps.gateways.enums import CommandState
from apps.gateways.models import Agent, Command
from apps.gateways.tests.factories import SYSTEM, make_agent
from apps.operations.actions.steps import release_ready_steps
from apps.operations.enums import OperationKind
from apps.operations.exceptions import NotExecutableError
from apps.operations.models import ComponentHold, Operation, Step
from apps.operations.tests.factories import Stage, document, make_stage
from conftest import Cast

REASON = "it answers strangely"
SHAPE = {"db": [], "web": ["db"]}


@pytest.fixture
def stage(cast: Cast) -> Stage:
    return make_stage(cast, SHAPE)


def quarantine(stage: Stage) -> None:
    quarantine_agent(agent=stage.agent.row, actor=SYSTEM, reason=REASON)


def test_a_plan_says_why_it_cannot_be_carried_out(stage: Stage) -> None:
    quarantine(stage)
    plan = stage.plan(OperationKind.START, "db")
    [problem] = plan.all_problems()
    assert (problem.code, problem.component) == ("agent_quarantined", "db")
    assert REASON in problem.message
    with pytest.raises(NotExecutableError, match=REASON):
        stage.start(OperationKind.START, "db")
    assert not Operation.objects.exists()
    release_agent(agent=stage.agent.row, actor=SYSTEM)
    assert stage.plan(OperationKind.START, "db").is_executable


def test_a_plan_for_a_revoked_agent_says_so(stage: Stage) -> None:
    Agent.objects.update(revoked_at=stage.agent.row.last_seen_at, session_id=None)
    [problem] = stage.plan(OperationKind.START, "db").all_problems()
    assert problem.code == "agent_revoked"


def test_a_step_that_waits_for_delivery_fails_with_the_reason(stage: Stage) -> None:
    operation = stage.start(OperationKind.START)
    quarantine(stage)
    assert stage.steps(operation) == {"start db": "failed", "start web": "skipped"}
    assert REASON in Step.objects.get(component_name="db").detail
    operation.refresh_from_db()
    assert operation.state == "failed"
    assert not ComponentHold.objects.exists()


def test_a_step_that_runs_goes_on_and_the_next_one_fails(stage: Stage) -> None:
    operation = stage.start(OperationKind.START)
    command = stage.command(operation, "start db")
    Command.objects.update(state=CommandState.SENT)
    quarantine(stage)
    stage.agent.succeed(command)
    assert stage.steps(operation) == {"start db": "succeeded", "start web": "failed"}
    assert REASON in Step.objects.get(component_name="web").detail
    operation.refresh_from_db()
    assert operation.state == "failed"


def test_a_quarantine_between_plan_and_beginning_ends_the_operation_at_once(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def come_in_between(operation: Operation, **arguments: object) -> None:
        quarantine(stage)
        release_ready_steps(operation, **arguments)  # type: ignore[arg-type]

    monkeypatch.setattr("apps.operations.actions.beginnings.release_ready_steps", come_in_between)
    operation = stage.start(OperationKind.START)
    assert stage.steps(operation) == {"start db": "failed", "start web": "skipped"}
    operation.refresh_from_db()
    assert operation.state == "failed"
    assert not Command.objects.exists()


def test_a_removed_agent_stands_for_no_host_and_a_revoked_one_only_until_another_comes(cast: Cast) -> None:
    stage = make_stage(cast, documents=[document("db", host="srv.example")])
    Agent.objects.update(hostname="srv.example", agent_id="z-old", revoked_at=stage.agent.row.last_seen_at)
    make_agent(stage.gateway, "a-new", hostname="srv.example")
    [step] = stage.plan(OperationKind.START, "db").steps
    assert step.agent is not None
    assert step.agent.agent_id == "a-new"
    Agent.objects.update(removed_at=step.agent.last_seen_at)
    [problem] = stage.plan(OperationKind.START, "db").all_problems()
    assert problem.code == "unknown_host"
