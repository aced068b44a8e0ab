"""Sessions of agents through the link: proven by a challenge, one in use, the others standing by."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.utils import timezone

from apps.gateways.enums import CommandState
from apps.gateways.link import agents as link_agents
from apps.gateways.models import Agent, AgentSession, Command, Gateway
from apps.gateways.signals import agents_lost, agents_online
from apps.gateways.tests.factories import command_result, heard, job_status, queue
from apps.gateways.tests.sockets import (
    LinkedAgent,
    LinkPki,
    close_code,
    connected,
    hear,
    hear_nothing,
    in_database,
    say,
)
from conftest import Cast
from opsmap_protocol import messages
from opsmap_protocol.enums import JobStatus, PeerRole
from opsmap_protocol.errors import CloseCode
from opsmap_trust.seals import SealError

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def agent(cast: Cast, pki: LinkPki) -> LinkedAgent:
    return LinkedAgent(pki, cast.acme.pk)


@pytest.fixture
def second_pem(cast: Cast, pki: LinkPki) -> str:
    """The certificate of Acme's gateway "gw-2"."""
    return pki.gateway_pem(cast.acme, "gw-2")


def state_of(command: Command) -> str:
    return Command.objects.get(pk=command.pk).state


def is_online(agent: LinkedAgent) -> bool:
    return Agent.objects.filter(agent_id=agent.agent_id, session_id__isnull=False).exists()


async def test_an_agent_does_not_count_before_it_has_answered_its_challenge(
    gateway_pem: str, agent: LinkedAgent
) -> None:
    async with connected(gateway_pem) as communicator:
        challenge = await agent.announce(communicator)
        agent.pki.check_backend_seal(challenge, agent.organization_id, agent.trusted)
        assert len(challenge["token"]) == 32
        await say(communicator, agent.events(messages.JobExited("x", "y", 0)))
        await hear_nothing(communicator, "events_ack")
        assert not await in_database(Agent.objects.exists)
        await say(communicator, agent.presence(first_seq=1))
        await hear(communicator, "resume")
        assert await in_database(is_online, agent)


async def test_every_session_has_a_token_of_its_own(gateway_pem: str, agent: LinkedAgent) -> None:
    tokens = set()
    async with connected(gateway_pem) as communicator:
        for _ in range(3):
            await agent.announce(communicator)
            tokens.add(agent.token)
    assert len(tokens) == 3


async def test_a_replayed_register_does_not_become_a_session(gateway_pem: str, agent: LinkedAgent) -> None:
    """A gateway that recorded an agent's words has them all, but not the answer to a new challenge."""
    recorded = agent.register()
    async with connected(gateway_pem) as communicator:
        await agent.come_in(communicator)
        old_presence = agent.presence()
        await say(communicator, agent.offline())
        await say(communicator, messages.AgentOnline("gw-1", "replayed", recorded))
        await hear(communicator, "challenge")
        await say(communicator, old_presence)
        await hear_nothing(communicator, "resume")
        assert not await in_database(is_online, agent)


