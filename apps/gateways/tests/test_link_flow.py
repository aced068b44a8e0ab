"""What else goes by the link: credits, broadcasts, questions about lost commands, output, keys."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import transaction
from django.utils import timezone

from apps.audit.models import AuditEvent
from apps.gateways.actions.authorities import rotate_signing_key
from apps.gateways.enums import CommandState
from apps.gateways.models import Agent, Broadcast, Command, CommandOutput
from apps.gateways.tasks import poll_running_jobs
from apps.gateways.tests.factories import AT, DETACHED, SYNC, SYSTEM, UPTIME, command_result, job_started, put, queue
from apps.gateways.tests.sockets import (
    Communicator,
    LinkedAgent,
    LinkPki,
    connected,
    hear,
    hear_nothing,
    in_database,
    say,
)
from conftest import Cast
from opsmap_protocol import messages
from opsmap_protocol.enums import OutputStream

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def agent(cast: Cast, pki: LinkPki) -> LinkedAgent:
    return LinkedAgent(pki, cast.acme.pk)


def state_of(command: Command) -> str:
    return Command.objects.get(pk=command.pk).state


async def hear_commands(communicator: Communicator, count: int) -> list[str]:
    return [(await hear(communicator, "command"))["request_id"] for _ in range(count)]


# Credits


async def test_no_more_commands_are_on_their_way_than_the_agent_has_credits(
    gateway_pem: str, agent: LinkedAgent
) -> None:
    agent.credits = 2
    async with connected(gateway_pem) as communicator:
        await agent.come_in(communicator)
        commands = await in_database(lambda: [queue(agent.row) for _ in range(5)])
        ids = [str(command.pk) for command in commands]
        assert await hear_commands(communicator, 2) == ids[:2]
        await hear_nothing(communicator, "command")
        # A receipt gives a credit back, so does whatever is told of the command.
        await say(communicator, agent.received(ids[0]))
        assert await hear_commands(communicator, 1) == ids[2:3]
        await say(communicator, agent.events(command_result(commands[1])))
        assert await hear_commands(communicator, 1) == ids[3:4]
        await say(communicator, messages.CommandRefused("gw-1", ids[2], "srv-1", "queue_full", "full"))
        assert await hear_commands(communicator, 1) == ids[4:5]
        await hear_nothing(communicator, "command")


async def test_one_agent_without_credits_does_not_hold_up_another(gateway_pem: str, agent: LinkedAgent) -> None:
    agent.credits = 1
    other = LinkedAgent(agent.pki, agent.organization_id, "srv-2")
    async with connected(gateway_pem) as communicator:
        await agent.come_in(communicator)
        await other.come_in(communicator)
        await in_database(lambda: [queue(agent.row) for _ in range(120)])
        theirs = await in_database(lambda: queue(other.row))
        assert (await hear(communicator, "command", of="srv-2"))["request_id"] == str(theirs.pk)
        assert await in_database(Command.objects.filter(state="sent", agent__agent_id="srv-1").count) == 1


# Broadcasts


@transaction.atomic
def broadcast_to(organization_id: Any, *agents: Agent, **filters: Any) -> Broadcast:
    broadcast = Broadcast.objects.create(
        organization_id=organization_id, name="uptime", filter=filters, spec=UPTIME, execution=SYNC, timeout_ms=5000
    )
    not_after = timezone.now() + timedelta(seconds=60)
    facts = {"name": "uptime", "spec": UPTIME, "execution": SYNC, "timeout_ms": 5000, "not_after": not_after}
    for row in agents:
        Command.objects.create(organization_id=organization_id, agent=row, broadcast=broadcast, **facts)
    return broadcast


async def test_a_broadcast_is_one_frame_from_which_each_sealed_command_can_be_made(
    gateway_pem: str, agent: LinkedAgent
) -> None:
    agents = [agent, *(LinkedAgent(agent.pki, agent.organization_id, f"srv-{number}") for number in (2, 3))]
    async with connected(gateway_pem) as communicator:
        for each in agents:
            await each.come_in(communicator)
        broadcast = await in_database(
            lambda: broadcast_to(agent.organization_id, *(each.row for each in agents), labels={"role": "db"})
        )
        frame = await hear(communicator, "broadcast_command")
        assert frame["request_id"] == str(broadcast.pk)
        assert frame["filter"]["labels"] == {"role": "db"}
        assert frame["shared"]["command"] == UPTIME
        assert {target["target_agent"] for target in frame["targets"]} == {"srv-1", "srv-2", "srv-3"}
        for target in frame["targets"]:
            made = frame["shared"] | {
                "target_agent": target["target_agent"],
                "request_id": target["request_id"],
                **target["fields"],
            }
            agent.pki.check_backend_seal(made, agent.organization_id, agent.trusted)
            assert await in_database(Command.objects.filter(pk=target["request_id"], state="sent").exists)
        await hear_nothing(communicator, "command")


async def test_a_command_of_a_broadcast_that_is_sent_again_goes_alone(gateway_pem: str, agent: LinkedAgent) -> None:
    other = LinkedAgent(agent.pki, agent.organization_id, "srv-2")
    async with connected(gateway_pem) as communicator:
        await agent.come_in(communicator)
        await other.come_in(communicator)
        await in_database(lambda: broadcast_to(agent.organization_id, agent.row, other.row))
        await hear(communicator, "broadcast_command")
        await in_database(Command.objects.filter(agent__agent_id="srv-2").update, lease_until=None)
        assert (await hear(communicator))["target_agent"] == "srv-2"


async def test_a_target_that_does_not_match_any_more_is_not_tried_again(gateway_pem: str, agent: LinkedAgent) -> None:
    async with connected(gateway_pem) as communicator:
        await agent.come_in(communicator)
        command = await in_database(lambda: queue(agent.row))
        await hear(communicator, "command")
        refusal = messages.CommandRefused("gw-1", str(command.pk), "srv-1", "filter_mismatch", "other labels by now")
        await say(communicator, refusal, agent.events())
        await hear(communicator, "events_ack")
        assert await in_database(state_of, command) == CommandState.EXPIRED
        # Only hosts have the last word.
        await say(communicator, agent.events(command_result(command)))
        await hear(communicator, "events_ack")
        assert await in_database(state_of, command) == CommandState.SUCCEEDED


# Questions


async def unknown_command(communicator: Communicator, agent: LinkedAgent, **fields: Any) -> Command:
    """A command that was sent, and of which nothing was heard in time."""
    command = await in_database(lambda: queue(agent.row, execution=DETACHED))
    await hear(communicator, "command")
    past, long_past = timezone.now() - timedelta(seconds=1), timezone.now() - timedelta(seconds=61)
    facts = {"finished_at": past, "next_poll_at": past, "not_after": long_past, "lease_until": None} | fields
    unknown: Command = await in_database(put, command, CommandState.UNKNOWN, **facts)
    return unknown


async def test_the_agent_is_asked_about_commands_of_unknown_fate(
    gateway_pem: str, agent: LinkedAgent, pki: LinkPki
) -> None:
    async with connected(gateway_pem) as communicator:
        await agent.come_in(communicator)
        command = await unknown_command(communicator, agent)
        await in_database(poll_running_jobs)
        probe = await hear(communicator, "probe_commands")
        assert probe["request_ids"] == [str(command.pk)]
        pki.check_backend_seal(probe, agent.organization_id, agent.trusted)
        # Not again at once.
        await in_database(poll_running_jobs)
        await hear_nothing(communicator, "probe_commands")


def probe_result(agent: LinkedAgent, command: Command, *, since: Any, **changes: Any) -> str:
    facts = {"journal_since": since, "open_requests": [], "never_seen": [str(command.pk)]} | changes
    return agent.seal(messages.ProbeResult(agent.agent_id, agent.token, **facts))


async def test_a_command_that_was_never_seen_has_expired(gateway_pem: str, agent: LinkedAgent) -> None:
    async with connected(gateway_pem) as communicator:
        await agent.come_in(communicator)
        command = await unknown_command(communicator, agent)
        await say(communicator, probe_result(agent, command, since=AT), agent.events())
        await hear(communicator, "events_ack")
        stored = await in_database(Command.objects.get)
        assert (stored.state, stored.detail) == (CommandState.EXPIRED, "It never reached the agent.")


@pytest.mark.parametrize(
    "doubt",
    [
        "a journal that began later",
        "a journal that began so shortly before that clocks may differ",
        "it may still arrive",
        "it may still arrive by the clock of the host",
        "it is in the journal",
    ],
)
async def test_never_seen_is_no_evidence_with_a_doubt(gateway_pem: str, agent: LinkedAgent, doubt: str) -> None:
    async with connected(gateway_pem) as communicator:
        await agent.come_in(communicator)
        now = timezone.now()
        not_after = {
            "it may still arrive": now + timedelta(seconds=30),
            "it may still arrive by the clock of the host": now - timedelta(seconds=50),
        }.get(doubt, now - timedelta(seconds=61))
        command = await unknown_command(communicator, agent, not_after=not_after)
        since = {
            "a journal that began later": timezone.now(),
            "a journal that began so shortly before that clocks may differ": now - timedelta(seconds=50),
        }.get(doubt, AT)
        held = {"never_seen": [], "open_requests": [str(command.pk)]} if doubt == "it is in the journal" else {}
        await say(communicator, probe_result(agent, command, since=since, **held), agent.events())
        await hear(communicator, "events_ack")
        stored = await in_database(Command.objects.get)
        assert (stored.state, stored.next_poll_at) == (CommandState.UNKNOWN, command.next_poll_at), "to be asked again"


async def test_nobody_says_of_another_s_command_that_it_was_never_seen(gateway_pem: str, agent: LinkedAgent) -> None:
    other = LinkedAgent(agent.pki, agent.organization_id, "srv-2")
    async with connected(gateway_pem) as communicator:
        await agent.come_in(communicator)
        await other.come_in(communicator)
        command = await unknown_command(communicator, agent)
        await say(communicator, probe_result(other, command, since=AT), other.events())
        await hear(communicator, "events_ack")
        assert await in_database(state_of, command) == CommandState.UNKNOWN


async def test_an_agent_that_returns_is_asked_at_once(gateway_pem: str, agent: LinkedAgent) -> None:
    async with connected(gateway_pem) as communicator:
        await agent.come_in(communicator)
        later = timezone.now() + timedelta(hours=1)
        command = await unknown_command(communicator, agent, next_poll_at=later)
        await agent.come_in(communicator)
        assert (await hear(communicator, "probe_commands"))["request_ids"] == [str(command.pk)]


async def test_late_news_of_a_beginning_correct_a_presumption(gateway_pem: str, agent: LinkedAgent) -> None:
    async with connected(gateway_pem) as communicator:
        await agent.come_in(communicator)
        command = await unknown_command(communicator, agent, detail="It may have run.")
        await say(communicator, agent.events(job_started(command)))
        await hear(communicator, "events_ack")
        stored = await in_database(Command.objects.get)
        assert (stored.state, stored.job_id) == (CommandState.STARTED, f"job-{command.pk}")
        assert (stored.finished_at, stored.detail) == (None, "")


# Output


async def test_output_is_kept_in_pieces_and_counted(gateway_pem: str, agent: LinkedAgent) -> None:
    async with connected(gateway_pem) as communicator:
        await agent.come_in(communicator)
        command = await in_database(lambda: queue(agent.row))
        request_id = str(command.pk)
        pieces = [
            messages.CommandOutput(request_id, OutputStream.STDOUT, 0, "a" * 1000),
            messages.CommandOutput(request_id, OutputStream.STDOUT, 1000, "b" * 500, total=9000),
            messages.CommandOutput(request_id, OutputStream.STDERR, 0, "\x1b[31mred", total=8),
        ]
        await say(communicator, agent.events(*pieces, command_result(command)))
        assert (await hear(communicator, "events_ack"))["seq"] == 4
        stored = await in_database(Command.objects.get)
        assert stored.output == {"stdout": {"kept": 1500, "total": 9000}, "stderr": {"kept": 8, "total": 8}}
        texts = await in_database(
            lambda: list(CommandOutput.objects.order_by("stream", "offset").values_list("stream", "text"))
        )
        assert texts == [("stderr", "\x1b[31mred"), ("stdout", "a" * 1000), ("stdout", "b" * 500)]

        # The same again, as by an agent whose journal was restored: nothing is there twice.
        agent.incarnation, agent.seq = "journal-2", 0
        await agent.come_in(communicator)
        await say(communicator, agent.events(*pieces))
        await hear(communicator, "events_ack")
        assert await in_database(CommandOutput.objects.count) == 3


async def test_nobody_adds_output_to_another_s_command(gateway_pem: str, agent: LinkedAgent) -> None:
    other = LinkedAgent(agent.pki, agent.organization_id, "srv-2")
    async with connected(gateway_pem) as communicator:
        await agent.come_in(communicator)
        await other.come_in(communicator)
        command = await in_database(lambda: queue(agent.row))
        forged = messages.CommandOutput(str(command.pk), OutputStream.STDOUT, 0, "forged", total=6)
        await say(communicator, other.events(forged))
        await hear(communicator, "events_ack", of="srv-2")
        assert not await in_database(CommandOutput.objects.exists)
        assert (await in_database(Command.objects.get)).output == {}


# The signing key


async def test_a_rotation_is_told_to_every_agent_before_the_new_key_is_used(
    gateway_pem: str, agent: LinkedAgent, pki: LinkPki
) -> None:
    async with connected(gateway_pem) as communicator:
        await agent.come_in(communicator)
        first = await in_database(lambda: queue(agent.row))
        before = await hear(communicator, "command")
        key_id = await in_database(rotate_signing_key, folder=pki.folder, actor=SYSTEM)
        trust = await hear(communicator, "trust")
        assert len(trust["certificates"]) == 2
        await in_database(lambda: queue(agent.row))
        after = await hear(communicator, "command")
        assert after["signed_by"] == key_id != before["signed_by"]
        for frame in (before, after):
            pki.check_backend_seal(frame, agent.organization_id, trust["certificates"])
        await say(communicator, agent.received(str(first.pk)))
    [event] = await in_database(lambda: list(AuditEvent.objects.filter(action="signing_key.rotated")))
    assert event.details == {"formerKeyId": before["signed_by"]}
