"""Steering over REST: what each address answers, with which codes, and that whoever watches is told."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from django.test import Client

from apps.maps.models import Map
from apps.operations.enums import OperationKind
from apps.operations.models import Operation, Step
from apps.operations.payloads import describe_changes
from apps.operations.tests.factories import Stage
from conftest import Cast

START, STOP = OperationKind.START, OperationKind.STOP


@pytest.fixture
def owner(client: Client, cast: Cast) -> Client:
    client.force_login(cast.owner)
    return client


def post(client: Client, operation: Operation, act: str, **body: Any) -> Any:
    return client.post(f"/api/v1/operations/{operation.pk}/{act}", body, content_type="application/json")


def ask(client: Client, stage: Stage, **body: Any) -> Any:
    return client.post(f"/api/v1/maps/{stage.map.pk}/operations", body, content_type="application/json")


def step_id(operation: Operation, name: str) -> str:
    return str(Step.objects.get(operation=operation, component_name=name).pk)


def test_an_operation_is_paused_and_resumed(owner: Client, stage: Stage) -> None:
    operation = stage.start(START)
    version = stage.fresh().version
    paused = post(owner, operation, "pause", reason="lunch")
    assert paused.status_code == 200
    assert paused.json()["pausedAt"] is not None
    [told] = describe_changes(stage.fresh(), version)["operations"]
    assert told["pausedAt"] is not None
    resumed = post(owner, operation, "resume").json()
    assert (resumed["pausedAt"], resumed["steeredBy"]["name"]) == (None, "Olivia")


def test_a_failed_step_is_tried_again_or_skipped(owner: Client, stage: Stage) -> None:
    operation = stage.start(START)
    stage.fail(operation, "start db")
    retried = post(owner, operation, "retry", steps=[step_id(operation, "db")]).json()
    assert (retried["state"], retried["counts"]["running"], retried["counts"]["waiting"]) == ("running", 1, 3)
    assert retried["steps"][0]["attempt"] == 2
    stage.fail(operation, "start db")
    skipped = post(owner, operation, "skip", step=step_id(operation, "db"), reason="it is up").json()
    assert (skipped["counts"]["waived"], skipped["counts"]["running"]) == (1, 2)


@pytest.mark.parametrize(
    ("act", "body", "status", "code"),
    [
        ("retry", {}, 409, "not_steerable"),
        ("retry", {"steps": [str(uuid.uuid4())]}, 404, "no_such_step"),
        ("retry", {"steps": ["db"]}, 400, "invalid"),
        ("skip", {}, 400, "invalid"),
        ("skip", {"step": str(uuid.uuid4()), "reason": "x"}, 404, "no_such_step"),
        ("skip", {"step": str(uuid.uuid4()), "reason": "  "}, 400, "invalid"),
        ("pause", {"reason": "x" * 501}, 400, "invalid"),
    ],
)
def test_what_cannot_be_is_refused_with_a_code(
    owner: Client, stage: Stage, act: str, body: dict[str, Any], status: int, code: str
) -> None:
    operation = stage.start(START)
    response = post(owner, operation, act, **body)
    assert (response.status_code, response.json()["code"]) == (status, code)


def test_a_step_of_another_operation_is_no_step_of_this_one(owner: Client, stage: Stage) -> None:
    other = stage.start(START, "db")
    stage.fail(other, "start db")
    operation = stage.start(START, "db")
    response = post(owner, operation, "skip", step=step_id(other, "db"), reason="x")
    assert (response.status_code, response.json()["code"]) == (404, "no_such_step")


@pytest.mark.parametrize("act", ["pause", "resume", "retry", "skip"])
def test_what_has_ended_well_stays_as_it_is(owner: Client, stage: Stage, act: str) -> None:
    operation = stage.start(START, "db")
    stage.succeed(operation, "start db")
    body = {"step": step_id(operation, "db"), "reason": "x"} if act == "skip" else {}
    response = post(owner, operation, act, **body)
    assert (response.status_code, response.json()["code"]) == (409, "not_steerable")


@pytest.mark.parametrize("act", ["pause", "resume", "cancel", "retry", "skip"])
def test_only_who_could_have_asked_for_it_steers_it(client: Client, cast: Cast, stage: Stage, act: str) -> None:
    operation = stage.start(START)
    for person, status in ((cast.outsider, 404), (cast.viewer, 403)):
        client.force_login(person)
        assert post(client, operation, act).status_code == status
    operation.refresh_from_db()
    assert (operation.state, operation.paused_at, operation.is_cancel_requested) == ("running", None, False)


def test_one_that_has_to_wait_is_accepted_and_shown_with_its_turn(owner: Client, stage: Stage) -> None:
    stage.set_states()
    first = ask(owner, stage, kind="stop", components=[str(pk) for pk in stage.ids("web")]).json()
    version = stage.fresh().version
    response = ask(owner, stage, kind="stop", ifHeld="queue")
    assert response.status_code == 202
    queued = response.json()
    assert (queued["state"], queued["steps"], queued["queue"]["position"]) == ("queued", [], 1)
    assert [item["id"] for item in queued["queue"]["waitsFor"]] == [first["id"]]
    [told] = describe_changes(stage.fresh(), version)["operations"]
    assert told["id"] == queued["id"]
    shown = owner.get(f"/api/v1/maps/{stage.map.pk}").json()
    assert {item["id"] for item in shown["operations"]} == {first["id"], queued["id"]}
    waiting = Operation.objects.get(pk=queued["id"])
    cancelled = post(owner, waiting, "cancel", reason="not today").json()
    assert (cancelled["state"], cancelled["queue"]) == ("cancelled", None)


def test_who_waits_is_named_to_who_comes_later_and_would_not_wait(owner: Client, stage: Stage) -> None:
    stage.set_states()
    ask(owner, stage, kind="stop", components=[str(pk) for pk in stage.ids("web")])
    queued = ask(owner, stage, kind="stop", ifHeld="queue").json()
    refused = ask(owner, stage, kind="stop", components=[str(pk) for pk in stage.ids("db")], scope="alone")
    assert (refused.status_code, refused.json()["code"], refused.json()["holders"]) == (409, "held", [])
    assert [item["id"] for item in refused.json()["ahead"]] == [queued["id"]]


def test_limits_and_policy_are_told(owner: Client, stage: Stage) -> None:
    created = ask(owner, stage, kind="start", failurePolicy="stop", maxParallel=3).json()
    assert (created["failurePolicy"], created["maxParallel"], created["isRollingBack"]) == ("stop", 3, False)


@pytest.mark.parametrize("body", [{"maxParallel": 0}, {"failurePolicy": "hope"}, {"ifHeld": "fight"}])
def test_a_wish_with_faults_is_refused(owner: Client, stage: Stage, body: dict[str, Any]) -> None:
    response = ask(owner, stage, kind="start", **body)
    assert (response.status_code, response.json()["code"]) == (400, "invalid")
    assert not Operation.objects.exists()


def test_a_map_that_asks_for_a_reason_says_so_and_refuses_without(owner: Client, stage: Stage) -> None:
    Map.objects.filter(pk=stage.map.pk).update(requires_reason=True)
    assert owner.get(f"/api/v1/maps/{stage.map.pk}").json()["requiresReason"] is True
    response = ask(owner, stage, kind="start")
    assert (response.status_code, response.json()["code"]) == (422, "reason_required")
    assert ask(owner, stage, kind="start", dryRun=True).status_code == 200
    assert ask(owner, stage, kind="start", reason="release").status_code == 201
