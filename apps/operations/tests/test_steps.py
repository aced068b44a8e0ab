"""How an operation is carried out: each step the moment its own predecessors have succeeded, no level barriers."""

from __future__ import annotations

from typing import Any

import pytest

from apps.gateways.actions.commands import change_state, sweep_commands
from apps.gateways.enums import CommandState
from apps.gateways.models import Agent, Command
from apps.gateways.tests.factories import SYSTEM, claim, later, make_agent
from apps.maps.actions import apply_documents
from apps.maps.models import Component
from apps.maps.planning.plans import Scope
from apps.operations.actions.progress import advance_steps
from apps.operations.enums import OperationKind, StepState
from apps.operations.models import ComponentHold, Operation, Step
from apps.operations.tasks import sweep_operations
from apps.operations.tests.factories import HOST, Stage, document, make_stage, sources_of
from conftest import Cast

START, STOP, RESTART, REPAIR = OperationKind.START, OperationKind.STOP, OperationKind.RESTART, OperationKind.REPAIR


def running(stage: Stage, operation: Operation) -> set[str]:
    return {step for step, state in stage.steps(operation).items() if state == "running"}


def test_a_diamond_is_started_as_parallel_as_it_allows(stage: Stage) -> None:
    operation = stage.start(START)
    assert running(stage, operation) == {"start db"}
    stage.succeed(operation, "start db")
    assert running(stage, operation) == {"start cache", "start queue"}
    stage.succeed(operation, "start queue")
    assert running(stage, operation) == {"start cache"}, "web needs both"
    stage.succeed(operation, "start cache")
    assert running(stage, operation) == {"start web"}
    stage.succeed(operation, "start web")
    assert set(stage.steps(operation).values()) == {"succeeded"}
    assert set(stage.states().values()) == {"running"}
    operation.refresh_from_db()
    assert operation.state == "succeeded"
    assert stage.fresh().state == "running"


def test_a_step_waits_for_its_own_predecessors_and_for_no_level(cast: Cast) -> None:
    stage = make_stage(cast, {"a": [], "slow": [], "b": ["a"], "c": ["b"], "d": ["slow", "c"]})
    operation = stage.start(START)
    assert running(stage, operation) == {"start a", "start slow"}
    stage.succeed(operation, "start a", "start b", "start c")
    assert running(stage, operation) == {"start slow"}, "three levels up while slow is still starting"
    stage.succeed(operation, "start slow")
    assert running(stage, operation) == {"start d"}


def test_received_and_started_commands_release_nothing(stage: Stage) -> None:
    operation = stage.start(START)
    command = stage.command(operation, "start db")
    for state in (CommandState.SENT, CommandState.RECEIVED, CommandState.STARTED):
        change_state(command.pk, state)
        assert running(stage, operation) == {"start db"}
    assert stage.component("db").state == "starting"


def test_a_failure_skips_what_needs_it_and_independent_branches_go_on(cast: Cast) -> None:
    stage = make_stage(cast, {"db": [], "api": ["db"], "web": ["api"], "mail": [], "jobs": ["mail"]})
    operation = stage.start(START)
    stage.fail(operation, "start db")
    assert stage.steps(operation) == {
        "start db": "failed",
        "start api": "skipped",
        "start web": "skipped",
        "start mail": "running",
        "start jobs": "waiting",
    }
    operation.refresh_from_db()
    assert operation.state == "running"
    stage.succeed(operation, "start mail", "start jobs")
    operation.refresh_from_db()
    assert operation.state == "failed"
    assert not ComponentHold.objects.exists()
    assert stage.states() == {"db": "failed", "api": "unknown", "web": "unknown", "mail": "running", "jobs": "running"}


def test_a_failed_step_says_why_and_so_do_the_skipped_ones(stage: Stage) -> None:
    operation = stage.start(START)
    stage.fail(operation, "start db")
    details = dict(Step.objects.values_list("component_name", "detail"))
    assert details["db"] == "exit code 1"
    assert details["cache"] == details["queue"] == "start of db did not succeed"
    assert details["web"].endswith("did not succeed")
    assert stage.component("db").state_reason == "exit code 1"
    assert Command.objects.count() == 1


