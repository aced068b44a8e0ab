"""Gateways, agents and single commands over REST."""

from __future__ import annotations

import threading
import time
import uuid
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from channels.layers import get_channel_layer
from django.db import connection
from django.test import Client

from apps.audit.models import AuditEvent
from apps.gateways.dispatch import gateway_group
from apps.gateways.enums import CommandState
from apps.gateways.models import Command, Gateway
from apps.gateways.tasks import poll_running_jobs, sweep_commands
from apps.gateways.tests.callers import at_once
from apps.gateways.tests.factories import (
    DETACHED,
    SimulatedAgent,
    claim,
    command_result,
    job_started,
    make_agent,
    make_gateway,
    put,
    queue,
)
from conftest import Cast

UPTIME_BODY = {"command": {"type": "native", "name": "uptime"}, "timeoutMs": 2000}


def post(client: Client, agent_id: Any, body: Any = UPTIME_BODY, **headers: str) -> Any:
    return client.post(f"/api/v1/agents/{agent_id}/commands", body, content_type="application/json", headers=headers)


def test_agents_and_gateways_of_my_organizations_are_listed(client: Client, cast: Cast, agent: SimulatedAgent) -> None:
    make_agent(make_gateway(cast.umbrella, "gw-umbrella"), "srv-umbrella")
    client.force_login(cast.viewer)
    [shown] = client.get("/api/v1/agents").json()["results"]
    assert (shown["agentId"], shown["isOnline"], shown["gateway"]) == ("srv-1", True, "gw-1")
    [shown] = client.get("/api/v1/gateways").json()["results"]
    assert (shown["gatewayId"], shown["zone"], shown["isOnline"]) == ("gw-1", "paris", True)
    client.force_login(cast.outsider)
    [shown] = client.get("/api/v1/agents").json()["results"]
    assert shown["agentId"] == "srv-umbrella"


def test_a_command_is_accepted_queued_and_audited(client: Client, cast: Cast, agent: SimulatedAgent) -> None:
    client.force_login(cast.operator)
    response = post(client, agent.row.pk)
    assert response.status_code == 202
    command = Command.objects.get()
    assert response.json()["id"] == str(command.pk)
    assert (response.json()["state"], response.json()["name"]) == ("queued", "uptime")
    assert command.execution == {"type": "sync", "timeout_ms": 2000}
    event = AuditEvent.objects.get(action="command.requested")
    assert (event.actor["email"], event.actor["ip"]) == ("operator@acme.example", "127.0.0.1")


def test_an_idempotency_key_makes_a_repeated_request_harmless(
    client: Client, cast: Cast, agent: SimulatedAgent
) -> None:
    key = {"Idempotency-Key": "once"}
    client.force_login(cast.operator)
    first, again = post(client, agent.row.pk, **key), post(client, agent.row.pk, **key)
    client.force_login(cast.owner)
    other = post(client, agent.row.pk, **key)
    assert first.json()["id"] == again.json()["id"] != other.json()["id"]
    assert Command.objects.count() == 2


def test_a_key_stands_for_one_command_only(client: Client, cast: Cast, agent: SimulatedAgent) -> None:
    other = make_agent(agent.gateway, "srv-2")
    client.force_login(cast.operator)
    key = {"Idempotency-Key": "once"}
    post(client, agent.row.pk, **key)
    for agent_id, body in ((other.row.pk, UPTIME_BODY), (agent.row.pk, UPTIME_BODY | {"timeoutMs": 9000})):
        response = post(client, agent_id, body, **key)
        assert (response.status_code, response.json()["code"]) == (409, "idempotency_key_reused")
    # Cut short, two long keys might be the same one.
    assert post(client, agent.row.pk, **{"Idempotency-Key": "k" * 121}).status_code == 400
    assert Command.objects.count() == 1