async def test_an_unanswered_challenge_ends_the_session_that_it_replaced(
    gateway_pem: str, agent: LinkedAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with connected(gateway_pem) as communicator:
        await agent.come_in(communicator)
        await agent.announce(communicator)
        late = agent.presence()
        with heard(agents_lost) as lost:
            monkeypatch.setattr(link_agents, "CHALLENGE_TIMEOUT_S", 0.1)
            again = await hear(communicator, "challenge")
            monkeypatch.undo()
        assert again["token"] != agent.token
        assert [each.agent_id for told in lost for each in told["agents"]] == ["srv-1"]
        # The answer to the former challenge is too late, the one to the new challenge is not.
        await say(communicator, late)
        await hear_nothing(communicator, "resume")
        agent.token = again["token"]
        await say(communicator, agent.presence())
        await hear(communicator, "resume")


@pytest.mark.parametrize("fault", ["not sealed", "changed", "another agent's key", "another organization", "gateway"])
async def test_a_register_that_is_not_the_agents_own_is_refused(
    cast: Cast, gateway_pem: str, agent: LinkedAgent, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    other = LinkedAgent(agent.pki, agent.organization_id, "srv-2")
    foreign = LinkedAgent(agent.pki, cast.umbrella.pk)
    register: dict[str, Any] = {
        "not sealed": {name: value for name, value in agent.register().items() if name != "signature"},
        "changed": agent.register() | {"hostname": "evil.example"},
        "another agent's key": other.register(agent_id="srv-1"),
        "another organization": foreign.register(),
        "gateway": agent.register(certificate=_gateway_certificate(agent)),
    }[fault]
    async with connected(gateway_pem) as communicator:
        await say(communicator, messages.AgentOnline("gw-1", "session-x", register))
        await hear_nothing(communicator, "challenge")
        assert not await in_database(Agent.objects.exists)
    assert "announces an agent that is refused" in caplog.text


def _gateway_certificate(agent: LinkedAgent) -> str:
    from apps.gateways.tests.sockets import read_certificate
    from opsmap_trust.certificates import encode_certificate

    return encode_certificate(read_certificate(agent.pki.leaf(agent.organization_id, "srv-1", PeerRole.GATEWAY)))


async def test_nothing_counts_without_the_seal_and_token_of_the_session(
    gateway_pem: str, agent: LinkedAgent, caplog: pytest.LogCaptureFixture
) -> None:
    other = LinkedAgent(agent.pki, agent.organization_id, "srv-2")
    async with connected(gateway_pem) as communicator:
        await agent.come_in(communicator)
        old = agent.twin(token=agent.token)
        command = await in_database(lambda: queue(agent.row))
        await hear(communicator, "command")
        result = command_result(command)
        forged = json.loads(agent.twin(token=agent.token).events(result))
        unsealed = messages.Events("srv-1", agent.token, "journal-1", [messages.Event(1, result_time(), result)])
        with_other_key = other.twin(agent_id="srv-1", token=agent.token, seq=0).events(result)
        changed = json.dumps(forged | {"incarnation": "journal-2"})
        other_token = agent.twin(token="f" * 32, seq=0).events(result)
        await say(communicator, unsealed, with_other_key, changed, other_token)
        await say(communicator, with_other_key.replace("srv-1", "srv-2"))
        await hear_nothing(communicator, "events_ack")
        assert await in_database(state_of, command) == CommandState.SENT

        # Its own words of a session before this one do not count either.
        await agent.come_in(communicator)
        await say(communicator, old.twin(token=old.token, seq=0).events(result), old.received(str(command.pk)))
        await hear_nothing(communicator, "events_ack")
        assert await in_database(state_of, command) == CommandState.SENT
        await say(communicator, agent.events(result))
        await hear(communicator, "events_ack")
        assert await in_database(state_of, command) == CommandState.SUCCEEDED
    assert "is sealed with another key" in caplog.text
    assert "belongs to another session" in caplog.text


def result_time() -> Any:
    from apps.gateways.tests.factories import AT

    return AT


async def test_what_is_sealed_for_one_organization_means_nothing_to_another(
    cast: Cast, gateway_pem: str, agent: LinkedAgent
) -> None:
    async with connected(gateway_pem) as communicator:
        await agent.come_in(communicator)
        await in_database(lambda: queue(agent.row))
        frame = await hear(communicator, "command")
        agent.pki.check_backend_seal(frame, cast.acme.pk, agent.trusted)
        with pytest.raises(SealError):
            agent.pki.check_backend_seal(frame, cast.umbrella.pk, agent.trusted)


async def test_of_two_sessions_the_preferred_one_is_in_use(
    gateway_pem: str, second_pem: str, agent: LinkedAgent
) -> None:
    preferred = agent.twin(is_preferred=True)
    async with connected(gateway_pem) as first, connected(second_pem, "gw-2") as second:
        with heard(agents_online) as online, heard(agents_lost) as lost:
            await agent.come_in(first)
            await preferred.come_in(second)
            command = await in_database(lambda: queue(agent.row))
            assert (await hear(second, "command"))["request_id"] == str(command.pk)
            await hear_nothing(first, "command")
            # The other one may receive, but tells nothing.
            await say(first, agent.events(command_result(command)))
            await say(first, agent.seal(messages.JobStatuses("srv-1", agent.token, [status_of(command)])))
            await hear_nothing(first, "events_ack")
            assert await in_database(state_of, command) == CommandState.SENT
        assert (len(online), lost) == (1, [])
        assert await in_database(AgentSession.objects.count) == 2


def status_of(command: Command) -> messages.AsyncStatus:
    return job_status(command, JobStatus.FAILED)


async def test_the_newest_session_is_in_use_if_none_is_preferred(
    gateway_pem: str, second_pem: str, agent: LinkedAgent
) -> None:
    async with connected(gateway_pem) as first, connected(second_pem, "gw-2") as second:
        await agent.come_in(first)
        await agent.twin().come_in(second)
        await in_database(lambda: queue(agent.row))
        await hear(second, "command")
        await hear_nothing(first, "command")


async def test_the_other_session_takes_over_at_once_when_the_one_in_use_ends(
    gateway_pem: str, second_pem: str, agent: LinkedAgent
) -> None:
    other = agent.twin()
    async with connected(gateway_pem) as first:
        with heard(agents_lost) as lost, heard(agents_online) as online:
            async with connected(second_pem, "gw-2") as second:
                await agent.come_in(first)
                await other.come_in(second)
                command = await in_database(lambda: queue(agent.row))
                await hear(second, "command")
            # Its gateway is gone with the command: the other one gets it under the same id.
            resume = await hear(first, "resume")
            assert resume["token"] == agent.token
            assert (await hear(first, "command"))["request_id"] == str(command.pk)
            await say(first, agent.events(command_result(command)))
            await hear(first, "events_ack")
        assert await in_database(state_of, command) == CommandState.SUCCEEDED
        assert lost == []
        assert len(online) == 1


async def test_a_session_that_comes_into_use_again_is_told_again(
    gateway_pem: str, second_pem: str, agent: LinkedAgent
) -> None:
    """It stood by in between, and what was acknowledged meanwhile it must not send again."""
    preferred = agent.twin(is_preferred=True)
    async with connected(gateway_pem) as first:
        await agent.come_in(first)
        async with connected(second_pem, "gw-2") as second:
            await preferred.come_in(second)
            command = await in_database(lambda: queue(agent.row))
            await hear(second, "command")
            await say(second, preferred.events(command_result(command)))
            await hear(second, "events_ack")
        assert (await hear(first, "resume"))["acked_seq"] == 1


async def test_events_by_a_session_that_stands_by_bring_another_resume(
    gateway_pem: str, second_pem: str, agent: LinkedAgent
) -> None:
    """Two gateways carry a `resume` each, and the older one may arrive last: the agent obeys that."""
    preferred = agent.twin(is_preferred=True)
    async with connected(gateway_pem) as first, connected(second_pem, "gw-2") as second:
        await agent.come_in(first)
        await preferred.come_in(second)
        command = await in_database(lambda: queue(agent.row))
        await hear(second, "command")
        # The first time this link still thinks that its session is in use, later it knows better.
        for _ in range(2):
            await say(first, agent.events(command_result(command)))
            resume = await hear(second, "resume")
            assert (resume["token"], resume["acked_seq"]) == (preferred.token, 0)
        await say(second, preferred.events(command_result(command)))
        await hear(second, "events_ack")
        assert await in_database(state_of, command) == CommandState.SUCCEEDED


async def test_a_gateway_cannot_bring_about_a_resume(gateway_pem: str, second_pem: str, agent: LinkedAgent) -> None:
    preferred = agent.twin(is_preferred=True)
    async with connected(gateway_pem) as first, connected(second_pem, "gw-2") as second:
        await agent.come_in(first)
        await preferred.come_in(second)
        forged = json.loads(agent.events(messages.JobExited("x", "y", 0)))
        forged["events"][0]["seq"] += 1
        for _ in range(2):
            await say(first, json.dumps(forged))
        await hear_nothing(second, "resume")


async def test_a_draining_gateway_is_the_last_choice(gateway_pem: str, second_pem: str, agent: LinkedAgent) -> None:
    preferred = agent.twin(is_preferred=True)
    async with connected(gateway_pem) as first, connected(second_pem, "gw-2") as second:
        await agent.come_in(first)
        await preferred.come_in(second)
        with heard(agents_lost) as lost:
            await say(second, messages.GoAway("it is stopped"))
            await hear(first, "resume")
            command = await in_database(lambda: queue(agent.row))
            assert (await hear(first, "command"))["request_id"] == str(command.pk)
        assert lost == []


async def test_a_draining_gateway_is_better_than_none(gateway_pem: str, agent: LinkedAgent) -> None:
    async with connected(gateway_pem) as communicator:
        await agent.come_in(communicator)
        await say(communicator, messages.GoAway("it is stopped"))
        await in_database(lambda: queue(agent.row))
        await hear(communicator, "command")


async def test_an_agent_that_lost_its_journal_begins_anew(gateway_pem: str, agent: LinkedAgent) -> None:
    async with connected(gateway_pem) as communicator:
        await agent.come_in(communicator)
        first, second = await in_database(lambda: [queue(agent.row), queue(agent.row)])
        await say(communicator, agent.events(command_result(first)))
        await hear(communicator, "events_ack")
        agent.incarnation, agent.seq = "journal-2", 0
        resume = await agent.come_in(communicator)
        assert (resume["incarnation"], resume["acked_seq"]) == ("journal-2", 0)
        await say(communicator, agent.events(command_result(second)))
        ack = await hear(communicator, "events_ack")
        assert (ack["incarnation"], ack["seq"]) == ("journal-2", 1)


async def test_an_agent_that_missed_its_challenge_is_challenged_again(
    gateway_pem: str, agent: LinkedAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its host's clock was wrong, or the frame was lost: nothing else would ever bring it back."""
    monkeypatch.setattr(link_agents, "CHALLENGE_TIMEOUT_S", 0.2)
    async with connected(gateway_pem) as communicator:
        missed = await agent.announce(communicator)
        again = await hear(communicator, "challenge")
        assert again["token"] != missed["token"]
        monkeypatch.setattr(link_agents, "CHALLENGE_TIMEOUT_S", 10.0)
        agent.token = again["token"]
        await say(communicator, agent.presence())
        await hear(communicator, "resume")
        assert await in_database(is_online, agent)


async def test_a_connection_that_the_database_has_given_up_ends(gateway_pem: str, agent: LinkedAgent) -> None:
    """A sweep closed it by a clock that was wrong. It would carry nothing for ever, and look alive."""
    async with connected(gateway_pem) as communicator:
        await agent.come_in(communicator)
        await in_database(Gateway.objects.update, session_id=None)
        await say(communicator, messages.AggregatedHeartbeat("gw-1", [], timezone.now()))
        assert await close_code(communicator) == CloseCode.REPLACED
