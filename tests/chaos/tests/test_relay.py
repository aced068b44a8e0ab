"""What a relay does to a connection, seen from its client."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from tests.chaos.relay import Relay, Streams

SOON_S = 0.3


class Server:
    """Answers every line: with itself, or with `answer`. `heard` is what it was told."""

    def __init__(self, answer: bytes | None = None) -> None:
        self.heard: list[bytes] = []
        self._answer = answer
        self._server: asyncio.Server | None = None
        self._handlers: set[asyncio.Task[None]] = set()

    async def start(self) -> Relay:
        """Returns a relay before it."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        return Relay(lambda: asyncio.open_connection("127.0.0.1", port))

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        await asyncio.gather(*self._handlers)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._handlers.add(task)
        with contextlib.suppress(ConnectionError):
            while line := await reader.readline():
                self.heard.append(line)
                writer.write(self._answer or line)
        writer.transport.abort()


@pytest.fixture
async def relay() -> AsyncIterator[Relay]:
    """A relay before a server that says every line again."""
    server = Server()
    relay = await server.start()
    yield relay
    await relay.close()
    await server.stop()


async def connect(relay: Relay) -> Streams:
    return await asyncio.open_connection("127.0.0.1", await relay.listen_tcp())


async def ask(streams: Streams, line: bytes) -> bytes:
    """The answer, empty if the connection ended, or TimeoutError."""
    reader, writer = streams
    async with asyncio.timeout(SOON_S):
        writer.write(line)
        try:
            return await reader.readline()
        except ConnectionError:
            return b""


async def test_it_carries(relay: Relay) -> None:
    streams = await connect(relay)
    assert await ask(streams, b"one\n") == b"one\n"
    streams[1].transport.abort()


async def test_cut(relay: Relay) -> None:
    streams = await connect(relay)
    await ask(streams, b"one\n")
    relay.cut()
    assert await ask(streams, b"two\n") == b""
    streams[1].transport.abort()


async def test_half_open_carries_later_what_was_sent_meanwhile(relay: Relay) -> None:
    streams = await connect(relay)
    await ask(streams, b"one\n")
    relay.freeze()
    with pytest.raises(TimeoutError):
        await ask(streams, b"two\n")
    relay.thaw()
    assert await ask(streams, b"three\n") == b"two\n"
    streams[1].transport.abort()


async def test_a_new_connection_to_a_frozen_relay_is_taken_and_silent(relay: Relay) -> None:
    relay.freeze()
    streams = await connect(relay)
    with pytest.raises(TimeoutError):
        await ask(streams, b"one\n")
    relay.thaw()
    streams[1].transport.abort()


async def test_delay(relay: Relay) -> None:
    relay.delay_s = 2 * SOON_S
    streams = await connect(relay)
    with pytest.raises(TimeoutError):
        await ask(streams, b"one\n")
    assert await streams[0].readline() == b"one\n"
    streams[1].transport.abort()


async def test_a_lost_answer_was_a_request_that_arrived() -> None:
    server = Server(b"done\n")
    relay = await server.start()
    streams = await connect(relay)
    relay.lose_answer_to(b"COMMIT", skip=1)
    assert await ask(streams, b"COMMIT 1\n") == b"done\n"
    assert await ask(streams, b"other\n") == b"done\n"
    assert await ask(streams, b"COMMIT 2\n") == b""
    assert server.heard == [b"COMMIT 1\n", b"other\n", b"COMMIT 2\n"]
    assert relay.lost_answers == 1
    streams[1].transport.abort()
    await relay.close()
    await server.stop()
