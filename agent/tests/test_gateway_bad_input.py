"""Peers that attack: what it costs them, and that nobody else notices."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import ssl
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory

from opsmap_daemon import logs, tls
from opsmap_gateway import agent_server
from opsmap_gateway.configuration import Configuration
from opsmap_gateway.counters import Loss
from opsmap_protocol.errors import CloseCode
from opsmap_protocol.messages import Error
from opsmap_protocol.session import MAX_BAD_FRAMES

if TYPE_CHECKING:
    from conftest import OpenZone, Wire, Zone

MB = 1024 * 1024


async def is_well(zone: Zone, wire: Wire, agent_id: str) -> bool:
    """Whether a command reaches the agent and its answer the backend."""
    await zone.link.send(f'{{"type":"command","target_agent":"{agent_id}","request_id":"r-9"}}')
    await wire.next("command")
    await wire.send(f'{{"type":"command_received","agent_id":"{agent_id}","request_id":"r-9"}}')
    return bool((await zone.link.next("command_received"))["request_id"] == "r-9")


def frame_header(size: int) -> bytes:
    """Of a masked text frame that is said to be so large."""
    return struct.pack("!BBQ", 0x81, 0x80 | 127, size) + b"mask"


def memory_bytes() -> int:
    return psutil.Process(os.getpid()).memory_info().rss


async def test_compression_cannot_be_had(open_zone: OpenZone) -> None:
    """A megabyte of zeros is a kilobyte when it is compressed; a gigabyte is a megabyte."""
    async with open_zone() as zone, zone.agent("srv-2") as other:
        leaf = zone.pki.agent("srv-1")
        context = tls.client_context(leaf.cert, leaf.key, zone.pki.gateway_ca.ca)
        async with connect(zone.url, ssl=context, proxy=None, extensions=[ClientPerMessageDeflateFactory()]) as agent:
            assert agent.protocol.extensions == []
            # Sent all the same, as if it had been agreed on.
            agent.transport.write(b"\xc1\x85mask" + b"\0" * 5)
            async with asyncio.timeout(5):
                await agent.wait_closed()
            assert agent.close_code == 1002
        assert await is_well(zone, other, "srv-2")


@pytest.mark.parametrize("is_registered", [False, True])
async def test_a_gigabyte_is_refused_from_its_header(open_zone: OpenZone, is_registered: bool) -> None:
    async with open_zone() as zone, zone.agent("srv-2") as other, zone.dial(zone.pki.agent("srv-1")) as agent:
        if is_registered:
            await agent.send(zone.registration("srv-1"))
            await agent.next("registered")
            await zone.link.next("agent_online")
        before = memory_bytes()
        agent.socket.transport.write(frame_header(1024 * MB) + b"x" * MB)
        assert await agent.close_code() == 1009
        assert memory_bytes() - before < 20 * MB
        if is_registered:
            await zone.link.next("agent_offline")
        assert await is_well(zone, other, "srv-2")


async def test_a_greeting_without_an_end_is_small_too(open_zone: OpenZone) -> None:
    """Fragment after fragment, none of them too large."""
    async with open_zone() as zone, zone.dial(zone.pki.agent("srv-1")) as agent:
        with suppress(ConnectionClosed):
            await agent.socket.send("x" * 65_536 for _ in range(1_000))
        assert await agent.close_code() == 1009
        assert len(zone.gateway.registry) == 0


async def test_who_sends_nothing_but_nonsense_is_given_up(
    open_zone: OpenZone, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_zone() as zone, zone.agent("srv-2") as other, zone.agent("srv-1") as agent:
        for _ in range(MAX_BAD_FRAMES):
            await agent.send("nonsense")
        errors = [await agent.next("error") for _ in range(MAX_BAD_FRAMES)]
        assert await agent.close_code() == CloseCode.BAD_MESSAGE
        assert "100 frames could not be understood" in errors[-1]["reason"]
        assert zone.gateway.counters.total(Loss.BAD_FRAME_FROM_AGENT) == MAX_BAD_FRAMES
        await zone.link.next("agent_offline")
        assert await is_well(zone, other, "srv-2")
    lines = [record for record in caplog.records if record.name == "opsmap_gateway.router"]
    assert len(lines) <= 20


async def test_a_backend_that_sends_nonsense_is_left_and_dialled_again(open_zone: OpenZone) -> None:
    async with open_zone() as zone, zone.agent("srv-1") as agent:
        for _ in range(MAX_BAD_FRAMES):
            await zone.link.send("nonsense")
        with suppress(ConnectionClosed):
            while True:
                await zone.link.next_frame()
        assert await zone.link.close_code() == CloseCode.BAD_MESSAGE
        await zone.greet()
        assert zone.gateway.registry.get("srv-1") is not None
        assert agent.socket.close_code is None


async def test_silent_connections_do_not_keep_anybody_out(
    open_zone: OpenZone, gateway_configuration: Configuration
) -> None:
    """The door's own test is about ten thousand of them; here they meet TLS."""
    small = replace(gateway_configuration.agent_server, max_connections=100)
    async with open_zone(agent_server=small) as zone, zone.agent("srv-2") as other:
        before = memory_bytes()
        port = zone.gateway.server.port
        crowd = [await asyncio.to_thread(socket.create_connection, ("127.0.0.1", port)) for _ in range(1_500)]
        assert await is_well(zone, other, "srv-2")
        assert zone.gateway.server.knocking <= 256
        assert zone.gateway.counters.total(Loss.CONNECTION_DROPPED) > 500
        async with zone.agent("srv-1") as newcomer:
            assert await is_well(zone, newcomer, "srv-1")
        assert memory_bytes() - before < 100 * MB
        for each in crowd:
            each.close()