def test_a_repeated_request_finds_its_command_also_when_the_agent_has_gone(
    client: Client, cast: Cast, agent: SimulatedAgent
) -> None:
    key = {"Idempotency-Key": "once"}
    client.force_login(cast.operator)
    first = post(client, agent.row.pk, **key)
    agent.disconnect()
    again = post(client, agent.row.pk, **key)
    assert (again.status_code, again.json()["id"]) == (202, first.json()["id"])
    assert post(client, agent.row.pk, **{"Idempotency-Key": "twice"}).status_code == 503
    assert Command.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_the_same_request_several_times_at_once_is_one_command(cast: Cast) -> None:
    agent_id = make_agent(make_gateway(cast.acme)).row.pk
    answers = at_once(4, cast.operator, lambda client: post(client, agent_id, **{"Idempotency-Key": "once"}))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert Command.objects.count() == 1
    assert AuditEvent.objects.filter(action="command.requested").count() == 1


def test_a_command_for_an_agent_that_is_away_is_refused(client: Client, cast: Cast, agent: SimulatedAgent) -> None:
    agent.disconnect()
    client.force_login(cast.operator)
    response = post(client, agent.row.pk)
    assert (response.status_code, response.json()["code"]) == (503, "agent_offline")
    assert response.headers["Content-Type"] == "application/problem+json"
    assert not Command.objects.exists()


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({}, "invalid"),
        ({"command": "uptime"}, "invalid"),
        ({"command": {"type": "native", "name": "upt\0ime"}}, "invalid"),
        ({"command": {"type": "native", "name": "uptime", "params": {"a": ["\ud800"]}}}, "invalid"),
        (UPTIME_BODY | {"timeoutMs": 1}, "invalid"),
        ({"command": {"type": "shell", "line": "ls"}}, "invalid_command"),
        ({"command": {"type": "native", "name": "uptime"}, "execution": {"type": "later"}}, "invalid_command"),
    ],
)
def test_a_command_with_faults_is_refused(
    client: Client, cast: Cast, agent: SimulatedAgent, body: dict[str, Any], code: str
) -> None:
    client.force_login(cast.operator)
    response = post(client, agent.row.pk, body)
    assert (response.status_code, response.json()["code"]) == (400, code)
    assert not Command.objects.exists()


def test_a_number_that_no_database_keeps_is_refused(client: Client, cast: Cast, agent: SimulatedAgent) -> None:
    client.force_login(cast.operator)
    body = '{"command": {"type": "native", "name": "uptime", "params": {"a": 1e999}}}'
    response = client.post(f"/api/v1/agents/{agent.row.pk}/commands", body, content_type="application/json")
    assert (response.status_code, response.json()["code"]) == (400, "invalid")


def test_who_only_watches_may_not_command(client: Client, cast: Cast, agent: SimulatedAgent) -> None:
    client.force_login(cast.viewer)
    assert post(client, agent.row.pk).status_code == 403
    client.force_login(cast.outsider)
    assert post(client, agent.row.pk).status_code == 404
    assert not Command.objects.exists()


def test_a_command_shows_its_delivery(client: Client, cast: Cast, agent: SimulatedAgent) -> None:
    command = queue(agent)
    address = f"/api/v1/commands/{command.pk}"
    client.force_login(cast.viewer)
    shown = client.get(address).json()
    assert (shown["sentAt"], shown["receivedAt"], shown["startedAt"], shown["finishedAt"]) == (None, None, None, None)
    assert shown["createdAt"] < shown["notAfter"]
    assert (shown["isCancelRequested"], shown["output"], shown["broadcastId"]) == (False, {}, None)
    moments = {"sent_at": command.created_at, "received_at": command.not_after}
    put(command, CommandState.RECEIVED, is_cancel_requested=True, **moments)
    shown = client.get(address).json()
    assert (shown["sentAt"], shown["receivedAt"], shown["isCancelRequested"]) == (
        shown["createdAt"],
        shown["notAfter"],
        True,
    )


