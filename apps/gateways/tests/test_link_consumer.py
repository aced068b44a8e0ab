"""The backend's end of a gateway's socket: who may speak, and the way of a command through it."""

from __future__ import annotations

import pytest

from apps.gateways.actions.health_checks import set_health_checks
from apps.gateways.actions.requests import cancel_command
from apps.gateways.enums import CommandState
from apps.gateways.models import Agent, Command, Gateway
from apps.gateways.tests.factories import (
    DETACHED,
    SYSTEM,
    command_result,
    gateway_hello,
    job_started,
    job_status,
    queue,
)
from apps.gateways.tests.sockets import (
    Communicator,
    LinkedAgent,
    LinkPki,
    close_code,
    connected,
    hear,
    hear_nothing,
    in_database,
    link,
    say,
)
from conftest import Cast
from opsmap_protocol import codec, messages
from opsmap_protocol.enums import JobStatus, PeerRole
from opsmap_protocol.errors import CloseCode

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def agent(cast: Cast, pki: LinkPki) -> LinkedAgent:
    """An agent of Acme that is not connected yet."""
    return LinkedAgent(pki, cast.acme.pk)


async def refusal_of(communicator: Communicator) -> int:
    """The code with which a connection is closed before it may say anything."""
    await communicator.connect(timeout=5)
    code = await close_code(communicator)
    await communicator.send_to(codec.encode(gateway_hello("gw-1")))
    assert await communicator.receive_nothing(timeout=0.02)
    await communicator.disconnect(timeout=5)
    return code


async def test_without_certificate_the_link_is_closed(gateway_pem: str) -> None:
    assert await refusal_of(link(None)) == CloseCode.UNAUTHENTICATED == 4401
    assert not await in_database(Gateway.objects.exclude(session_id=None).exists)


async def test_a_header_is_no_certificate(gateway_pem: str) -> None:
    folded = gateway_pem.replace("\n", " ")
    forged = link(None, X_SSL_Client_Cert=folded, X_Client_Cert=folded, X_SSL_Client_Verify="SUCCESS")
    assert await refusal_of(forged) == 4401
    empty = link(None, X_SSL_Client_Cert=folded)
    empty.scope["extensions"] = {"tls": {"client_cert_chain": []}}
    assert await refusal_of(empty) == 4401


async def test_only_the_very_certificate_that_was_registered_may_speak(
    cast: Cast, gateway_pem: str, pki: LinkPki
) -> None:
    strangers = {
        "another organization, same name": pki.gateway_pem(cast.umbrella, is_registered=False),
        "unregistered name": pki.gateway_pem(cast.acme, "gw-2", is_registered=False),
        "same name, another certificate": pki.gateway_pem(cast.acme, is_registered=False),
        "an agent": pki.leaf(cast.acme.pk, "gw-1", PeerRole.AGENT).read_text(),
    }
    for who, pem in strangers.items():
        assert await refusal_of(link(pem)) == 4401, who


async def test_a_certificate_that_was_replaced_is_refused(cast: Cast, gateway_pem: str, pki: LinkPki) -> None:
    renewed = await in_database(pki.gateway_pem, cast.acme)
    assert await refusal_of(link(gateway_pem)) == 4401
    async with connected(renewed):
        assert (await in_database(Gateway.objects.get)).is_online


async def test_another_protocol_version_is_refused_with_a_reason(gateway_pem: str) -> None:
    communicator = link(gateway_pem)
    await communicator.connect(timeout=5)
    await say(communicator, gateway_hello("gw-1", protocol_version=99, protocol_min=99))
    frame = await hear(communicator)
    assert (frame["type"], frame["code"]) == ("error", "version_unsupported")
    assert "99" in frame["reason"]
    assert await close_code(communicator) == CloseCode.VERSION_UNSUPPORTED
    await communicator.disconnect(timeout=5)
    assert not (await in_database(Gateway.objects.get)).is_online


async def test_a_gateway_cannot_register_under_another_name(gateway_pem: str) -> None:
    communicator = link(gateway_pem)
    await communicator.connect(timeout=5)
    await say(communicator, gateway_hello("gw-of-somebody-else"))
    assert await close_code(communicator) == CloseCode.IDENTITY_MISMATCH
    await communicator.disconnect(timeout=5)


