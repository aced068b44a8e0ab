"""Plans: what would be done, what stands against it, and that a dry run leaves no trace."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any

import pytest
from django.apps import apps
from django.test import Client
from django.utils import timezone

from apps.gateways.actions.sessions import close_gateway_session
from apps.gateways.tests.factories import claim, make_agent
from apps.maps.models import Component, Dependency
from apps.maps.planning.plans import Scope
from apps.maps.selectors import get_graph
from apps.operations.actions.durations import record_durations
from apps.operations.enums import OperationKind, StepState
from apps.operations.exceptions import MapChangedError, NotExecutableError
from apps.operations.models import Operation, Step
from apps.operations.payloads import describe_plan
from apps.operations.plans import CheckedPlan, make_plan
from apps.operations.tests.factories import HOST, Stage, document, make_map, make_stage
from conftest import Cast

START, STOP, RESTART, REPAIR = OperationKind.START, OperationKind.STOP, OperationKind.RESTART, OperationKind.REPAIR


def steps_of(plan: CheckedPlan) -> list[str]:
    return [f"{step.planned.action} {step.component.name}" for step in plan.steps]


def after_of(plan: CheckedPlan, step: str) -> set[str]:
    names = {checked.component.pk: checked.component.name for checked in plan.steps}
    [found] = [checked for checked in plan.steps if f"{checked.planned.action} {checked.component.name}" == step]
    return {f"{action} {names[pk]}" for pk, action in found.planned.after}


def codes(plan: CheckedPlan) -> set[tuple[str, str | None]]:
    return {(problem.code, problem.component) for problem in plan.all_problems()}


def test_starting_a_map_that_is_down_starts_all_of_it_in_order(stage: Stage) -> None:
    plan = stage.plan(START)
    assert steps_of(plan)[0] == "start db"
    assert steps_of(plan)[-1] == "start web"
    assert len(plan.steps) == 4
    assert after_of(plan, "start db") == set()
    assert after_of(plan, "start cache") == after_of(plan, "start queue") == {"start db"}
    assert after_of(plan, "start web") == {"start cache", "start queue"}
    assert (plan.target, plan.levels, plan.is_executable) == ("Trading Platform", 3, True)
    [first] = [step for step in plan.steps if step.component.name == "db"]
    assert first.command is not None
    assert first.command.summary == "run db"
    assert first.agent == stage.agent.row


def test_stopping_a_map_is_the_reverse(stage: Stage) -> None:
    stage.set_states()
    plan = stage.plan(STOP)
    assert after_of(plan, "stop web") == set()
    assert after_of(plan, "stop db") == {"stop cache", "stop queue"}


@pytest.mark.parametrize(
    ("kind", "chosen", "scope", "expected"),
    [
        (START, "cache", None, {"start db", "start cache"}),
        (START, "cache", Scope.ALONE, {"start cache"}),
        (START, "cache", Scope.WITH_DEPENDENTS, {"start cache", "start web"}),
        (STOP, "cache", None, {"stop web", "stop cache"}),
        (STOP, "cache", Scope.ALONE, {"stop cache"}),
        (STOP, "cache", Scope.WITH_DEPENDENCIES, {"stop cache", "stop db"}),
        (RESTART, "cache", None, {"stop cache", "start cache"}),
        (RESTART, "cache", Scope.WITH_DEPENDENTS, {"stop web", "stop cache", "start cache", "start web"}),
    ],
)
def test_scope_says_how_far_an_operation_reaches(
    stage: Stage, kind: OperationKind, chosen: str, scope: Scope | None, expected: set[str]
) -> None:
    stage.set_states(others="stopped" if kind is START else "running")
    plan = stage.plan(kind, chosen, scope=scope)
    assert set(steps_of(plan)) == expected
    assert plan.target == "cache"
    untouched = {component.name for component in plan.untouched}
    assert untouched == {"db", "cache", "queue", "web"} - {step.partition(" ")[2] for step in expected}


def test_what_runs_already_is_left_alone(stage: Stage) -> None:
    stage.set_states({"db": "running", "cache": "degraded"}, others="stopped")
    plan = stage.plan(START)
    assert set(steps_of(plan)) == {"start queue", "start web"}
    assert {component.name for component in plan.untouched} == {"db", "cache"}


def test_repair_is_about_the_broken_branch_only(stage: Stage) -> None:
    stage.set_states({"queue": "failed"})
    plan = stage.plan(REPAIR)
    assert set(steps_of(plan)) == {"stop web", "stop queue", "start queue", "start web"}
    assert {component.name for component in plan.untouched} == {"db", "cache"}
    assert plan.target == "queue"


def test_a_failed_component_without_a_stop_command_is_only_started(cast: Cast) -> None:
    stage = make_stage(cast, documents=[document("db", commands={"start": {"command": "run db"}})])
    stage.set_states({"db": "failed"})
    plan = stage.plan(REPAIR)
    assert steps_of(plan) == ["start db"]
    assert after_of(plan, "start db") == set()
    assert plan.is_executable


def test_one_component_with_a_restart_command_is_restarted_by_it(cast: Cast) -> None:
    commands = {name: {"command": f"{name} db"} for name in ("start", "stop", "restart")}
    stage = make_stage(cast, documents=[document("db", commands=commands), document("web", ["db"])])
    stage.set_states()
    assert steps_of(stage.plan(RESTART, "db")) == ["restart db"]
    assert "restart db" not in steps_of(stage.plan(RESTART))


def test_a_target_of_many_is_named_by_three(cast: Cast) -> None:
    stage = make_stage(cast, {name: [] for name in "abcde"})
    assert stage.plan(START, "a", "b", "c").target == "a, b, c"
    assert stage.plan(START, "e", "d", "c", "b", "a").target == "a, b, c and 2 more"


def test_unknown_host_is_a_problem(cast: Cast) -> None:
    by_labels = {"host": None, "hostSelector": {"labels": {"tier": "db"}}}
    documents = [document("db", host="nowhere"), document("cache", **by_labels), document("web")]
    plan = make_stage(cast, documents=documents).plan(START)
    assert codes(plan) == {("unknown_host", "db"), ("unknown_host", "cache")}
    assert not plan.is_executable


def test_a_host_is_found_by_agent_id_hostname_or_labels(cast: Cast) -> None:
    by_labels = {"host": None, "hostSelector": {"labels": {"tier": "db"}}}
    documents = [document("a", host=HOST), document("b", host=f"{HOST}.example"), document("c", **by_labels)]
    stage = make_stage(cast, documents=documents)
    make_agent(stage.gateway, "srv-2", labels={"tier": "db", "site": "a"})
    agents = {step.component.name: step.agent.agent_id for step in stage.plan(START).steps if step.agent}
    assert agents == {"a": HOST, "b": HOST, "c": "srv-2"}


def test_agent_offline_is_a_problem(stage: Stage) -> None:
    stage.agent.disconnect()
    plan = stage.plan(STOP, "db", scope=Scope.ALONE)
    assert codes(plan) == {("agent_offline", "db")}
    assert "srv-1 is not connected" in plan.all_problems()[0].message


def test_gateway_offline_is_told_apart_from_a_lost_agent(stage: Stage) -> None:
    assert stage.gateway.session_id is not None
    close_gateway_session(gateway=stage.gateway, session_id=stage.gateway.session_id)
    plan = stage.plan(STOP, "db", scope=Scope.ALONE)
    assert codes(plan) == {("gateway_offline", "db")}
    assert "gw-1" in plan.all_problems()[0].message


def test_no_command_is_a_problem(cast: Cast) -> None:
    stage = make_stage(cast, documents=[document("db", commands={"start": {"command": "run db"}})])
    stage.set_states()
    assert codes(stage.plan(STOP)) == {("no_command", "db")}


def test_permission_denied_is_shown_at_each_step(cast: Cast, stage: Stage) -> None:
    plan = stage.plan(START, user=cast.viewer)
    assert codes(plan) == {("permission_denied", name) for name in ("db", "cache", "queue", "web")}
    assert not any(step.is_allowed for step in plan.steps)
    assert all(step.is_allowed for step in stage.plan(START, user=cast.operator).steps)
    assert codes(stage.plan(START, user=cast.outsider)) == codes(plan)


@pytest.mark.parametrize(
    ("kind", "states", "message"),
    [
        (START, "running", "Everything is already running."),
        (STOP, "stopped", "Everything is already stopped."),
        (REPAIR, "running", "Nothing has failed: there is nothing to repair."),
    ],
)
def test_nothing_to_do_is_a_problem(stage: Stage, kind: OperationKind, states: str, message: str) -> None:
    stage.set_states(others=states)
    plan = stage.plan(kind)
    assert codes(plan) == {("nothing_to_do", None)}
    assert plan.problems[0].message == message
    assert (plan.is_executable, plan.steps, plan.prediction) == (False, [], None)


def test_unknown_components_are_a_problem(cast: Cast, stage: Stage) -> None:
    other = make_map(cast.production, cast.owner, [document("elsewhere")], "Other")
    foreign = other.components.get().pk
    for stranger in (uuid.uuid4(), foreign):
        plan = make_plan(map=stage.fresh(), user=stage.user, kind=START, chosen=[stranger], scope=None)
        assert codes(plan) == {("unknown_component", None)}
        assert plan.steps == []
    chosen = [foreign, *stage.ids("db")]
    plan = make_plan(map=stage.fresh(), user=stage.user, kind=START, chosen=chosen, scope=None)
    assert steps_of(plan) == ["start db"]
    assert not plan.is_executable


def test_held_components_are_a_problem_that_names_the_holder(stage: Stage) -> None:
    stage.start(START, "db")
    plan = describe_plan(stage.plan(START))
    held = [problem for problem in plan["problems"] if problem["code"] == "held"]
    assert held == []
    stage.set_states(others="running")
    plan = describe_plan(stage.plan(STOP))
    [held] = [problem for problem in plan["problems"] if problem["code"] == "held"]
    assert held["component"] == "db"
    assert held["message"] == "db is held by “start db” of Olivia."
    assert plan["isExecutable"] is False


def test_what_somebody_else_is_starting_is_held_and_not_running_already(stage: Stage) -> None:
    stage.start(START)
    plan = stage.plan(START, "db", scope=Scope.ALONE)
    assert (plan.steps, plan.problems) == ([], [])
    assert [hold.component.name for hold in plan.holds] == ["db"]
    assert describe_plan(plan)["isExecutable"] is False


def remember(stage: Stage, name: str, *durations_s: float, state: str = StepState.SUCCEEDED) -> None:
    """Steps of the past with these durations."""
    operation = Operation.objects.create(organization_id=stage.map.organization_id, map=stage.map, kind=START)
    now = timezone.now()
    for duration in durations_s:
        step = Step.objects.create(
            operation=operation,
            component=stage.component(name),
            component_name=name,
            action=START,
            position=0,
            state=state,
            started_at=now,
            finished_at=now + timedelta(seconds=duration),
        )
        record_durations([step.pk])


def test_predictions_need_a_history(stage: Stage) -> None:
    plan = stage.plan(START)
    assert plan.prediction is None
    assert {step.prediction for step in plan.steps} == {None}

    remember(stage, "db", 2)
    remember(stage, "cache", 4)
    remember(stage, "queue", 1)
    remember(stage, "web", 60, state=StepState.FAILED)
    plan = stage.plan(START)
    predicted = {step.component.name: step.prediction.p50_ms for step in plan.steps if step.prediction}
    assert predicted == {"db": 2000, "cache": 4000, "queue": 1000}, "of what succeeded"
    assert plan.prediction is None, "honest: one step has no history"

    remember(stage, "web", 3)
    plan = stage.plan(START)
    assert plan.prediction is not None
    assert plan.prediction.p50_ms == 2000 + 4000 + 3000
    assert plan.prediction.p90_ms > plan.prediction.p50_ms
    assert [plan.steps[0].component.pk, *stage.ids("cache", "web")] == [pk for pk, _ in plan.prediction.path]


def test_predictions_follow_a_change_within_ten_runs(stage: Stage) -> None:
    remember(stage, "db", *[100] * 20)
    remember(stage, "db", *[1] * 10)
    [step] = stage.plan(START, "db").steps
    assert step.prediction is not None
    assert (step.prediction.p50_ms, step.prediction.runs) == (1000, 30)


def row_counts() -> dict[str, int]:
    return {model._meta.label: model._default_manager.count() for model in apps.get_models()}


@pytest.mark.parametrize("kind", OperationKind)
def test_a_dry_run_writes_and_sends_nothing(
    client: Client, stage: Stage, kind: OperationKind, django_capture_on_commit_callbacks: Any
) -> None:
    stage.set_states({"queue": "failed", "cache": "stopped"}, others="running")
    client.force_login(stage.user)
    before, states, version = row_counts(), stage.states(), stage.fresh().version
    with django_capture_on_commit_callbacks() as hints:
        response = client.post(
            f"/api/v1/maps/{stage.map.pk}/operations", {"kind": kind, "dryRun": True}, content_type="application/json"
        )
    assert response.status_code == 200
    assert response.json()["isExecutable"] is True
    assert response.json()["steps"]
    assert row_counts() == before
    assert (stage.states(), stage.fresh().version) == (states, version)
    assert hints == []
    assert claim(stage.gateway) == []


def test_a_plan_costs_the_same_number_of_queries_however_large(cast: Cast, django_assert_max_num_queries: Any) -> None:
    stage = make_stage(cast, {f"c{number}": [f"c{number - 1}"] if number else [] for number in range(120)})
    with django_assert_max_num_queries(12):
        plan = stage.plan(START)
    assert len(plan.steps) == 120


def test_describe_plan_shows_what_a_person_needs(stage: Stage) -> None:
    plan = describe_plan(stage.plan(START, "cache"))
    db, cache = (str(pk) for pk in stage.ids("db", "cache"))
    assert plan["kind"] == "start"
    assert plan["levels"] == 2
    [first, second] = plan["steps"]
    assert first["key"] == f"{db}:start"
    assert first["component"] == {"id": db, "name": "db", "state": "unknown"}
    assert (first["command"], first["host"], first["isAllowed"]) == ("run db", HOST, True)
    assert first["agent"]["agentId"] == HOST
    assert second["after"] == [f"{db}:start"]
    assert second["component"]["id"] == cache
    assert {item["name"] for item in plan["untouched"]} == {"queue", "web"}


def test_a_circle_that_came_past_the_documents_is_named_and_nothing_of_it_is_done(stage: Stage) -> None:
    Dependency.objects.create(map=stage.map, component=stage.component("db"), needs=stage.component("web"))
    plan = stage.plan(START)

    [problem] = plan.problems
    assert (problem.code, plan.steps, plan.is_executable) == ("cycle", [], False)
    names = problem.message.removeprefix("There is no order in which to do this: ").removesuffix(".").split(" needs ")
    assert names[0] == names[-1]
    assert {"web", "db"} < {*names} <= {"web", "db", "cache", "queue"}
    with pytest.raises(NotExecutableError, match="There is no order"):
        stage.start(START)


@pytest.mark.django_db(transaction=True)
def test_a_map_whose_structure_changes_while_it_is_planned_is_refused(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.plan(START)
    Component.objects.filter(pk=stage.component("queue").pk).delete()
    assert len(stage.plan(START).steps) == 3, "what was kept is not believed against the components"

    gone = get_graph(stage.map)
    Component.objects.filter(pk=stage.component("cache").pk).delete()
    monkeypatch.setattr("apps.operations.plans.get_graph", lambda *_, **__: gone)
    with pytest.raises(MapChangedError, match="Trading Platform is being changed at this moment"):
        stage.plan(START)
