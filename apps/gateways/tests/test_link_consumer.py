"""The backend's end of a gateway's socket: who may speak, and the way of a command through it."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from channels.db import database_sync_to_async
from channels.routing import get_default_application
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from apps.gateways.actions.commands import cancel_command
from apps.gateways.actions.sessions import register_gateway, set_health_checks
from apps.gateways.dispatch import read_frame
from apps.gateways.enums import CommandState
from apps.gateways.models import Agent, Command, Gateway
from apps.gateways.pki import Authority, ensure_authorities, ensure_leaf
from apps.gateways.tests.factories import (
    AT,
    DETACHED,
    SYSTEM,
    SimulatedAgent,
    command_result,
    gateway_hello,
    job_started,
    job_status,
    queue,
)
from apps.gateways.tests.sockets import Communicator
from apps.orgs.models import Organization
from conftest import Cast
from opsmap_protocol import codec, messages
from opsmap_protocol.enums import CommandOutcome, JobStatus, PeerRole
from opsmap_protocol.errors import CloseCode
from opsmap_protocol.identity import Identity

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pki")


@pytest.fixture(scope="module")
def authorities(pki: Path) -> dict[PeerRole, Authority]:
    return ensure_authorities(pki / "ca")


@pytest.fixture
def certify(pki: Path, authorities: dict[PeerRole, Authority]) -> Callable[..., tuple[str, str]]:
    """Makes a certificate; its PEM as TLS hands it over, and its fingerprint."""

    def make(organization: Organization, name: str = "gw-1", role: PeerRole = PeerRole.GATEWAY) -> tuple[str, str]:
        uri = Identity(str(organization.pk), role, name).uri
        leaf = f"leaf-{uuid.uuid4()}"
        printed = ensure_leaf(pki / "leaf", leaf, authorities[role], uri=uri, hosts=[])
        certificate = x509.load_pem_x509_certificate((pki / "leaf" / f"{leaf}.crt").read_bytes())
        return certificate.public_bytes(Encoding.PEM).decode(), printed

    return make


@pytest.fixture
def gateway_pem(cast: Cast, certify: Callable[..., tuple[str, str]]) -> str:
    """The certificate of Acme's gateway "gw-1", which is registered."""
    pem, printed = certify(cast.acme)
    register_gateway(organization_id=cast.acme.pk, gateway_id="gw-1", certificate_sha256=printed, actor=SYSTEM)
    return pem


def link(pem: str | None, **headers: str) -> Communicator:
    """A connection to the whole application, as the link server hands it over."""
    given = [(name.replace("_", "-").lower().encode(), value.encode()) for name, value in headers.items()]
    communicator = Communicator(get_default_application(), "/link/", headers=given)
    if pem is not None:
        communicator.scope["extensions"] = {"tls": {"client_cert_chain": [pem]}}
    return communicator


async def hear(communicator: Communicator, kind: str = "") -> dict[str, Any]:
    """The next frame, or the next of a kind."""
    while True:
        frame: dict[str, Any] = json.loads(await communicator.receive_from(timeout=5))
        if kind in {"", frame["type"]}:
            return frame


async def close_code(communicator: Communicator) -> int:
    output = await communicator.receive_output(timeout=5)
    assert output["type"] == "websocket.close", output
    code: int = output["code"]
    return code


@asynccontextmanager
async def connected(pem: str, hello: messages.GatewayRegister | None = None) -> AsyncIterator[Communicator]:
    """A gateway whose registration was answered."""
    communicator = link(pem)
    assert (await communicator.connect(timeout=5))[0]
    await communicator.send_to(codec.encode(hello or gateway_hello("gw-1")))
    assert (await hear(communicator))["type"] == "gateway_registered"
    try:
        yield communicator
    finally:
        await communicator.disconnect(timeout=5)


async def say(communicator: Communicator, *frames: Any) -> None:
    for message in frames:
        await communicator.send_to(codec.encode(message))


@database_sync_to_async
def in_database(function: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
    return function(*arguments, **keywords)


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
    cast: Cast, gateway_pem: str, certify: Callable[..., tuple[str, str]]
) -> None:
    strangers = {
        "another organization, same name": certify(cast.umbrella)[0],
        "unregistered name": certify(cast.acme, "gw-2")[0],
        "same name, another certificate": certify(cast.acme)[0],
        "an agent": certify(cast.acme, "gw-1", PeerRole.AGENT)[0],
    }
    for who, pem in strangers.items():
        assert await refusal_of(link(pem)) == 4401, who


