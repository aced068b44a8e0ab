"""Quarantine: watched, but no commands; and what happens when both come at once."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from django.db import connection, transaction
from django.test import Client

from apps.audit.models import AuditEvent
from apps.gateways.actions.claims import claim_commands, return_commands
from apps.gateways.actions.quarantine import quarantine_agent, release_agent, sweep_quarantine
from apps.gateways.enums import CommandState
from apps.gateways.exceptions import AgentQuarantinedError
from apps.gateways.models import Agent, Broadcast, Command, Gateway
from apps.gateways.signals import commands_ended
from apps.gateways.tests.callers import at_once
from apps.gateways.tests.factories import (
    SYSTEM,
    SimulatedAgent,
    claimed_ids,
    failing_audit,
    heard,
    job_started,
    make_agent,
    make_gateway,
    put,
    queue,
)
from apps.gateways.tests.fleets import make_fleet
from conftest import Cast

REASON = "it answers strangely"


def quarantine(agent: SimulatedAgent, reason: str = REASON) -> bool:
    return quarantine_agent(agent=agent.row, actor=SYSTEM, reason=reason)


def address_of(agent: SimulatedAgent, rest: str = "/quarantine") -> str:
    return f"/api/v1/agents/{agent.row.pk}{rest}"


def ask(client: Client, agent: SimulatedAgent, reason: str = REASON) -> Any:
    return client.post(address_of(agent), {"reason": reason}, content_type="application/json")


def test_what_waits_ends_with_the_reason_and_what_runs_goes_on(agent: SimulatedAgent) -> None:
    running, waiting = queue(agent), queue(agent)
    put(running, CommandState.STARTED)
    assert quarantine(agent)
    waiting.refresh_from_db()
    assert (waiting.state, waiting.finished_at is not None) == (CommandState.CANCELLED, True)
    assert REASON in waiting.detail
    running.refresh_from_db()
    assert running.state == CommandState.STARTED


def test_what_a_component_waits_for_is_told_to_have_ended(agent: SimulatedAgent) -> None:
    command = queue(agent, subject=agent.row.pk)
    with heard(commands_ended) as news:
        quarantine(agent)
    assert [[each.pk for each in told["commands"]] for told in news] == [[command.pk]]


def test_events_of_an_agent_in_quarantine_count(agent: SimulatedAgent) -> None:
    command = queue(agent)
    assert claimed_ids(agent.gateway) == [str(command.pk)]
    quarantine(agent)
    agent.receive(command)
    agent.report(job_started(command))
    command.refresh_from_db()
    assert command.state == CommandState.STARTED


def test_nothing_is_sent_again_either_until_it_is_released(agent: SimulatedAgent, gateway: Gateway) -> None:
    command = queue(agent)
    assert claimed_ids(gateway) == [str(command.pk)]
    Command.objects.update(lease_until=None)
    quarantine(agent)
    assert claimed_ids(gateway) == []
    release_agent(agent=agent.row, actor=SYSTEM)
    assert claimed_ids(gateway) == [str(command.pk)]


def test_a_command_for_it_is_refused_and_a_repeated_request_is_not(
    client: Client, cast: Cast, agent: SimulatedAgent
) -> None:
    client.force_login(cast.operator)
    body = {"command": {"type": "native", "name": "uptime"}}
    key = {"Idempotency-Key": "once"}

    def post(**headers: str) -> Any:
        return client.post(address_of(agent, "/commands"), body, content_type="application/json", headers=headers)

    first = post(**key).json()
    ask(client, agent)
    response = post()
    assert (response.status_code, response.json()["code"]) == (409, "agent_quarantined")
    assert REASON in response.json()["detail"]
    again = post(**key).json()
    assert (again["id"], again["state"]) == (first["id"], "cancelled")
    client.delete(address_of(agent))
    assert post().status_code == 202


def test_it_is_put_in_and_let_out_once_however_often_somebody_asks(
    client: Client, cast: Cast, agent: SimulatedAgent
) -> None:
    client.force_login(cast.operator)
    for reason in (REASON, "another one"):
        shown = ask(client, agent, reason).json()
        assert (shown["state"], shown["isOnline"], shown["quarantine"]["reason"]) == ("quarantined", True, REASON)
    for _ in range(2):
        shown = client.delete(address_of(agent)).json()
        assert (shown["state"], shown["quarantine"]) == ("online", None)
    events = AuditEvent.objects.filter(action__in=["agent.quarantined", "agent.released"]).order_by("id")
    assert [(event.action, event.actor["email"]) for event in events] == [
        ("agent.quarantined", "operator@acme.example"),
        ("agent.released", "operator@acme.example"),
    ]
    assert events[0].details == {"reason": REASON, "cancelledCommands": 0}


@pytest.mark.parametrize("reason", ["", "  ", "x" * 301, "a\0b"])
def test_there_is_no_quarantine_without_a_reason(
    client: Client, cast: Cast, agent: SimulatedAgent, reason: str
) -> None:
    client.force_login(cast.operator)
    assert ask(client, agent, reason).status_code == 400
    assert agent.row.quarantined_at is None


@pytest.mark.django_db(transaction=True)
def test_two_who_decide_at_once_decide_once(cast: Cast) -> None:
    agent = make_agent(make_gateway(cast.acme))
    answers = at_once(4, cast.operator, lambda client: ask(client, agent))
    assert {answer.status_code for answer in answers} == {200}
    assert AuditEvent.objects.filter(action="agent.quarantined").count() == 1


@pytest.mark.django_db(transaction=True)
def test_without_its_audit_event_there_is_no_quarantine(cast: Cast) -> None:
    agent = make_agent(make_gateway(cast.acme))
    command = queue(agent)
    with failing_audit(), pytest.raises(Exception, match="no_more_events"):
        quarantine(agent)
    command.refresh_from_db()
    assert (agent.row.quarantined_at, command.state) == (None, CommandState.QUEUED)


@pytest.mark.django_db(transaction=True)
def test_a_command_that_is_written_while_the_quarantine_begins_is_never_sent(cast: Cast) -> None:
    """Its transaction began before the quarantine and ends after it, so that neither sees the other."""
    agent = make_agent(make_gateway(cast.acme))
    row = agent.row
    is_written, may_commit = threading.Event(), threading.Event()

    def write() -> None:
        try:
            with transaction.atomic():
                queue(row)
                is_written.set()
                may_commit.wait(10)
        finally:
            connection.close()

    writer = threading.Thread(target=write)
    writer.start()
    assert is_written.wait(10)
    # It must not wait for the writer: an operation may write many commands before it is through.
    quarantine(agent)
    may_commit.set()
    writer.join(10)
    command = Command.objects.get()
    assert command.state == CommandState.QUEUED
    assert claimed_ids(agent.gateway) == []
    assert sweep_quarantine() == 1
    command.refresh_from_db()
    assert command.state == CommandState.CANCELLED
    assert REASON in command.detail
    assert sweep_quarantine() == 0


def test_what_a_gateway_gives_back_ends_too(agent: SimulatedAgent, gateway: Gateway) -> None:
    command = queue(agent)
    assert gateway.session_id is not None
    claimed = claim_commands(gateway_id=gateway.pk, session_id=gateway.session_id)
    quarantine(agent)
    return_commands(claimed)
    assert sweep_quarantine() == 1
    command.refresh_from_db()
    assert command.state == CommandState.CANCELLED


def broadcast(client: Client, **filter: Any) -> Any:
    body = {"command": {"type": "native", "name": "uptime"}, "filter": filter or {"all": True}}
    return client.post("/api/v1/broadcasts", body, content_type="application/json")


def test_a_broadcast_leaves_it_out_and_says_so(client: Client, cast: Cast, gateway: Gateway) -> None:
    client.force_login(cast.operator)
    agents = make_fleet(gateway, "web-1", "web-2", "web-3")
    quarantine_agent(agent=agents[1], actor=SYSTEM, reason=REASON)
    shown = broadcast(client).json()
    assert (shown["total"], shown["leftOut"], shown["leftOutAgents"]) == (2, 1, ["web-2"])
    event = AuditEvent.objects.get(action="broadcast.requested")
    assert (sorted(event.details["agents"]), event.details["leftOut"]) == (["web-1", "web-3"], ["web-2"])
    shown = client.get(f"/api/v1/broadcasts/{shown['id']}").json()
    assert (shown["leftOut"], len(shown["results"])) == (1, 2)


def test_a_broadcast_to_nobody_else_is_refused(client: Client, cast: Cast, gateway: Gateway) -> None:
    client.force_login(cast.operator)
    [agent] = make_fleet(gateway, "web-1")
    quarantine_agent(agent=agent, actor=SYSTEM, reason=REASON)
    response = broadcast(client, agentIds=["web-1"])
    assert (response.status_code, response.json()["code"]) == (409, "agent_quarantined")
    assert not Broadcast.objects.exists()


def test_a_stale_row_cannot_lift_a_quarantine(agent: SimulatedAgent) -> None:
    stale = agent.row
    quarantine(agent)
    fresh = Agent.objects.get(pk=stale.pk)
    with pytest.raises(AgentQuarantinedError, match=REASON):
        queue(fresh)
    # Whoever read the row before is not refused any more, but nothing is sent.
    queue(stale)
    assert claimed_ids(agent.gateway) == []
