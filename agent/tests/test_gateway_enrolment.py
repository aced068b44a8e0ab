"""The door for agents that have no certificate yet, and agents that come to it: the whole way but for the backend."""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives import serialization
from websockets.asyncio.client import connect

from opsmap_agent.agent import Agent
from opsmap_agent.configuration import Configuration as AgentConfiguration
from opsmap_agent.identity.enrolment import add_arguments, default_agent_id, enroll
from opsmap_daemon import tls
from opsmap_daemon.configuration import load
from opsmap_gateway.attempts import Attempts
from opsmap_gateway.configuration import Configuration, Enrolment
from opsmap_protocol.codec import encode
from opsmap_protocol.enums import PeerRole
from opsmap_protocol.identity import Identity
from opsmap_protocol.messages import Authorities, Enroll, EnrolmentAnswer
from opsmap_trust.certificates import encode_certificate
from opsmap_trust.enrolment_tokens import EnrolmentTokenText
from testing_pki import ORGANIZATION, Pki

if TYPE_CHECKING:
    from conftest import OpenZone, Zone

pytestmark = pytest.mark.usefixtures("pki")


@dataclass
class Door:
    """A gateway with an open door, and what a host needs to come to it."""

    zone: Zone
    folder: Path
    token: str
    tried: int = 0

    @property
    def url(self) -> str:
        assert self.zone.gateway.enrolment is not None
        return f"wss://localhost:{self.zone.gateway.enrolment.port}"

    def options(self, *extra: str, token: str | None = None) -> argparse.Namespace:
        parser = argparse.ArgumentParser()
        add_arguments(parser)
        (self.folder / "token").write_text((token or self.token) + "\n")
        config = self.folder / "etc" / "agent.yaml"
        config.parent.mkdir(exist_ok=True)
        given = ["--gateway", self.url, "--token-file", str(self.folder / "token"), "--config", str(config)]
        return parser.parse_args([*given, *extra])

    async def enroll(self, *extra: str, token: str | None = None) -> int:
        """What the command does, in a thread: it has an event loop of its own. Its exit code."""
        return await asyncio.to_thread(enroll, self.options(*extra, token=token))

    async def answer(self, *, name: str | None = None, code: str = "", reason: str = "", **times: timedelta) -> Any:
        """Answer the next request like a backend; the request."""
        request = await self.zone.link.next("enroll_agent")
        asked = request["agent_id"]
        pki = self.zone.pki
        uri = Identity(ORGANIZATION, PeerRole.AGENT, name or asked).uri
        chain = [] if code else pki.issue(pki.agent_ca, uri, request["csr"], **times)
        await self.zone.link.send(EnrolmentAnswer(request["enrolment_id"], asked, chain, code, reason))
        return request


def authorities(pki: Pki) -> Authorities:
    return Authorities(
        root=encode_certificate(pki.root.certificate),
        backend=[encode_certificate(pki.backend_ca.certificate)],
        gateway=[encode_certificate(pki.gateway_ca.certificate)],
        agent=[encode_certificate(pki.agent_ca.certificate)],
    )


def token_for(pki: Pki) -> str:
    der = pki.root.certificate.public_bytes(serialization.Encoding.DER)
    return str(EnrolmentTokenText(secrets.token_bytes(32), hashlib.sha256(der).digest()))


@pytest.fixture
def own_files(pki: Pki, gateway_configuration: Configuration, tmp_path: Path) -> dict[str, Any]:
    """Sections of a gateway with an open door, and with files of its own that may be replaced."""
    folder = tmp_path / "gateway-files"
    folder.mkdir()
    leaf = pki.copy_of(pki.gateway("gw-1"), folder)
    backend_ca, agent_ca = folder / "backend-ca.crt", folder / "agent-ca.crt"
    backend_ca.write_bytes(pki.backend_ca.ca.read_bytes())
    agent_ca.write_bytes(pki.agent_ca.ca.read_bytes())
    server, link = gateway_configuration.agent_server, gateway_configuration.backend_connection
    own = {"cert_file": leaf.cert, "key_file": leaf.key}
    return {
        "agent_server": replace(
            server,
            tls=replace(server.tls, client_ca_file=agent_ca, **own),
            enrolment=Enrolment(enabled=True, bind_address="127.0.0.1:0"),
        ),
        "backend_connection": replace(link, tls=replace(link.tls, ca_file=backend_ca, root_ca_file=pki.root.ca, **own)),
    }


@pytest.fixture
def open_door(
    open_zone: OpenZone, own_files: dict[str, Any], pki: Pki, gateway_configuration: Configuration, tmp_path: Path
) -> Any:
    """`async with open_door() as door`; `is_told` False: the backend has not said whom to trust."""

    @asynccontextmanager
    async def open_(is_told: bool = True) -> AsyncIterator[Door]:
        # The link's address is the fixture's own: only what belongs to the files is taken.
        gateway_configuration_tls = own_files["backend_connection"].tls
        object.__setattr__(gateway_configuration.backend_connection, "tls", gateway_configuration_tls)
        async with open_zone(agent_server=own_files["agent_server"]) as zone:
            if is_told:
                await zone.link.send(authorities(pki))
                await zone.until(lambda: zone.gateway.trustees.checked is not None)
            yield Door(zone, tmp_path, token_for(pki))

    return open_


