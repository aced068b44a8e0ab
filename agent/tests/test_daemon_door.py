"""The listener that holds back whoever has not said who it is."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from opsmap_daemon.door import Door, Dropped

DEADLINE_S = 30.0
"""Nobody waits so long unless a test fails."""


class Host:
    """An echo server behind a door: a connection that has sent a line has said who it is."""

    def __init__(self, **settings: float) -> None:
        self.dropped: list[Dropped] = []
        self.door = Door("127.0.0.1", 0, on_drop=self.dropped.append, **settings)  # type: ignore[arg-type]
        self.port: int = self.door.getsockname()[1]
        self.open: set[asyncio.StreamWriter] = set()
        self.visitors: list[Visitor] = []
        self.server: asyncio.Server

    async def echo(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open.add(writer)
        try:
            while line := await reader.readline():
                self.door.admit(writer.transport)
                writer.write(line)
        except ConnectionResetError:
            pass
        finally:
            writer.close()
            self.open.remove(writer)

    async def connect(self, address: str = "127.0.0.1") -> Visitor:
        visitor = Visitor(*await asyncio.open_connection("127.0.0.1", self.port, local_addr=(address, 0)))
        self.visitors.append(visitor)
        return visitor

    async def end(self) -> None:
        for visitor in self.visitors:
            visitor.writer.transport.abort()
        await self.until(lambda: not self.open)
        await asyncio.sleep(0.01)

    @staticmethod
    async def until(condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not condition():  # noqa: ASYNC110 - there is no event to wait for
                await asyncio.sleep(0.01)


class Visitor:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def is_answered(self) -> bool:
        self.writer.write(b"hello\n")
        async with asyncio.timeout(DEADLINE_S):
            return await self.reader.readline() == b"hello\n"

    async def is_dropped(self) -> bool:
        async with asyncio.timeout(DEADLINE_S):
            return await self.reader.read() == b""


@asynccontextmanager
async def opened(**settings: float) -> AsyncIterator[Host]:
    host = Host(**settings)
    async with await asyncio.start_server(host.echo, sock=host.door) as host.server:
        try:
            yield host
        finally:
            await host.end()


async def test_the_oldest_unfinished_one_makes_room() -> None:
    async with opened(limit=3) as host:
        visitors = [await host.connect() for _ in range(4)]
        assert await visitors[0].is_dropped()
        assert host.dropped == [Dropped.TOO_MANY]
        for visitor in visitors[1:]:
            assert await visitor.is_answered()


async def test_who_has_said_so_is_not_counted() -> None:
    async with opened(limit=2) as host:
        visitors = [await host.connect() for _ in range(2)]
        for visitor in visitors:
            assert await visitor.is_answered()
        assert host.door.unfinished == 0
        crowd = [await host.connect() for _ in range(10)]
        assert await crowd[0].is_dropped()
        for visitor in visitors:
            assert await visitor.is_answered()


async def test_a_crowd_from_one_host_does_not_push_out_another() -> None:
    async with opened(limit=8) as host:
        lonely = await host.connect("127.0.0.2")
        crowd = [await host.connect() for _ in range(50)]
        assert await crowd[0].is_dropped()
        assert await lonely.is_answered()
        assert host.door.unfinished == 7


async def test_nobody_stays_unfinished_for_long() -> None:
    async with opened(timeout_s=0.05) as host:
        silent = await host.connect()
        talking = await host.connect()
        assert await talking.is_answered()
        assert await silent.is_dropped()
        assert host.dropped == [Dropped.TOO_SLOW]
        assert await talking.is_answered()


async def test_who_left_is_neither_counted_nor_mistaken_for_another() -> None:
    """A descriptor that was closed is given to the next connection."""
    async with opened(limit=2, timeout_s=0.3) as host:
        for _ in range(20):
            visitor = await host.connect()
            visitor.writer.close()
            await visitor.reader.read()
        assert host.dropped == []
        newest = await host.connect()
        assert await newest.is_answered()
        await asyncio.sleep(0.35)
        assert await newest.is_answered()
        assert host.dropped == []


async def test_ten_thousand_silent_connections_leave_room_for_others() -> None:
    limit, crowd_size = 64, 10_000
    async with opened(limit=limit) as host:
        regular = await host.connect("127.0.0.2")
        assert await regular.is_answered()
        crowd = asyncio.create_task(asyncio.to_thread(knock, host.port, crowd_size))
        asked = 0
        while not crowd.done():
            assert await regular.is_answered()
            newcomer = await host.connect("127.0.0.3")
            assert await newcomer.is_answered()
            newcomer.writer.close()
            asked += 1
            assert host.door.unfinished <= limit
        assert asked > 10
        for silent in await crowd:
            silent.close()
        # The rest still waits in the kernel.
        assert len(host.dropped) > crowd_size // 2


def knock(port: int, count: int) -> list[socket.socket]:
    """Open connections and say nothing, a thousand at a time: a process has only so many files."""
    opened: list[socket.socket] = []
    for _ in range(count):
        opened.append(socket.create_connection(("127.0.0.1", port)))
        if len(opened) > 1_000:
            opened.pop(0).close()
    return opened


async def test_closing_sees_off_who_has_not_finished() -> None:
    async with opened() as host:
        silent, regular = await host.connect(), await host.connect()
        assert await regular.is_answered()
        await Host.until(lambda: host.door.unfinished == 1)
        host.server.close()
        assert await silent.is_dropped()
        assert await regular.is_answered()
        assert host.dropped == []


def test_address_in_use_is_told() -> None:
    with Door("127.0.0.1", 0) as door:
        port = door.getsockname()[1]
        door.listen()
        with pytest.raises(OSError, match=f"127.0.0.1 port {port}: Address already in use"):
            Door("127.0.0.1", port)


def test_ipv6_is_listened_to_when_asked() -> None:
    if not socket.has_ipv6:
        pytest.skip("this machine has no IPv6")
    with Door("::1", 0) as door:
        assert door.family is socket.AF_INET6