async def test_nothing_counts_before_the_registration(gateway_pem: str, agent: LinkedAgent) -> None:
    communicator = link(gateway_pem)
    await communicator.connect(timeout=5)
    await say(communicator, agent.online())
    assert (await hear(communicator))["code"] == "not_registered"
    assert await close_code(communicator) == CloseCode.UNAUTHENTICATED
    await communicator.disconnect(timeout=5)
    assert not await in_database(Agent.objects.exists)


async def test_a_frame_that_is_not_understood_is_answered_and_the_link_goes_on(
    gateway_pem: str, agent: LinkedAgent
) -> None:
    async with connected(gateway_pem) as communicator:
        for frame, code in (
            ('{"type": "broadcast_dance"}', "unknown_message"),
            ("not json", "malformed_message"),
            ("[]", "malformed_message"),
            ('{"type": "agent_offline", "gateway_id": 7}', "malformed_message"),
            ('{"type": "agent_online", "gateway_id": "gw-1"}', "malformed_message"),
        ):
            await communicator.send_to(frame)
            answer = await hear(communicator)
            assert (answer["type"], answer["code"]) == ("error", code)
        await communicator.send_to(bytes_data=b"\xff\xfe")
        assert (await hear(communicator))["code"] == "malformed_message"
        await agent.come_in(communicator)


async def test_too_many_bad_frames_end_the_link(gateway_pem: str) -> None:
    async with connected(gateway_pem) as communicator:
        for _ in range(100):
            await communicator.send_to("not json")
        assert await close_code(communicator) == CloseCode.BAD_MESSAGE


async def test_a_command_goes_the_whole_way(gateway_pem: str, agent: LinkedAgent, pki: LinkPki) -> None:
    async with connected(gateway_pem) as communicator:
        resume = await agent.come_in(communicator)
        assert (resume["target_agent"], resume["acked_seq"], resume["token"]) == ("srv-1", 0, agent.token)
        pki.check_backend_seal(resume, agent.organization_id, agent.trusted)

        # The hint of the commit wakes the link.
        command = await in_database(lambda: queue(agent.row, execution=DETACHED))
        frame = await hear(communicator)
        assert (frame["type"], frame["request_id"]) == ("command", str(command.pk))
        pki.check_backend_seal(frame, agent.organization_id, agent.trusted)
        assert frame["issued_at"] == command.created_at.isoformat()

        await say(
            communicator,
            agent.received(frame["request_id"]),
            agent.events(job_started(command)),
            agent.events(job_status(command, JobStatus.COMPLETED, log_tail="ready")),
        )
        while (ack := await hear(communicator, "events_ack"))["seq"] < 2:
            pass
        pki.check_backend_seal(ack, agent.organization_id, agent.trusted)
        stored = await in_database(Command.objects.get)
        assert (stored.state, stored.log_tail, stored.fence) == (CommandState.SUCCEEDED, "ready", 1)
        assert None not in {stored.sent_at, stored.received_at, stored.started_at, stored.finished_at}

        await say(communicator, agent.offline())
        await say(communicator, messages.DiscoveryBatch("gw-1", "after-it", []))
        await hear(communicator, "discovery_ack")
        assert not (await in_database(lambda: agent.row)).is_online


async def test_a_cancellation_is_passed_on(gateway_pem: str, agent: LinkedAgent, pki: LinkPki) -> None:
    async with connected(gateway_pem) as communicator:
        await agent.come_in(communicator)
        command = await in_database(lambda: queue(agent.row))
        await hear(communicator, "command")
        await in_database(lambda: cancel_command(command=Command.objects.get(), actor=SYSTEM))
        frame = await hear(communicator, "cancel_command")
        assert (frame["request_id"], frame["target_agent"]) == (str(command.pk), "srv-1")
        pki.check_backend_seal(frame, agent.organization_id, agent.trusted)


