"""Whoever carries a cancellation may die with it: it is told again, until its command has ended."""

from __future__ import annotations

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from apps.gateways.actions.cancellations import claim_cancellations
from apps.gateways.actions.requests import cancel_command
from apps.gateways.enums import CommandState
from apps.gateways.models import Command, Gateway
from apps.gateways.signals import commands_ended
from apps.gateways.tests.factories import (
    DETACHED,
    SYSTEM,
    SimulatedAgent,
    claim,
    claimed_ids,
    command_result,
    heard,
    job_started,
    later,
    make_agent,
    make_gateway,
    put,
    queue,
)
from apps.gateways.tests.sockets import LinkedAgent, LinkPki, connected, hear, hear_nothing, in_database, say
from conftest import Cast
from opsmap_protocol.enums import CommandOutcome


def cancelled(agent: SimulatedAgent, state: CommandState = CommandState.STARTED) -> Command:
    """A command that is on its host and shall end."""
    command = put(queue(agent, execution=DETACHED), state)
    cancel_command(command=command, actor=SYSTEM)
    return command


def told(gateway: Gateway) -> list[str]:
    """The request ids that the gateway's session passes on now."""
    session_id = Gateway.objects.values_list("session_id", flat=True).get(pk=gateway.pk)
    assert session_id is not None
    return [request_id for _, request_id in claim_cancellations(gateway_id=gateway.pk, session_id=session_id)]


def let_leases_end() -> None:
    Command.objects.update(cancel_lease_until=later(milliseconds=-1), lease_until=later(milliseconds=-1))


def test_it_is_told_again_until_the_command_has_ended(agent: SimulatedAgent) -> None:
    command = cancelled(agent)
    for _ in range(3):
        assert told(agent.gateway) == [str(command.pk)]
        assert told(agent.gateway) == []
        let_leases_end()
    agent.report(command_result(command, CommandOutcome.CANCELLED))
    assert told(agent.gateway) == []
    command.refresh_from_db()
    assert command.state == CommandState.CANCELLED


def test_it_is_told_at_once_by_another_session_of_the_agent(cast: Cast, agent: SimulatedAgent) -> None:
    command, first, second = cancelled(agent), agent.gateway, make_gateway(cast.acme, "gw-2")
    assert told(first) == [str(command.pk)]
    agent.connect()
    assert told(first) == [str(command.pk)], "the agent may have come anew, and not know of it"
    agent.connect(second)
    assert (told(first), told(second)) == ([], [str(command.pk)])


def test_it_is_told_after_its_command_is_sent_again(agent: SimulatedAgent) -> None:
    """Told before, it would mean nothing to an agent that the command has not reached."""
    command = queue(agent)
    claim(agent.gateway)
    cancel_command(command=command, actor=SYSTEM)
    assert told(agent.gateway) == [str(command.pk)]
    Command.objects.update(lease_until=later(milliseconds=-1))
    assert claimed_ids(agent.gateway) == [str(command.pk)]
    assert told(agent.gateway) == [str(command.pk)]


def test_what_is_back_in_the_queue_ends_without_being_sent(agent: SimulatedAgent) -> None:
    command = queue(agent, subject=agent.row.pk)
    claim(agent.gateway)
    cancel_command(command=command, actor=SYSTEM)
    agent.refuse(command)
    let_leases_end()
    assert claimed_ids(agent.gateway) == []
    with heard(commands_ended) as news:
        assert told(agent.gateway) == []
    command.refresh_from_db()
    assert command.state == CommandState.CANCELLED
    assert [ended.pk for each in news for ended in each["commands"]] == [command.pk]


def test_what_may_have_reached_its_host_is_not_called_cancelled_because_a_later_try_was_refused(
    agent: SimulatedAgent,
) -> None:
    command = queue(agent)
    claim(agent.gateway)
    let_leases_end()
    claim(agent.gateway)
    agent.refuse(command)
    command.refresh_from_db()
    assert (command.state, command.fence) == (CommandState.SENT, 1)
    assert command.sent_at is not None
    cancel_command(command=command, actor=SYSTEM)
    agent.report(command_result(command))
    command.refresh_from_db()
    assert command.state == CommandState.SUCCEEDED


def test_a_pass_is_bounded_and_gets_through_all(agent: SimulatedAgent) -> None:
    other = make_agent(agent.gateway, "srv-2")
    wanted = {str(cancelled(each).pk) for each in (agent, other) for _ in range(75)}
    first = told(agent.gateway)
    with CaptureQueriesContext(
        connection,
    ) as queries:
        second = told(agent.gateway)
    assert (len(first), len(second), len(queries)) == (100, 50, 2)
    assert {*first, *second} == wanted


# By the link


@pytest.fixture
def linked(cast: Cast, pki: LinkPki) -> LinkedAgent:
    return LinkedAgent(pki, cast.acme.pk, is_preferred=True)


async def started_and_cancelled(communicator: object, agent: LinkedAgent) -> str:
    command = await in_database(lambda: queue(agent.row, execution=DETACHED))
    await hear(communicator, "command")
    await say(communicator, agent.events(job_started(command)))
    await hear(communicator, "events_ack")
    await in_database(lambda: cancel_command(command=Command.objects.get(), actor=SYSTEM))
    return str(command.pk)


@pytest.mark.django_db(transaction=True)
async def test_a_gateway_that_takes_a_cancellation_and_dies_does_not_take_it_away(
    gateway_pem: str, linked: LinkedAgent
) -> None:
    async with connected(gateway_pem) as communicator:
        await linked.come_in(communicator)
        request_id = await started_and_cancelled(communicator, linked)
        assert (await hear(communicator, "cancel_command"))["request_id"] == request_id
    async with connected(gateway_pem) as communicator:
        await linked.come_in(communicator)
        assert (await hear(communicator, "cancel_command"))["request_id"] == request_id
        await hear_nothing(communicator, "cancel_command")


@pytest.mark.django_db(transaction=True)
async def test_the_other_gateway_tells_the_cancellation_that_the_first_one_took(
    cast: Cast, pki: LinkPki, gateway_pem: str, linked: LinkedAgent
) -> None:
    other_pem = await in_database(pki.gateway_pem, cast.acme, "gw-2")
    other = linked.twin(is_preferred=False)
    async with connected(other_pem, "gw-2") as second:
        async with connected(gateway_pem) as first:
            await linked.come_in(first)
            await other.stand_by(second)
            request_id = await started_and_cancelled(first, linked)
            await hear(first, "cancel_command")
            await hear_nothing(second, "cancel_command")
        assert (await hear(second, "resume"))["target_agent"] == "srv-1"
        assert (await hear(second, "cancel_command"))["request_id"] == request_id
