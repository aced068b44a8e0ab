"""Asking for a command, and taking it back."""

from __future__ import annotations

import threading
import uuid
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction

from apps.audit.actor import Actor
from apps.audit.models import AuditEvent
from apps.gateways.actions.cancellations import claim_cancellations
from apps.gateways.actions.requests import cancel_command
from apps.gateways.enums import CommandState
from apps.gateways.exceptions import InvalidCommandError
from apps.gateways.models import Command, Gateway
from apps.gateways.tests.factories import (
    SYNC,
    SYSTEM,
    UPTIME,
    SimulatedAgent,
    claim,
    connect_gateway,
    failing_audit,
    make_agent,
    make_gateway,
    put,
    queue,
    somebody_waits_for_a_lock,
    wait_until,
)
from conftest import Cast


def events_of(action: str) -> list[AuditEvent]:
    return list(AuditEvent.objects.filter(action=action))


def cancellations(gateway: Gateway, session_id: uuid.UUID | None = None) -> list[tuple[str, str]]:
    session_id = session_id or Gateway.objects.get(pk=gateway.pk).session_id
    assert session_id is not None
    return claim_cancellations(gateway_id=gateway.pk, session_id=session_id)


def test_queue_command_writes_the_row_and_its_audit_event(cast: Cast, agent: SimulatedAgent) -> None:
    subject = uuid.uuid4()
    command = queue(agent, actor=Actor.person(cast.operator, ip="192.0.2.7"), subject=subject, epoch=3)

    row = Command.objects.get()
    assert row.pk == command.pk
    assert (row.state, row.agent_id, row.subject, row.epoch) == ("queued", agent.row.pk, subject, 3)
    assert row.requested_by["email"] == "operator@acme.example"
    assert 55 < (row.not_after - row.created_at).total_seconds() < 65
    [event] = events_of("command.requested")
    assert event.organization_id == cast.acme.pk
    assert event.actor["ip"] == "192.0.2.7"
    assert event.target == {"type": "command", "commandId": str(command.pk), "agentId": "srv-1"}
    assert event.details["command"] == UPTIME


def test_queue_command_leaves_nothing_without_its_audit_event(agent: SimulatedAgent) -> None:
    with failing_audit(), pytest.raises(IntegrityError), transaction.atomic():
        queue(agent)
    assert not Command.objects.exists()
    assert queue(agent).state == CommandState.QUEUED


def test_queue_command_wakes_the_gateway_once_it_is_committed(
    agent: SimulatedAgent, django_capture_on_commit_callbacks: Any
) -> None:
    with django_capture_on_commit_callbacks() as hints:
        queue(agent)
    assert len(hints) == 1


def test_queue_command_for_an_agent_without_gateway_needs_no_hint(
    agent: SimulatedAgent, django_capture_on_commit_callbacks: Any
) -> None:
    row = agent.row
    row.gateway = None
    row.save()
    with django_capture_on_commit_callbacks() as hints:
        assert queue(row).state == CommandState.QUEUED
    assert hints == []


def test_idempotency_key_of_the_same_person_is_the_same_command(cast: Cast, agent: SimulatedAgent) -> None:
    person = Actor.person(cast.operator)
    first = queue(agent, actor=person, idempotency_key="deploy-1")
    again = queue(agent, actor=person, idempotency_key="deploy-1")
    assert again.pk == first.pk
    assert Command.objects.count() == 1
    assert len(events_of("command.requested")) == 1


def test_idempotency_key_is_per_person_and_organization(cast: Cast, agent: SimulatedAgent) -> None:
    elsewhere = make_agent(make_gateway(cast.umbrella))
    commands = [
        queue(agent, actor=Actor.person(cast.operator), idempotency_key="deploy-1"),
        queue(agent, actor=Actor.person(cast.owner), idempotency_key="deploy-1"),
        queue(elsewhere, actor=Actor.person(cast.operator), idempotency_key="deploy-1"),
        queue(agent, actor=Actor.person(cast.operator), idempotency_key="deploy-2"),
        queue(agent, actor=Actor.person(cast.operator)),
        queue(agent, actor=Actor.person(cast.operator)),
    ]
    assert len({command.pk for command in commands}) == len(commands)


