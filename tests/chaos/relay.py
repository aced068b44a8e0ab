"""A plain relay of bytes, for TCP and unix sockets: it cuts, falls silent, delays, and loses the answer to a commit.

It knows nothing of what it carries, TLS included, so that what it does looks to both ends like the network's doing.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

_CHUNK_BYTES = 64 * 1024

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(eq=False)
class _Connection:
    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    is_doomed: bool = False
    """The next answer of the server is the one that gets lost."""

    def abort(self) -> None:
        self.client.transport.abort()
        self.server.transport.abort()


class Relay:
    """Use all of it from one event loop; `listen_tcp` or `listen_unix` once.

    Args:
        dial: opens a connection to the server.
    """

    def __init__(self, dial: Callable[[], Awaitable[Streams]]) -> None:
        self._dial = dial
        self._connections: set[_Connection] = set()
        self._is_open = asyncio.Event()
        self._is_open.set()
        self._server: asyncio.Server | None = None
        self._doom: tuple[bytes, ...] = ()
        self._dooms_left = 0
        self.delay_s = 0.0
        self.lost_answers = 0

    async def listen_tcp(self, host: str = "127.0.0.1") -> int:
        """Returns the port."""
        self._server = await asyncio.start_server(self._serve, host, 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def listen_unix(self, path: str) -> None:
        self._server = await asyncio.start_unix_server(self._serve, path)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        self.cut()
        if self._server is not None:
            await self._server.wait_closed()

    def cut(self) -> None:
        """Every connection ends at once, without a goodbye; new ones are served."""
        for connection in list(self._connections):
            connection.abort()

    def freeze(self) -> None:
        """Half open: connections stay, also new ones are taken, and nothing is carried any more."""
        self._is_open.clear()

    def thaw(self) -> None:
        """What waited is carried now, late."""
        self._is_open.set()

    def lose_answer_to(self, *requests: bytes, skip: int = 0) -> None:
        """Carry the next chunk with one of `requests` to the server, and cut when its answer comes.

        `skip` such chunks pass before.
        """
        self._doom, self._dooms_left = requests, skip

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            server_reader, server_writer = await self._dial()
        except OSError:
            writer.transport.abort()
            return
        connection = _Connection(writer, server_writer)
        self._connections.add(connection)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._carry(reader, server_writer, connection, is_request=True))
                group.create_task(self._carry(server_reader, writer, connection, is_request=False))
        finally:
            self._connections.discard(connection)
            connection.abort()

    async def _carry(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        connection: _Connection,
        *,
        is_request: bool,
    ) -> None:
        # Both ends are ours to break: how a connection ends is no news here.
        with contextlib.suppress(OSError):
            while chunk := await reader.read(_CHUNK_BYTES):
                await self._is_open.wait()
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                if is_request:
                    self._look_for_doom(chunk, connection)
                elif connection.is_doomed:
                    self.lost_answers += 1
                    break
                writer.write(chunk)
                await writer.drain()
        if is_request and not connection.is_doomed and writer.can_write_eof():
            with contextlib.suppress(OSError):
                writer.write_eof()
                return
        connection.abort()

    def _look_for_doom(self, chunk: bytes, connection: _Connection) -> None:
        if not any(request in chunk for request in self._doom):
            return
        if self._dooms_left:
            self._dooms_left -= 1
            return
        self._doom = ()
        connection.is_doomed = True
