"""Maps as they live, and operations, over REST."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from django.conf import settings
from django.db import connection
from django.test import Client

from apps.gateways.models import Command
from apps.gateways.tests.factories import CommandOutcome, command_result, wait_until
from apps.maps.models import Map
from apps.operations import api
from apps.operations.enums import OperationKind
from apps.operations.models import Operation
from apps.operations.tests.factories import Stage, document, make_stage
from conftest import Cast
from opsmap.lib.health_key import HEADER, health_key

LOG = {"text": "ready\n", "size": 6, "offset": 0, "is_truncated": False}


@pytest.fixture
def owner(client: Client, cast: Cast) -> Client:
    client.force_login(cast.owner)
    return client


def ask(client: Client, stage: Stage, **body: Any) -> Any:
    return client.post(f"/api/v1/maps/{stage.map.pk}/operations", body, content_type="application/json")


def log_address(stage: Stage, name: str = "db") -> str:
    return f"/api/v1/components/{stage.component(name).pk}/log"


def test_maps_are_listed_with_their_state(owner: Client, stage: Stage) -> None:
    [shown] = owner.get("/api/v1/maps").json()["results"]
    assert (shown["name"], shown["componentCount"], shown["state"]) == ("Trading Platform", 4, "unknown")


def test_a_map_is_not_sent_again_while_nothing_changes(owner: Client, stage: Stage, cast: Cast) -> None:
    address = f"/api/v1/maps/{stage.map.pk}"
    first = owner.get(address)
    assert first.headers["Cache-Control"] == "private, no-cache"
    etag = {"If-None-Match": first.headers["ETag"]}
    assert owner.get(address, headers=etag).status_code == 304
    other = Client()
    other.force_login(cast.viewer)
    assert other.get(address, headers=etag).status_code == 200, "the answer says what a person may do"
    stage.agent.disconnect()
    assert owner.get(address, headers=etag).status_code == 200


def test_a_map_is_deleted_with_all_that_is_on_it_unless_an_operation_holds_it(owner: Client, stage: Stage) -> None:
    address = f"/api/v1/maps/{stage.map.pk}"
    operation = stage.start(OperationKind.START, "db")
    response = owner.delete(address)
    assert (response.status_code, response.json()["code"]) == (409, "map_busy")
    assert Map.objects.exists()
    stage.succeed(operation, "start db")
    assert owner.delete(address).status_code == 204
    assert not Map.objects.exists()
    assert not Operation.objects.exists()


def test_an_operation_is_created_shown_and_listed(owner: Client, stage: Stage) -> None:
    response = ask(owner, stage, kind="start", reason="after the outage")
    assert response.status_code == 201
    created = response.json()
    assert (created["kind"], created["state"], created["reason"]) == ("start", "running", "after the outage")
    assert created["counts"]["running"] == 1
    assert owner.get(f"/api/v1/operations/{created['id']}").json() == created
    assert owner.get(f"/api/v1/maps/{stage.map.pk}/operations").json()["results"] == [created]


def test_an_operation_on_chosen_components_with_a_scope(owner: Client, stage: Stage) -> None:
    body = {"kind": "start", "components": [str(pk) for pk in stage.ids("cache")], "scope": "alone"}
    created = ask(owner, stage, **body).json()
    assert [step["component"]["name"] for step in created["steps"]] == ["cache"]


def test_a_dry_run_answers_with_the_plan_whatever_stands_against_it(owner: Client, stage: Stage) -> None:
    stage.set_states(others="stopped")
    stage.agent.disconnect()
    stage.set_states(others="stopped")
    response = ask(owner, stage, kind="start", dryRun=True)
    assert response.status_code == 200
    assert response.json()["isExecutable"] is False
    assert {problem["code"] for step in response.json()["steps"] for problem in step["problems"]} == {"agent_offline"}


def test_what_is_held_is_a_conflict_that_names_the_holder(owner: Client, stage: Stage) -> None:
    stage.set_states()
    ask(owner, stage, kind="stop", components=[str(pk) for pk in stage.ids("web")])
    response = ask(owner, stage, kind="stop")
    assert response.status_code == 409
    problem = response.json()
    assert (problem["code"], problem["status"], problem["title"]) == ("held", 409, "Conflict")
    [holder] = problem["holders"]
    assert holder["component"]["name"] == "web"
    assert holder["operation"]["requestedBy"]["name"] == "Olivia"
    assert response.headers["Content-Type"] == "application/problem+json"


def test_what_cannot_be_executed_says_why(client: Client, cast: Cast, stage: Stage) -> None:
    client.force_login(cast.viewer)
    response = ask(client, stage, kind="start", components=[str(pk) for pk in stage.ids("db")])
    assert (response.status_code, response.json()["code"]) == (422, "not_executable")
    assert [problem["code"] for problem in response.json()["problems"]] == ["permission_denied"]
    assert not Operation.objects.exists()


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"kind": "explode"},
        {"kind": "start", "components": ["db"]},
        {"kind": "start", "scope": "everything"},
        {"kind": "start", "reason": "x" * 501},
        {"kind": "start", "dryRun": "perhaps"},
    ],
)
def test_a_request_with_faults_is_refused(owner: Client, stage: Stage, body: dict[str, Any]) -> None:
    response = ask(owner, stage, **body)
    assert (response.status_code, response.json()["code"]) == (400, "invalid")
    assert not Operation.objects.exists()


def test_an_operation_is_cancelled_by_who_could_have_asked_for_it(client: Client, cast: Cast, stage: Stage) -> None:
    stage.set_states({"db": "failed"})
    operation = stage.start(OperationKind.REPAIR)
    address = f"/api/v1/operations/{operation.pk}/cancel"
    for person, status in ((cast.outsider, 404), (cast.viewer, 403)):
        client.force_login(person)
        assert client.post(address, content_type="application/json").status_code == status
    operation.refresh_from_db()
    assert not operation.is_cancel_requested
    client.force_login(cast.operator)
    response = client.post(address, content_type="application/json")
    assert (response.status_code, response.json()["isCancelRequested"]) == (200, True)
    assert response.json()["counts"]["cancelled"] == 7


def test_a_component_shows_everything(owner: Client, stage: Stage) -> None:
    shown = owner.get(f"/api/v1/components/{stage.component('db').pk}").json()
    assert (shown["name"], shown["mapId"]) == ("db", str(stage.map.pk))
    assert {item["name"] for item in shown["dependents"]} == {"cache", "queue"}
    assert owner.get(f"/api/v1/components/{uuid.uuid4()}").status_code == 404


def test_the_log_of_what_never_ran_is_missing(owner: Client, stage: Stage) -> None:
    response = owner.get(log_address(stage))
    assert (response.status_code, response.json()["code"]) == (404, "no_log")
    assert not Command.objects.exists()


def test_the_log_of_a_host_that_is_away_is_unavailable(owner: Client, stage: Stage) -> None:
    stage.succeed(stage.start(OperationKind.START, "db"), "start db")
    stage.agent.disconnect()
    response = owner.get(log_address(stage))
    assert (response.status_code, response.json()["code"]) == (503, "agent_offline")
    assert Command.objects.count() == 1, "nothing is queued for later"


def test_the_log_of_a_host_that_does_not_answer_is_unavailable(
    owner: Client, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "LOG_TIMEOUT_S", 0.01)
    stage.succeed(stage.start(OperationKind.START, "db"), "start db")
    response = owner.get(log_address(stage))
    assert (response.status_code, response.json()["code"]) == (503, "log_unavailable")


def read_log(client: Client, stage: Stage, query: str, answer: Callable[[Command], Any]) -> Any:
    """The response for the log of db, while the host answers with `answer(command)`."""
    stage.succeed(stage.start(OperationKind.START, "db"), "start db")
    responses: list[Any] = []

    def read() -> None:
        try:
            responses.append(client.get(log_address(stage) + query))
        finally:
            connection.close()

    reading = threading.Thread(target=read)
    reading.start()
    wanted = Command.objects.filter(name="job_log")
    wait_until(wanted.exists)
    stage.agent.report(answer(wanted.get()))
    reading.join(10)
    [response] = responses
    return response


@pytest.mark.django_db(transaction=True)
def test_the_log_comes_from_the_host(client: Client, cast: Cast) -> None:
    client.force_login(cast.viewer)
    response = read_log(client, make_stage(cast), "", lambda command: command_result(command, result=LOG))
    job = Command.objects.get(name="start")
    assert Command.objects.get(name="job_log").spec["params"] == {"request_id": str(job.pk), "max_bytes": 16384}
    assert response.status_code == 200
    shown = {"text": "ready\n", "size": 6, "offset": 0, "isTruncated": False, "commandId": str(job.pk)}
    assert response.json() == shown


@pytest.mark.parametrize(
    ("wanted", "asked"),
    [("100", 100), ("99999999", 262_144), ("0", 16384), ("-5", 16384), ("²", 16384), ("x", 16384), ("9" * 5000, 16384)],
)
def test_the_log_is_asked_for_in_bytes_within_a_limit(
    owner: Client, stage: Stage, monkeypatch: pytest.MonkeyPatch, wanted: str, asked: int
) -> None:
    monkeypatch.setattr(api, "LOG_TIMEOUT_S", 0)
    stage.succeed(stage.start(OperationKind.START, "db"), "start db")
    assert owner.get(log_address(stage), {"bytes": wanted}).status_code == 503
    assert Command.objects.get(name="job_log").spec["params"]["max_bytes"] == asked


@pytest.mark.django_db(transaction=True)
def test_a_refused_log_says_what_the_host_said(client: Client, cast: Cast) -> None:
    client.force_login(cast.viewer)
    refusal = {"outcome": CommandOutcome.REJECTED, "error": "job_log is switched off here"}
    response = read_log(client, make_stage(cast), "", lambda command: command_result(command, **refusal))
    assert (response.status_code, response.json()["code"]) == (503, "log_unavailable")
    assert response.json()["detail"] == "job_log is switched off here"


def test_the_log_belongs_to_who_may_read_it(client: Client, cast: Cast, stage: Stage) -> None:
    client.force_login(cast.outsider)
    assert client.get(log_address(stage)).status_code == 404
    assert client.get(f"/api/v1/components/{stage.component('db').pk}").status_code == 404


def test_health_tells_how_much_is_connected_only_by_its_key(client: Client, stage: Stage) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/healthz", headers={HEADER: "guessed"}).json() == {"status": "ok"}
    key = health_key(settings.SECRET_KEY)
    assert client.get("/healthz", headers={HEADER: key}).json() == {
        "status": "ok",
        "gateways_online": 1,
        "agents_online": 1,
    }


def test_an_operation_can_be_about_a_group_or_labels(owner: Client, cast: Cast) -> None:
    documents = [document("db", group="data"), document("web", ["db"], group="front"), document("job", group="front")]
    documents[1]["metadata"]["labels"] = {"team": "trading"}
    stage = make_stage(cast, documents=documents)

    def touched(**wish: Any) -> list[str]:
        answer = ask(owner, stage, kind="start", dryRun=True, scope="alone", **wish)
        assert answer.status_code == 200, answer.content
        return sorted(step["component"]["name"] for step in answer.json()["steps"])

    assert touched(group="front") == ["job", "web"]
    assert touched(labels="team=trading") == ["web"]
    assert touched(labels="team!=trading") == ["db", "job"]
    assert touched(group="front", labels="!team") == ["job"]
    assert touched() == ["db", "job", "web"]


@pytest.mark.parametrize(
    "wish",
    [
        {"kind": "stop", "labels": "team=nobody"},
        {"kind": "stop", "group": "nothing"},
        {"kind": "stop", "labels": "team="},
        {"kind": "stop", "group": "services", "components": [str(uuid.uuid4())]},
        {"kind": "repair", "group": "services"},
        {"kind": "repair", "components": [str(uuid.uuid4())]},
        {"kind": "stop", "dryRun": True, "format": "svg"},
    ],
)
def test_a_choice_that_means_nothing_never_means_the_whole_map(
    owner: Client, stage: Stage, wish: dict[str, Any]
) -> None:
    stage.set_states()
    answer = ask(owner, stage, **wish)
    assert answer.status_code == 400
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert not Operation.objects.exists()


def test_a_dry_run_can_be_read_aloud_and_drawn(owner: Client, stage: Stage) -> None:
    text = ask(owner, stage, kind="start", dryRun=True, format="text")
    assert text.headers["Content-Type"] == "text/plain; charset=utf-8"
    lines = text.content.decode().splitlines()
    assert lines[0] == "Start: Trading Platform"
    assert "1. Start db." in lines
    assert "4. Start web, once cache runs (web needs cache) and queue runs (web needs queue)." in lines

    drawn = ask(owner, stage, kind="start", dryRun=True, format="mermaid").content.decode()
    assert drawn.startswith('flowchart LR\n  s0["start db"]:::start\n')


def test_a_dry_run_in_words_says_what_stands_against_it(owner: Client, stage: Stage) -> None:
    stage.agent.disconnect()
    stage.set_states(others="stopped")
    text = ask(owner, stage, kind="start", dryRun=True, format="text").content.decode()
    assert "What stands against it:\n- db: the agent srv-1 is not connected.\n" in text