@pytest.mark.parametrize(
    ("state", "fields", "detail"),
    [
        (CommandState.EXPIRED, {}, "It could not be delivered in time."),
        (CommandState.UNKNOWN, {}, "The agent did not answer; it may have run."),
        (CommandState.CANCELLED, {}, "It was cancelled."),
        (CommandState.REJECTED, {"detail": "run is not allowed"}, "run is not allowed"),
        (CommandState.NOT_STARTED, {}, "It failed."),
        (CommandState.FAILED, {"exit_code": 3}, "It failed. Exit code 3."),
        (CommandState.FAILED, {"exit_code": 3, "detail": "exit status 3"}, "exit status 3"),
    ],
)
def test_every_end_of_a_command_but_success_fails_its_step(
    stage: Stage, state: CommandState, fields: dict[str, Any], detail: str
) -> None:
    operation = stage.start(START, "db")
    command = stage.command(operation, "start db")
    change_state(command.pk, CommandState.SENT)
    change_state(command.pk, state, **fields)
    step = Step.objects.get()
    assert (step.state, step.detail) == (StepState.FAILED, detail)
    assert stage.component("db").state == "failed"
    operation.refresh_from_db()
    assert operation.state == "failed"


def test_late_success_of_a_given_up_command_does_not_revive_its_step(stage: Stage) -> None:
    operation = stage.start(START)
    claim(stage.gateway)
    sweep_commands(now=later(hours=1))
    operation.refresh_from_db()
    assert operation.state == "failed"
    stage.succeed(operation, "start db")
    assert stage.command(operation, "start db").state == CommandState.SUCCEEDED
    assert stage.steps(operation)["start db"] == "failed"
    operation.refresh_from_db()
    assert operation.state == "failed"


def test_advance_step_is_idempotent(stage: Stage) -> None:
    operation = stage.start(START)
    stage.succeed(operation, "start db")
    before = list(Step.objects.order_by("pk").values())
    for _ in range(2):
        advance_steps(commands=[stage.command(operation, "start db")])
    assert list(Step.objects.order_by("pk").values()) == before
    assert Step.objects.get(component_name="web").waiting_for == 2


def test_a_whole_map_goes_down_in_reverse_order(stage: Stage) -> None:
    stage.set_states()
    operation = stage.start(STOP)
    assert running(stage, operation) == {"stop web"}
    stage.succeed(operation, "stop web")
    assert running(stage, operation) == {"stop cache", "stop queue"}
    stage.succeed(operation, "stop cache", "stop queue", "stop db")
    assert set(stage.states().values()) == {"stopped"}
    assert set(Component.objects.values_list("desired", flat=True)) == {"down"}


def test_a_restart_stops_and_starts_again(stage: Stage) -> None:
    stage.set_states()
    operation = stage.start(RESTART, "cache", scope=Scope.WITH_DEPENDENTS)
    for step in ("stop web", "stop cache", "start cache", "start web"):
        assert running(stage, operation) == {step}
        stage.succeed(operation, step)
    operation.refresh_from_db()
    assert operation.state == "succeeded"
    assert set(stage.states().values()) == {"running"}
    epochs = Command.objects.filter(subject=stage.component("cache").pk).order_by("id").values_list("epoch", flat=True)
    assert list(epochs) == [1, 2], "a late stop cannot follow the start"


def test_a_restart_command_does_it_in_one_step(cast: Cast) -> None:
    commands = {name: {"command": f"{name} db"} for name in ("start", "stop", "restart")}
    stage = make_stage(cast, documents=[document("db", commands=commands)])
    stage.set_states()
    operation = stage.start(RESTART, "db")
    assert stage.component("db").state == "starting"
    stage.succeed(operation, "restart db")
    assert stage.states() == {"db": "running"}


def test_a_stop_that_fails_leaves_it_to_the_health_check_what_the_component_is(stage: Stage) -> None:
    stage.set_states()
    stage.agent.tell_health(stage.component("web").pk, "healthy")
    operation = stage.start(STOP, "web")
    stage.fail(operation, "stop web")
    assert stage.component("web").state == "running"
    operation = stage.start(STOP, "queue", scope=Scope.ALONE)
    stage.fail(operation, "stop queue")
    assert stage.component("queue").state == "unknown", "no check has spoken yet"


