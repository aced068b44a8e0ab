"""Which commands a gateway's connection gets to send, and when again."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
from django.db import connection, transaction
from django.utils import timezone

from apps.gateways.actions.claims import CLAIM_BATCH, LEASE, claim_commands, return_commands
from apps.gateways.enums import CommandState
from apps.gateways.models import Command
from apps.gateways.tests.factories import (
    SYNC,
    UPTIME,
    SimulatedAgent,
    claim,
    claimed_ids,
    connect_gateway,
    later,
    make_agent,
    make_gateway,
    put,
    queue,
)
from conftest import Cast


def end_lease(command: Command) -> None:
    Command.objects.filter(pk=command.pk).update(lease_until=timezone.now() - timedelta(milliseconds=1))


def test_claim_gives_the_frame_and_leases_the_command(agent: SimulatedAgent) -> None:
    command = queue(agent, epoch=4)
    [frame] = claim(agent.gateway)
    assert frame["type"] == "command"
    assert (frame["request_id"], frame["target_agent"], frame["epoch"]) == (str(command.pk), "srv-1", 4)
    assert frame["command"]["name"] == "uptime"
    assert frame["execution_mode"]["type"] == "sync"
    command.refresh_from_db()
    assert (command.state, command.fence) == (CommandState.SENT, 1)
    assert command.sent_at is not None
    assert command.lease_until == command.sent_at + LEASE


def test_claim_does_not_give_a_leased_command_twice(agent: SimulatedAgent) -> None:
    queue(agent)
    assert len(claim(agent.gateway)) == 1
    assert claim(agent.gateway) == []


def test_claim_gives_a_command_again_once_its_lease_has_ended(agent: SimulatedAgent) -> None:
    command = queue(agent)
    [first] = claim(agent.gateway)
    end_lease(command)
    assert claim(agent.gateway) == [first], "the same id and content: the agent knows that it has seen it"
    command.refresh_from_db()
    assert (command.state, command.fence) == (CommandState.SENT, 2)
    assert claim(agent.gateway) == []


def test_claim_leaves_what_the_agent_has_answered(agent: SimulatedAgent) -> None:
    command = queue(agent)
    claim(agent.gateway)
    agent.receive(command)
    assert claim(agent.gateway) == []
    end_lease(command)
    assert claim(agent.gateway) == []


@pytest.mark.parametrize("state", [state for state in CommandState if state not in {"queued", "sent"}])
def test_claim_leaves_commands_that_have_begun_or_ended(agent: SimulatedAgent, state: CommandState) -> None:
    put(queue(agent), state)
    assert claim(agent.gateway) == []


def test_claim_is_for_the_agents_of_this_gateway_only(cast: Cast, agent: SimulatedAgent) -> None:
    other = make_agent(make_gateway(cast.acme, "gw-2"), "srv-2")
    mine, theirs = queue(agent), queue(other)
    assert claimed_ids(agent.gateway) == [str(mine.pk)]
    assert claimed_ids(other.gateway) == [str(theirs.pk)]


def test_claim_follows_an_agent_to_another_gateway(cast: Cast, agent: SimulatedAgent) -> None:
    command = queue(agent)
    old = agent.gateway
    claim(old)
    agent.connect(make_gateway(cast.acme, "gw-2"))
    assert claimed_ids(old) == []
    assert claimed_ids(agent.gateway) == [str(command.pk)], "at once, not after the lease of the old way"


def test_claim_waits_for_an_agent_that_is_away(agent: SimulatedAgent) -> None:
    command = queue(agent)
    agent.disconnect()
    assert claim(agent.gateway) == []
    agent.connect()
    assert claimed_ids(agent.gateway) == [str(command.pk)]


def test_claim_by_a_replaced_session_gets_nothing(agent: SimulatedAgent) -> None:
    command = queue(agent)
    old = agent.gateway.session_id
    connect_gateway(agent.gateway)
    assert claimed_ids(agent.gateway, old) == []
    assert claimed_ids(agent.gateway) == [], "the agent has to prove first that it is behind the new one"
    agent.connect()
    assert claimed_ids(agent.gateway) == [str(command.pk)]


def test_claim_never_sends_what_must_not_begin_any_more(agent: SimulatedAgent) -> None:
    late = queue(agent)
    sent = put(queue(agent), CommandState.SENT)
    Command.objects.update(not_after=timezone.now())
    assert claim(agent.gateway) == []
    in_time = queue(agent)
    assert claimed_ids(agent.gateway) == [str(in_time.pk)]
    late.refresh_from_db()
    sent.refresh_from_db()
    assert (late.state, sent.state) == (CommandState.QUEUED, CommandState.SENT)


def test_claim_takes_a_batch_oldest_first(agent: SimulatedAgent) -> None:
    row = agent.row
    commands = Command.objects.bulk_create(
        Command(
            organization_id=row.organization_id,
            agent=row,
            name="uptime",
            spec=UPTIME,
            execution=SYNC,
            timeout_ms=5000,
            not_after=later(seconds=60),
        )
        for _ in range(CLAIM_BATCH + 1)
    )
    ids = sorted(str(command.pk) for command in commands)
    assert claimed_ids(agent.gateway) == ids[:CLAIM_BATCH]
    assert claimed_ids(agent.gateway) == ids[CLAIM_BATCH:]


@pytest.mark.django_db(transaction=True)
def test_claim_skips_what_another_connection_is_claiming(cast: Cast) -> None:
    agent = make_agent(make_gateway(cast.acme))
    taken, free = queue(agent), queue(agent)
    put(free, CommandState.QUEUED, lease_until=later(seconds=10))
    found: list[list[str]] = []

    def claim_too() -> None:
        try:
            found.append(claimed_ids(agent.gateway))
        finally:
            connection.close()

    with transaction.atomic():
        assert claimed_ids(agent.gateway) == [str(taken.pk)]
        other = threading.Thread(target=claim_too)
        other.start()
        other.join(10)
        assert found == [[]], "neither waited for nor taken twice"
    assert claimed_ids(agent.gateway) == []


def test_a_refused_command_is_free_again_a_moment_later(agent: SimulatedAgent) -> None:
    command = queue(agent)
    claim(agent.gateway)
    agent.refuse(command)
    command.refresh_from_db()
    assert command.state == CommandState.QUEUED
    assert command.detail == "the queue of srv-1 is full"
    assert claim(agent.gateway) == [], "not at once: the gateway has just refused it"
    end_lease(command)
    assert claimed_ids(agent.gateway) == [str(command.pk)]


def test_a_refusal_that_comes_late_changes_nothing(agent: SimulatedAgent) -> None:
    command = queue(agent)
    claim(agent.gateway)
    agent.receive(command)
    agent.refuse(command)
    command.refresh_from_db()
    assert command.state == CommandState.RECEIVED


def test_what_was_claimed_and_not_sent_is_as_it_was(agent: SimulatedAgent) -> None:
    first, again = queue(agent), put(queue(agent), CommandState.SENT, fence=1, sent_at=timezone.now())
    before = list(Command.objects.order_by("pk").values())
    assert agent.gateway.session_id is not None
    claimed = claim_commands(gateway_id=agent.gateway.pk, session_id=agent.gateway.session_id)
    assert {command.id for command in claimed} == {first.pk, again.pk}
    return_commands(claimed)
    assert list(Command.objects.order_by("pk").values()) == before


def test_what_somebody_else_has_claimed_since_is_not_returned(agent: SimulatedAgent) -> None:
    command = queue(agent)
    assert agent.gateway.session_id is not None
    claimed = claim_commands(gateway_id=agent.gateway.pk, session_id=agent.gateway.session_id)
    end_lease(command)
    assert claimed_ids(agent.gateway) == [str(command.pk)]
    return_commands(claimed)
    command.refresh_from_db()
    assert (command.state, command.fence) == (CommandState.SENT, 2)
    assert command.lease_until is not None