async def test_a_certificate_that_was_replaced_is_refused(
    cast: Cast, gateway_pem: str, certify: Callable[..., tuple[str, str]]
) -> None:
    renewed, printed = certify(cast.acme)
    await in_database(
        register_gateway, organization_id=cast.acme.pk, gateway_id="gw-1", certificate_sha256=printed, actor=SYSTEM
    )
    assert await refusal_of(link(gateway_pem)) == 4401
    async with connected(renewed):
        assert (await in_database(Gateway.objects.get)).is_online


async def test_another_protocol_version_is_refused_with_a_reason(gateway_pem: str) -> None:
    communicator = link(gateway_pem)
    await communicator.connect(timeout=5)
    await say(communicator, gateway_hello("gw-1", protocol_version=99))
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


async def test_nothing_counts_before_the_registration(gateway_pem: str) -> None:
    agent = SimulatedAgent(await in_database(Gateway.objects.get))
    communicator = link(gateway_pem)
    await communicator.connect(timeout=5)
    await say(communicator, agent.online())
    await say(communicator, gateway_hello("gw-1"))
    assert (await hear(communicator))["type"] == "gateway_registered"
    assert not await in_database(Agent.objects.exists)
    await communicator.disconnect(timeout=5)


async def test_a_frame_that_is_not_understood_is_answered_and_the_link_goes_on(gateway_pem: str) -> None:
    async with connected(gateway_pem) as communicator:
        for frame, code in (
            ('{"type": "broadcast_dance"}', "unknown_message"),
            ("not json", "malformed_message"),
            ("[]", "malformed_message"),
            ('{"type": "agent_offline", "gateway_id": 7}', "malformed_message"),
        ):
            await communicator.send_to(frame)
            answer = await hear(communicator)
            assert (answer["type"], answer["code"]) == ("error", code)
        await communicator.send_to(bytes_data=b"\xff\xfe")
        assert (await hear(communicator))["code"] == "malformed_message"
        agent = SimulatedAgent(await in_database(Gateway.objects.get))
        await say(communicator, agent.online())
        assert (await hear(communicator))["type"] == "resume"


async def test_a_command_goes_the_whole_way(gateway_pem: str) -> None:
    async with connected(gateway_pem) as communicator:
        agent = SimulatedAgent(await in_database(Gateway.objects.get))
        await say(communicator, agent.online())
        resume = await hear(communicator)
        assert (resume["type"], resume["target_agent"], resume["acked_seq"]) == ("resume", "srv-1", 0)
        assert (await hear(communicator))["type"] == "config_update"

        # The hint of the commit wakes the link.
        command = await in_database(queue, agent, execution=DETACHED)
        frame = await hear(communicator)
        assert (frame["type"], frame["request_id"]) == ("command", str(command.pk))

        await say(
            communicator,
            messages.CommandReceived("srv-1", frame["request_id"]),
            agent.events(job_started(command)),
            agent.events(job_status(command, JobStatus.COMPLETED, log_tail="ready")),
        )
        while (await hear(communicator, "events_ack"))["seq"] < 2:
            pass
        stored = await in_database(Command.objects.get)
        assert (stored.state, stored.log_tail, stored.fence) == (CommandState.SUCCEEDED, "ready", 1)
        assert None not in {stored.sent_at, stored.received_at, stored.started_at, stored.finished_at}

        await say(communicator, messages.AgentOffline("gw-1", "srv-1", agent.session_id, "connection lost"))
        await say(communicator, agent.events())
        await hear(communicator, "events_ack")
        assert not (await in_database(lambda: agent.row)).is_online


async def test_a_cancellation_is_passed_on(gateway_pem: str) -> None:
    async with connected(gateway_pem) as communicator:
        agent = SimulatedAgent(await in_database(Gateway.objects.get))
        await say(communicator, agent.online())
        await hear(communicator, "resume")
        command = await in_database(queue, agent)
        await hear(communicator, "command")
        await in_database(lambda: cancel_command(command=Command.objects.get(), actor=SYSTEM))
        frame = await hear(communicator, "cancel_command")
        assert (frame["request_id"], frame["target_agent"]) == (str(command.pk), "srv-1")