async def test_enrolled_agent_can_work_with_what_was_written(
    open_door: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    async with open_door() as door:
        port = door.zone.gateway.server.port
        extra = ("--id", "srv-9", "--connect-to", f"wss://localhost:{port}")
        code, request = await asyncio.gather(door.enroll(*extra), door.answer())
        assert (code, request["agent_id"], request["address"]) == (0, "srv-9", "127.0.0.1")
        assert request["enrolment_token"] == door.token
        assert "enrolled as agent srv-9" in capsys.readouterr().out
        configuration = load(door.folder / "etc" / "agent.yaml", AgentConfiguration)
        assert configuration.tls.key_file.stat().st_mode & 0o777 == 0o600
        assert configuration.tls.key_file.parent.stat().st_mode & 0o777 == 0o700
        assert Agent(configuration).agent_id == "srv-9"
        journal = replace(configuration.buffer, path=door.folder / "journal")
        jobs = replace(configuration.detached_execution, log_dir=door.folder / "jobs")
        running = asyncio.create_task(Agent(replace(configuration, buffer=journal, detached_execution=jobs)).run())
        try:
            online = await door.zone.link.next("agent_online")
            assert online["agent"]["agent_id"] == "srv-9"
        finally:
            running.cancel()
            await asyncio.wait([running])


async def test_working_identity_is_not_overwritten_without_force(
    open_door: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    async with open_door() as door:
        await asyncio.gather(door.enroll("--id", "srv-9"), door.answer())
        before = (door.folder / "etc/certs/agent.crt").read_bytes()
        assert await door.enroll() == 1
        assert "this is agent srv-9 already; --force replaces that" in capsys.readouterr().err
        assert (door.folder / "etc/certs/agent.crt").read_bytes() == before
        code, _ = await asyncio.gather(door.enroll("--force"), door.answer())
        assert code == 0
        assert (door.folder / "etc/certs/agent.crt").read_bytes() != before


async def test_gateway_of_another_installation_gets_no_token(
    open_door: Any, pki: Pki, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stranger = Pki(tmp_path)
    async with open_door() as door:
        assert await door.enroll("--id", "srv-9", token=token_for(stranger)) == 1
        assert "belongs to another installation than the token" in capsys.readouterr().err
        assert not (door.folder / "etc" / "certs").exists()


async def test_impostor_with_the_right_root_and_no_key_gets_no_token(
    open_door: Any, pki: Pki, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It repeats the introduction of the right gateway, which is public, but cannot show a certificate below it."""
    from websockets.asyncio.server import serve

    from opsmap_protocol.messages import Introduction

    heard: list[str | bytes] = []
    stranger = Pki(tmp_path).gateway("gw-1")
    named = authorities(pki)

    async def impersonate(socket: Any) -> None:
        await socket.send(encode(Introduction(named.root, named.gateway)))
        async for frame in socket:
            heard.append(frame)

    context = tls.open_server_context(stranger.cert, stranger.key)
    async with open_door() as door, serve(impersonate, "127.0.0.1", 0, ssl=context) as server:
        port = server.sockets[0].getsockname()[1]
        assert await door.enroll("--id", "srv-9", "--gateway", f"wss://localhost:{port}") == 1
    assert heard == []
    assert "its certificate is not accepted" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("code", "exit_code"), [("token_spent", 77), ("name_taken", 77), ("wrong_gateway", 77), ("too_many_refusals", 75)]
)
async def test_refusal_is_told_and_leaves_nothing(
    open_door: Any, code: str, exit_code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """A replayed enrolment is the first of these."""
    async with open_door() as door:
        found, _ = await asyncio.gather(door.enroll("--id", "srv-9"), door.answer(code=code, reason="No more uses."))
        assert found == exit_code
        assert f"not enrolled: refused: No more uses. ({code})" in capsys.readouterr().err
        assert not (door.folder / "etc" / "certs").exists()
        assert not (door.folder / "etc" / "agent.yaml").exists()


async def test_certificate_for_somebody_else_is_not_written(open_door: Any, capsys: pytest.CaptureFixture[str]) -> None:
    async with open_door() as door:
        code, _ = await asyncio.gather(door.enroll("--id", "srv-9"), door.answer(name="srv-10"))
        assert code == 1
        assert "agent/srv-10, not of" in capsys.readouterr().err
        assert not (door.folder / "etc" / "certs").exists()


async def test_clock_an_hour_off_is_named(open_door: Any, capsys: pytest.CaptureFixture[str]) -> None:
    async with open_door() as door:
        code, _ = await asyncio.gather(door.enroll("--id", "srv-9"), door.answer(begins=timedelta(hours=1)))
        assert code == 1
        assert "by this host's clock, which is suspicious" in capsys.readouterr().err
        # An hour fast, the certificate is good, and the clock is still named.
        code, _ = await asyncio.gather(door.enroll("--id", "srv-9"), door.answer(begins=-timedelta(hours=1)))
        assert code == 0
        assert "is the clock right?" in capsys.readouterr().err


async def test_before_the_backend_has_spoken_and_after_it_left_one_has_to_try_again(
    open_door: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    async with open_door(is_told=False) as door:
        assert await door.enroll("--id", "srv-9") == 75
        assert "has not heard from the backend since it started: try again" in capsys.readouterr().err
        await door.zone.link.send(authorities(door.zone.pki))
        await door.zone.until(lambda: door.zone.gateway.trustees.checked is not None)
        door.zone.gateway.link._make_dialler = lambda: pytest.fail("nobody dials any more")
        door.zone.gateway.link._outbox = None
        assert await door.enroll("--id", "srv-9") == 75
        assert "no connection to the backend: try again" in capsys.readouterr().err


@asynccontextmanager
async def visitor(door: Door) -> AsyncIterator[Any]:
    context = tls.enrolling_context(door.zone.pki.gateway_ca.ca.read_text())
    async with connect(f"{door.url}/enroll/", ssl=context, compression=None, proxy=None) as socket:
        assert json.loads(await socket.recv())["type"] == "introduction"
        yield socket


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"hostname": "<h1>" * 2560}, "hostname: 10240 characters, 1 to 253 are expected"),
        ({"agent_id": "<h1>"}, "agent_id: letters, digits"),
        ({"agent_id": "../../etc"}, "agent_id: letters, digits"),
        ({"enrolment_token": ""}, "enrolment_token: 0 characters"),
        ({"enrolment_token": "x" * 1000}, "enrolment_token: 1000 characters"),
        ({"csr": "A" * 9000}, "csr: 9000 characters"),
    ],
)
async def test_bad_words_never_reach_the_backend(open_door: Any, fields: dict[str, str], complaint: str) -> None:
    said = {"enrolment_token": "t", "agent_id": "srv-9", "hostname": "srv-9", "csr": "AAAA"} | fields
    async with open_door() as door:
        async with visitor(door) as socket:
            await socket.send(encode(Enroll(**said)))
            error = json.loads(await socket.recv())
            assert (error["type"], error["code"]) == ("error", "malformed_message")
            assert complaint in error["reason"]
        # The next frame that the backend hears is of somebody else.
        _, request = await asyncio.gather(door.enroll("--id", "srv-10"), door.answer())
        assert request["agent_id"] == "srv-10"


@pytest.mark.parametrize(
    "frame", ["", "{}", '{"type": "register"}', '{"type": "enroll"}', b"\x00", "[" * 5000, "x" * 30000]
)
async def test_what_is_no_enrolment_is_told_so(open_door: Any, frame: str | bytes) -> None:
    async with open_door() as door, visitor(door) as socket:
        await socket.send(frame)
        assert json.loads(await socket.recv())["type"] == "error"
        await socket.wait_closed()
        assert 4000 <= socket.close_code < 5000


async def test_one_address_may_try_so_often_a_minute(open_door: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_door() as door:
        door.zone.gateway.enrolment._attempts = Attempts(per_address=2)
        codes = []
        for _ in range(3):
            async with visitor(door) as socket:
                await socket.send("guess")
                codes.append(json.loads(await socket.recv())["code"])
        assert codes == ["malformed_message", "malformed_message", "too_many_attempts"]


async def test_agents_port_asks_for_a_certificate_and_the_door_for_none(open_door: Any) -> None:
    """Nobody gets from one to the other: the door knows nothing but enrolment."""
    async with open_door() as door:
        async with visitor(door) as socket:
            await socket.send(door.zone.registration("srv-9"))
            assert json.loads(await socket.recv())["type"] == "error"
        context = tls.enrolling_context(door.zone.pki.gateway_ca.ca.read_text())
        with pytest.raises(Exception, match=r"(?i)certificate|closed|reset|no close frame|did not receive"):
            async with connect(door.zone.url, ssl=context, proxy=None) as socket:
                await socket.recv()


def test_attempts_count_by_network_and_forget_after_a_minute() -> None:
    now = 0.0
    attempts = Attempts(per_address=2, in_all=4, clock=lambda: now)
    assert [attempts.count("2001:db8::1"), attempts.count("2001:db8::2"), attempts.count("2001:db8::3")] == [
        True,
        True,
        False,
    ]
    assert [attempts.count("::ffff:10.0.0.1"), attempts.count("10.0.0.2"), attempts.count("10.0.0.3")] == [
        True,
        True,
        False,
    ]
    now = 61.0
    assert attempts.count("10.0.0.3")


def test_default_name_is_one_that_certificates_can_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("opsmap_agent.host.description.hostname", lambda: "_srv <h1>é.example-")
    name = default_agent_id()
    assert name.startswith("srv-h1-.example")
    Identity(ORGANIZATION, PeerRole.AGENT, name)