async def test_who_does_not_finish_the_handshake_is_dropped(
    open_zone: OpenZone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent_server, "_HANDSHAKE_TIMEOUT_S", 0.1)
    async with open_zone() as zone:
        silent = await asyncio.open_connection("127.0.0.1", zone.gateway.server.port)
        leaf = zone.pki.agent("srv-1")
        context = tls.client_context(leaf.cert, leaf.key, zone.pki.gateway_ca.ca)
        without_request = await asyncio.open_connection("localhost", zone.gateway.server.port, ssl=context)
        async with asyncio.timeout(5):
            for reader, writer in (silent, without_request):
                with suppress(ConnectionResetError, ssl.SSLError):
                    assert await reader.read() == b""
                writer.close()


async def test_registered_agents_stay_however_long_they_are_silent(open_zone: OpenZone) -> None:
    """The door forgets those who have registered."""
    async with open_zone(registration_timeout_s=0.2) as zone, zone.agent("srv-1") as agent:
        assert zone.gateway.server.knocking == 0
        assert await is_well(zone, agent, "srv-1")


EVIL_NAME = "db\x1b]0;owned\x07\n2026-01-01 ERROR all is lost\u202e<script>"


@pytest.fixture
def log_file(tmp_path: Path) -> Iterator[Path]:
    """Where the gateway writes its log, as a real one does."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers = []
    file = tmp_path / "gateway.log"
    logs.configure(logs.Logging(file=file))
    yield file
    for handler in root.handlers:
        handler.close()
    root.handlers, root.level = handlers, level


async def test_names_with_escapes_arrive_as_they_are_and_are_inert_in_logs(open_zone: OpenZone, log_file: Path) -> None:
    async with open_zone() as zone:
        async with zone.dial(zone.pki.agent("srv-1")) as agent:
            await agent.send(zone.registration("srv-1", hostname=EVIL_NAME, labels={EVIL_NAME: EVIL_NAME}))
            await agent.next("registered")
            online = await zone.link.next("agent_online")
            assert online["agent"]["hostname"] == EVIL_NAME
            assert online["agent"]["labels"] == {EVIL_NAME: EVIL_NAME}
            await agent.send(Error(code="c", reason=EVIL_NAME))
            await agent.send(json.dumps({"type": EVIL_NAME}))
            await agent.next("error")
        async with zone.dial(zone.pki.agent("srv-2")) as stranger:
            await stranger.send(zone.registration("srv-2", agent_id=EVIL_NAME))
            await stranger.next("error")
        await zone.link.send(Error(code=EVIL_NAME, reason=EVIL_NAME))
        await zone.link.send(json.dumps({"type": "resume", "target_agent": EVIL_NAME}))
        await zone.link.send(json.dumps({"type": EVIL_NAME, "target_agent": EVIL_NAME}))
        await zone.link.next("agent_offline")
        await zone.link.next("error")
    text = log_file.read_text()
    assert text.count("owned") >= 4, "nothing of it was logged"
    assert not set(text) & {"\x1b", "\x07", "\u202e"}
    assert not [line for line in text.splitlines() if line.startswith("2026-01-01 ERROR")]