async def test_health_checks_are_told_once_for_each_revision_and_session(
    gateway_pem: str, agent: LinkedAgent, pki: LinkPki
) -> None:
    async with connected(gateway_pem) as communicator:
        await agent.stand_by(communicator)
        first = await hear(communicator, "config_update")
        assert first["health_checks"] == []
        pki.check_backend_seal(first, agent.organization_id, agent.trusted)
        checks = [{"check_id": "a", "probe": {"type": "tcp", "port": 5432}}]
        await in_database(lambda: set_health_checks(agent=agent.row, checks=checks))
        second = await hear(communicator, "config_update")
        assert second["revision"] != first["revision"]
        assert second["health_checks"][0]["probe"] == {"type": "tcp", "port": 5432, "host": "localhost"}
        # A command wakes the link again: nothing but the command comes.
        await in_database(lambda: queue(agent.row))
        assert (await hear(communicator))["type"] == "command"
        # A new session of the agent is told again, though nothing changed in between.
        await agent.stand_by(communicator)
        assert (await hear(communicator, "config_update"))["revision"] == second["revision"]


async def test_output_that_no_database_holds_neither_breaks_the_link_nor_stops_the_agent(
    gateway_pem: str, agent: LinkedAgent
) -> None:
    async with connected(gateway_pem) as communicator:
        await agent.come_in(communicator)
        command = await in_database(lambda: queue(agent.row))
        result = {"stdout": "a\0b", "load": float("nan"), "key\0": 1}
        await say(communicator, agent.events(command_result(command, result=result, error="\0")))
        assert (await hear(communicator, "events_ack"))["seq"] == 1
        stored = await in_database(Command.objects.get)
        assert stored.result == {"stdout": "a\ufffdb", "load": None, "key\ufffd": 1}
        assert stored.detail == "\ufffd"


async def test_one_acknowledgement_for_all_that_came_meanwhile(
    gateway_pem: str, agent: LinkedAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("apps.gateways.consumers.ACK_INTERVAL_S", 1.0)
    async with connected(gateway_pem) as communicator:
        await agent.come_in(communicator)
        for _ in range(3):
            command = await in_database(lambda: queue(agent.row))
            await hear(communicator, "command")
            await say(communicator, agent.events(command_result(command)))
        assert (await hear(communicator, "events_ack"))["seq"] == 3
        await hear_nothing(communicator, "events_ack", for_s=1.2)


async def test_what_one_agent_says_that_cannot_be_stored_stops_nobody(
    gateway_pem: str, agent: LinkedAgent, caplog: pytest.LogCaptureFixture
) -> None:
    odd = LinkedAgent(agent.pki, agent.organization_id, "srv-2", incarnation="x" * 100)
    async with connected(gateway_pem) as communicator:
        await odd.announce(communicator)
        await say(communicator, odd.presence())
        await agent.come_in(communicator)
        command = await in_database(lambda: queue(agent.row))
        await say(communicator, agent.events(command_result(command)))
        assert (await hear(communicator, "events_ack"))["seq"] == 1
    assert not await in_database(Agent.objects.filter(agent_id="srv-2").exists)
    assert "what no journal can" in caplog.text


async def test_the_end_of_the_connection_ends_the_sessions_behind_it(gateway_pem: str, agent: LinkedAgent) -> None:
    async with connected(gateway_pem) as communicator:
        await agent.come_in(communicator)
        assert (await in_database(lambda: agent.row)).is_online
    assert not (await in_database(lambda: agent.row)).is_online
    assert not (await in_database(Gateway.objects.get)).is_online


async def test_the_end_of_an_older_connection_leaves_the_newer_one(gateway_pem: str, agent: LinkedAgent) -> None:
    async with connected(gateway_pem) as older, connected(gateway_pem) as newer:
        await agent.come_in(newer)
        await older.disconnect(timeout=5)
        assert (await in_database(lambda: agent.row)).is_online
        await in_database(lambda: queue(agent.row))
        assert (await hear(newer, "command"))["target_agent"] == "srv-1"


async def test_a_command_is_sent_by_one_of_two_connections_of_a_gateway(gateway_pem: str, agent: LinkedAgent) -> None:
    async with connected(gateway_pem) as older:
        await agent.come_in(older)
        async with connected(gateway_pem) as newer:
            await in_database(lambda: queue(agent.row))
            await hear_nothing(older, "command")
            await agent.come_in(newer)
            await hear(newer, "command")
            await hear_nothing(older, "command")
            await older.disconnect(timeout=5)
    assert (await in_database(Command.objects.get)).fence == 1
