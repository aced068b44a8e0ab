"""Bytes that are no frames of ours: refused, and an agent that is there already is served meanwhile."""

from __future__ import annotations

import asyncio
import json
import ssl
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any

import psutil
import pytest

from opsmap_daemon import tls
from testing_frames import GOLDEN
from testing_pki import Leaf

OpenZone = Callable[..., AbstractAsyncContextManager[Any]]


async def is_served(zone: Any, agent: Any) -> None:
    """A command reaches the agent at once."""
    command = {**GOLDEN["command"][0], "target_agent": "honest", "request_id": str(uuid.uuid4())}
    await zone.link.send(json.dumps(command))
    assert await agent.next("command") == command


def client_context(zone: Any, leaf: Leaf) -> ssl.SSLContext:
    return tls.client_context(leaf.cert, leaf.key, zone.pki.gateway_ca.ca)


@asynccontextmanager
async def upgraded(zone: Any, leaf: Leaf) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A WebSocket by hand, past its HTTP handshake: what follows are bytes."""
    reader, writer = await asyncio.open_connection(
        "localhost", zone.gateway.server.port, ssl=client_context(zone, leaf)
    )
    writer.write(
        b"GET /agent/ HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
    )
    answer = await reader.readuntil(b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 101")
    assert b"permessage-deflate" not in answer.lower()
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def until_closed(reader: asyncio.StreamReader) -> None:
    async with asyncio.timeout(10):
        with suppress(ConnectionError):
            while await reader.read(65_536):
                pass


@pytest.mark.parametrize(
    ("name", "frame"),
    [
        ("1 GB announced", b"\x81\xff" + (2**30).to_bytes(8, "big") + b"\0\0\0\0" + b"x" * 100_000),
        ("the largest there is", b"\x81\xff" + (2**63 - 1).to_bytes(8, "big") + b"\0\0\0\0"),
        ("compressed without having been agreed", b"\xc1\x84\0\0\0\0abcd"),
        ("not masked", b"\x81\x02{}"),
        ("a kind that there is not", b"\x8f\x80\0\0\0\0"),
        ("no WebSocket at all", b"GET / HTTP/1.1\r\n\r\n" * 1_000),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
async def test_frames_that_no_peer_of_ours_sends(open_zone: OpenZone, name: str, frame: bytes) -> None:
    process = psutil.Process()
    async with open_zone() as zone, zone.agent("honest") as honest:
        resident = process.memory_info().rss
        async with upgraded(zone, zone.pki.agent("hostile")) as (reader, writer):
            writer.write(frame)
            await is_served(zone, honest)
            await until_closed(reader)
        assert process.memory_info().rss - resident < 32 * 1024**2
        await is_served(zone, honest)


async def test_a_message_in_endless_pieces_is_cut_off(open_zone: OpenZone) -> None:
    process = psutil.Process()
    async with open_zone() as zone, zone.agent("honest") as honest:
        resident = process.memory_info().rss
        async with upgraded(zone, zone.pki.agent("hostile")) as (reader, writer):
            piece = b"\xff" + (60_000).to_bytes(8, "big") + b"\0\0\0\0" + b" " * 60_000
            writer.write(b"\x01" + piece)
            with suppress(ConnectionError):
                for _ in range(500):
                    writer.write(b"\x00" + piece)
                    await asyncio.wait_for(writer.drain(), 5)
            await is_served(zone, honest)
            await until_closed(reader)
        assert process.memory_info().rss - resident < 64 * 1024**2