def test_a_command_shows_how_it_went(client: Client, cast: Cast, agent: SimulatedAgent) -> None:
    command = queue(agent)
    claim(agent.gateway)
    agent.report(command_result(command, result={"seconds": 99, "exit_code": 0}, duration_ms=12))
    client.force_login(cast.viewer)
    shown = client.get(f"/api/v1/commands/{command.pk}?wait=5").json()
    assert (shown["state"], shown["durationMs"], shown["exitCode"]) == ("succeeded", 12, 0)
    assert shown["result"] == {"seconds": 99, "exit_code": 0}
    assert client.get(f"/api/v1/commands/{uuid.uuid4()}").status_code == 404


@pytest.mark.parametrize("wait", ["", "x", "-1", "0", "0.5", "²"])
def test_a_command_is_shown_at_once_without_a_whole_number_of_seconds(
    client: Client, cast: Cast, agent: SimulatedAgent, wait: str
) -> None:
    command = queue(agent)
    client.force_login(cast.viewer)
    assert client.get(f"/api/v1/commands/{command.pk}", {"wait": wait}).json()["state"] == "queued"


@pytest.mark.django_db(transaction=True)
def test_waiting_for_a_command_ends_with_it(client: Client, cast: Cast) -> None:
    agent = make_agent(make_gateway(cast.acme))
    command = queue(agent)
    client.force_login(cast.viewer)
    shown: list[dict[str, Any]] = []

    def wait() -> None:
        try:
            shown.append(client.get(f"/api/v1/commands/{command.pk}?wait=20").json())
        finally:
            connection.close()

    waiting = threading.Thread(target=wait)
    waiting.start()
    agent.report(command_result(command))
    waiting.join(10)
    assert [answer["state"] for answer in shown] == ["succeeded"]


@pytest.mark.django_db(transaction=True)
def test_asking_for_a_command_may_wait_for_its_end(client: Client, cast: Cast) -> None:
    agent = make_agent(make_gateway(cast.acme))
    client.force_login(cast.operator)
    answers: list[Any] = []

    def ask() -> None:
        try:
            address = f"/api/v1/agents/{agent.row.pk}/commands?wait=20"
            answers.append(client.post(address, UPTIME_BODY, content_type="application/json"))
        finally:
            connection.close()

    asking = threading.Thread(target=ask)
    asking.start()
    deadline = time.monotonic() + 10
    while not Command.objects.exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    agent.report(command_result(Command.objects.get()))
    asking.join(10)
    assert [(answer.status_code, answer.json()["state"]) for answer in answers] == [(200, "succeeded")]


def test_cancelling_needs_the_right_to_command(client: Client, cast: Cast, agent: SimulatedAgent) -> None:
    command = queue(agent)
    address = f"/api/v1/commands/{command.pk}/cancel"
    for person, status in ((cast.outsider, 404), (cast.viewer, 403)):
        client.force_login(person)
        assert client.post(address).status_code == status
    command.refresh_from_db()
    assert command.state == CommandState.QUEUED
    client.force_login(cast.operator)
    response = client.post(address)
    assert (response.status_code, response.json()["state"]) == (202, "cancelled")


@pytest.mark.django_db(transaction=True)
def test_the_tasks_ask_about_jobs_and_sweep(cast: Cast) -> None:
    agent = make_agent(make_gateway(cast.acme))
    job, late = queue(agent, execution=DETACHED), queue(agent)
    agent.report(job_started(job))
    Command.objects.filter(pk=job.pk).update(next_poll_at=job.created_at)
    put(late, CommandState.QUEUED, not_after=late.created_at)

    async def polls() -> dict[str, Any]:
        layer = get_channel_layer()
        channel = await layer.new_channel()
        await layer.group_add(gateway_group(agent.gateway.pk), channel)
        await sync_to_async(poll_running_jobs)()
        message: dict[str, Any] = await layer.receive(channel)
        return message

    message = async_to_sync(polls)()
    assert (message["type"], message["jobs"]) == ("link.ask", {"srv-1": [f"job-{job.pk}"]})
    Gateway.objects.update(last_seen_at=job.created_at - timedelta(hours=1))
    sweep_commands()
    late.refresh_from_db()
    assert late.state == CommandState.EXPIRED
    assert not Gateway.objects.get().is_online