def test_repair_of_a_branch_leaves_the_others_alone(cast: Cast) -> None:
    stage = make_stage(cast, {"db": [], "api": ["db"], "web": ["api"], "cache": [], "batch": ["cache"]})
    stage.set_states({"api": "failed"})
    others = Component.objects.filter(name__in=["db", "cache", "batch"]).order_by("name")
    untouched = list(others.values())
    operation = stage.start(REPAIR)
    for step in ("stop web", "stop api", "start api", "start web"):
        assert running(stage, operation) == {step}
        assert set(ComponentHold.objects.values_list("component__name", flat=True)) == {"api", "web"}
        stage.succeed(operation, step)
    operation.refresh_from_db()
    assert (operation.state, operation.target) == ("succeeded", "api")
    assert list(others.values()) == untouched
    assert set(Command.objects.values_list("subject", flat=True)) == set(stage.ids("api", "web"))
    assert set(stage.states().values()) == {"running"}


def test_repair_does_not_start_what_nobody_wanted_up(stage: Stage) -> None:
    stage.set_states({"cache": "failed", "web": "stopped"})
    operation = stage.start(REPAIR)
    assert set(stage.steps(operation)) == {"stop cache", "start cache"}


def test_a_weak_dependency_orders_but_does_not_spread_a_failure(cast: Cast) -> None:
    stage = make_stage(cast, {"kafka": [], "web": [{"component": "kafka", "kind": "weak"}]})
    operation = stage.start(START)
    assert running(stage, operation) == {"start kafka"}
    stage.succeed(operation, "start kafka", "start web")
    stage.set_states({"kafka": "failed"})
    assert set(stage.steps(stage.start(REPAIR))) == {"stop kafka", "start kafka"}


def test_steps_run_on_the_agents_of_their_hosts(cast: Cast) -> None:
    stage = make_stage(cast, documents=[document("db"), document("web", host="srv-2")])
    second = make_agent(stage.gateway, "srv-2")
    operation = stage.start(START)
    assert stage.command(operation, "start db").agent == stage.agent.row
    assert stage.command(operation, "start web").agent == second.row
    assert {frame["target_agent"] for frame in claim(stage.gateway)} == {HOST, "srv-2"}


def test_a_step_whose_agent_is_gone_by_its_turn_fails(cast: Cast) -> None:
    stage = make_stage(cast, documents=[document("db"), document("web", ["db"], host="srv-2")])
    make_agent(stage.gateway, "srv-2")
    operation = stage.start(START)
    Agent.objects.filter(agent_id="srv-2").delete()
    stage.succeed(operation, "start db")
    assert stage.steps(operation) == {"start db": "succeeded", "start web": "failed"}
    operation.refresh_from_db()
    assert operation.state == "failed"
    assert not ComponentHold.objects.exists()


def test_sweep_settles_a_step_whose_command_ended_unheard(stage: Stage) -> None:
    operation = stage.start(START)
    Command.objects.update(state=CommandState.SUCCEEDED)
    assert running(stage, operation) == {"start db"}
    sweep_operations()
    assert running(stage, operation) == {"start cache", "start queue"}


def test_sweep_fails_a_step_whose_command_is_gone(stage: Stage) -> None:
    operation = stage.start(START, "db")
    Command.objects.all().delete()
    sweep_operations()
    assert stage.steps(operation) == {"start db": "failed"}
    assert Step.objects.get().detail == "Its command is gone."
    operation.refresh_from_db()
    assert operation.state == "failed"


def test_sweep_ends_an_operation_without_an_open_step(stage: Stage) -> None:
    operation = stage.start(START, "db")
    Step.objects.update(state=StepState.SUCCEEDED)
    sweep_operations()
    operation.refresh_from_db()
    assert operation.state == "succeeded"
    assert not ComponentHold.objects.exists()


def test_sweep_leaves_what_is_under_way_alone(stage: Stage) -> None:
    operation = stage.start(START)
    before = list(Step.objects.order_by("pk").values()), Operation.objects.values().get()
    sweep_operations()
    assert (list(Step.objects.order_by("pk").values()), Operation.objects.values().get()) == before
    assert running(stage, operation) == {"start db"}


def test_history_outlives_a_component_that_leaves_the_map(stage: Stage) -> None:
    operation = stage.start(START, "db")
    stage.succeed(operation, "start db")
    apply_documents(map=stage.map, sources=sources_of([document("other")]), actor=SYSTEM)
    step = Step.objects.get()
    assert (step.component, step.component_name, step.state) == (None, "db", "succeeded")
    assert Command.objects.get().state == CommandState.SUCCEEDED