@pytest.mark.django_db(transaction=True)
def test_idempotency_key_holds_when_the_same_request_comes_twice_at_once(cast: Cast) -> None:
    agent = make_agent(make_gateway(cast.acme)).row
    found: list[uuid.UUID] = []

    def ask_again() -> None:
        try:
            found.append(queue(agent, idempotency_key="deploy-1").pk)
        finally:
            connection.close()

    with transaction.atomic():
        first = queue(agent, idempotency_key="deploy-1")
        # Does not see the first one yet, and waits for it at the unique index.
        other = threading.Thread(target=ask_again)
        other.start()
        wait_until(somebody_waits_for_a_lock)
    other.join(10)
    assert found == [first.pk]
    assert len(events_of("command.requested")) == 1


@pytest.mark.parametrize(
    ("spec", "execution", "names"),
    [
        ({"type": "shell", "line": "rm -rf /"}, SYNC, "type"),
        ({"type": "native"}, SYNC, "name"),
        ({"type": "execute", "path": 7}, SYNC, "path"),
        ({"type": "execute", "path": "/bin/true", "args": "all"}, SYNC, "args"),
        ({"type": "service_control", "service_name": "nginx", "action": "explode"}, SYNC, "action"),
        (UPTIME, {"type": "sync", "timeout_ms": "soon"}, "timeout_ms"),
        (UPTIME, {"type": "async", "completion_check": {"type": "port_open"}}, "completion_check.port"),
        (UPTIME, {}, "type"),
    ],
)
def test_queue_command_refuses_what_no_agent_understands(
    agent: SimulatedAgent, spec: dict[str, Any], execution: dict[str, Any], names: str
) -> None:
    with pytest.raises(InvalidCommandError, match=names):
        queue(agent, spec=spec, execution=execution)
    assert not Command.objects.exists()
    assert events_of("command.requested") == []


def test_cancel_command_ends_one_that_was_never_sent(cast: Cast, agent: SimulatedAgent) -> None:
    command = queue(agent)
    cancel_command(command=command, actor=Actor.person(cast.operator))
    command.refresh_from_db()
    assert command.state == CommandState.CANCELLED
    assert command.finished_at is not None
    assert claim(agent.gateway) == []
    [event] = events_of("command.cancel_requested")
    assert event.target["commandId"] == str(command.pk)
    assert event.actor["email"] == "operator@acme.example"


@pytest.mark.parametrize("state", [CommandState.SENT, CommandState.RECEIVED, CommandState.STARTED])
def test_cancel_command_asks_the_agent_for_the_end_of_what_was_sent(agent: SimulatedAgent, state: CommandState) -> None:
    command = put(queue(agent), state)
    cancel_command(command=command, actor=SYSTEM)
    command.refresh_from_db()
    assert command.state == state
    assert cancellations(agent.gateway) == [("srv-1", str(command.pk))]
    assert cancellations(agent.gateway) == []


def test_cancel_command_leaves_an_ended_one_alone(agent: SimulatedAgent) -> None:
    command = put(queue(agent), CommandState.SUCCEEDED)
    cancel_command(command=command, actor=SYSTEM)
    command.refresh_from_db()
    assert (command.state, command.is_cancel_requested) == (CommandState.SUCCEEDED, False)


@pytest.mark.parametrize("state", [CommandState.QUEUED, CommandState.STARTED])
def test_cancel_command_changes_nothing_without_its_audit_event(agent: SimulatedAgent, state: CommandState) -> None:
    command = put(queue(agent), state)
    with failing_audit(), pytest.raises(IntegrityError):
        cancel_command(command=command, actor=SYSTEM)
    command.refresh_from_db()
    assert (command.state, command.is_cancel_requested) == (state, False)


def test_cancellations_wait_for_the_session_that_counts(agent: SimulatedAgent) -> None:
    command = put(queue(agent), CommandState.STARTED)
    cancel_command(command=command, actor=SYSTEM)
    old = agent.gateway.session_id
    connect_gateway(agent.gateway)
    agent.connect()
    # A connection that was replaced would lose it: the agent is not behind it any more.
    assert cancellations(agent.gateway, old) == []
    assert len(cancellations(agent.gateway)) == 1


def test_cancellations_wait_for_an_agent_that_is_away(agent: SimulatedAgent) -> None:
    command = put(queue(agent), CommandState.STARTED)
    cancel_command(command=command, actor=SYSTEM)
    agent.disconnect()
    assert cancellations(agent.gateway) == []
    agent.connect()
    assert len(cancellations(agent.gateway)) == 1