async def test_health_checks_are_told_once_for_each_revision_and_session(gateway_pem: str) -> None:
    async with connected(gateway_pem) as communicator:
        agent = SimulatedAgent(await in_database(Gateway.objects.get))
        await say(communicator, agent.online())
        first = await hear(communicator, "config_update")
        assert first["health_checks"] == []
        checks = [{"check_id": "a", "probe": {"type": "tcp", "port": 5432}}]
        await in_database(lambda: set_health_checks(agent=agent.row, checks=checks))
        second = await hear(communicator, "config_update")
        assert second["revision"] != first["revision"]
        assert second["health_checks"][0]["probe"] == {"type": "tcp", "port": 5432, "host": "localhost"}
        # A command wakes the link again: nothing but the command comes.
        await in_database(queue, agent)
        assert (await hear(communicator))["type"] == "command"
        # A new session of the agent is told again, though nothing changed in between.
        for _ in range(2):
            await say(communicator, agent.online())
            assert (await hear(communicator, "config_update"))["revision"] == first["revision"]


async def test_output_that_no_database_holds_neither_breaks_the_link_nor_stops_the_agent(gateway_pem: str) -> None:
    async with connected(gateway_pem) as communicator:
        agent = SimulatedAgent(await in_database(Gateway.objects.get))
        await say(communicator, agent.online())
        await hear(communicator, "resume")
        command = await in_database(queue, agent)
        result = {"stdout": "a\0b", "load": float("nan"), "key\0": 1}
        await say(communicator, agent.events(command_result(command, result=result, error="\0")))
        assert (await hear(communicator, "events_ack"))["seq"] == 1
        stored = await in_database(Command.objects.get)
        assert stored.result == {"stdout": "a\ufffdb", "load": None, "key\ufffd": 1}
        assert stored.detail == "\ufffd"


async def test_a_report_that_cannot_be_stored_stops_its_own_agent_only(
    gateway_pem: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with connected(gateway_pem) as communicator:
        gateway = await in_database(Gateway.objects.get)
        poisoned, healthy = SimulatedAgent(gateway, "srv-1"), SimulatedAgent(gateway, "srv-2")
        await say(communicator, poisoned.online(), healthy.online())
        for _ in range(2):
            await hear(communicator, "resume")
        command = await in_database(queue, healthy)
        largest = 2**63 - 1
        await in_database(Agent.objects.filter(agent_id="srv-1").update, acked_seq=largest)
        too_large = messages.Event(largest + 1, AT, command_result(command, CommandOutcome.FAILED))
        await say(
            communicator,
            messages.Events("srv-1", "journal-1", [too_large]),
            healthy.events(command_result(command)),
            SimulatedAgent(gateway, "srv-3", incarnation="x" * 100).online(),
            healthy.events(),
        )
        acks = [await hear(communicator, "events_ack") for _ in range(2)]
        assert {(ack["target_agent"], ack["seq"]) for ack in acks} == {("srv-2", 1)}
        assert (await in_database(Command.objects.get)).state == CommandState.SUCCEEDED
        assert not await in_database(Agent.objects.filter(agent_id="srv-3").exists)
    assert caplog.text.count("cannot be stored") == 2


async def test_the_end_of_the_connection_ends_the_sessions_behind_it(gateway_pem: str) -> None:
    async with connected(gateway_pem) as communicator:
        agent = SimulatedAgent(await in_database(Gateway.objects.get))
        await say(communicator, agent.online())
        await hear(communicator, "resume")
        assert (await in_database(lambda: agent.row)).is_online
    assert not (await in_database(lambda: agent.row)).is_online
    assert not (await in_database(Gateway.objects.get)).is_online


async def test_the_end_of_an_older_connection_leaves_the_newer_one(gateway_pem: str) -> None:
    async with connected(gateway_pem) as older, connected(gateway_pem) as newer:
        agent = SimulatedAgent(await in_database(Gateway.objects.get))
        await say(newer, agent.online())
        await hear(newer, "resume")
        await older.disconnect(timeout=5)
        assert (await in_database(lambda: agent.row)).is_online
        await in_database(queue, agent)
        assert (await hear(newer, "command"))["target_agent"] == "srv-1"


def test_read_frame_leaves_what_can_be_stored_as_it_is() -> None:
    content = {"text": "naïve ✓\t\n", "list": [1, 2.5, None, True]}
    result = messages.CommandResult("x", True, CommandOutcome.SUCCEEDED, content)
    sent = messages.Events("srv-1", "journal-1", [messages.Event(1, AT, result)])
    assert read_frame(codec.encode(sent)) == sent
