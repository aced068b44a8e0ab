"""A man in the middle of a link who has the certificates of both ends: he repeats frames, old ones too, changes their
order, and forges.

He stands for a gateway that was taken over, or one with a fault: whatever he does, seals hold, and nothing runs twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import ssl
import uuid
from collections import deque
from collections.abc import AsyncIterator, Iterator

from websockets.asyncio.client import connect
from websockets.asyncio.connection import Connection
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed, WebSocketException

from opsmap_protocol import MAX_FRAME_BYTES

_HELD_FOR_S = 0.05
_REMEMBERED = 500
_LIES = (
    ('"outcome":"succeeded"', '"outcome":"not_started"'),
    ('"outcome":"failed"', '"outcome":"succeeded"'),
    ('"status":"completed"', '"status":"failed"'),
)
_OPTIONS = {"max_size": MAX_FRAME_BYTES, "compression": None, "ping_interval": None}


class Meddler:
    """`duplicates`, `reorders`, `replays`, `forgeries`: probabilities for each frame, zero until a trial sets them.

    A replay is any frame that he has carried, in this session or an earlier one. A forgery comes before what it is made
    from, so that whoever believes it has done so already when the truth arrives.

    Args:
        server_tls: with the certificate of the server that he plays.
        client_tls: with the certificate of the client that he plays.
        target: host and port of the real server.
    """

    def __init__(
        self, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext, target: str, draw: random.Random
    ) -> None:
        self._server_tls = server_tls
        self._client_tls = client_tls
        self._target = target
        self._draw = draw
        self._server: Server | None = None
        self.duplicates = 0.0
        self.reorders = 0.0
        self.replays = 0.0
        self.forgeries = 0.0
        self._seen: dict[bool, deque[str | bytes]] = {side: deque(maxlen=_REMEMBERED) for side in (True, False)}
        self.deeds = 0
        """How many frames he has meddled with."""

    async def listen(self) -> int:
        """Returns the port on loopback."""
        self._server = await serve(self._serve, "127.0.0.1", 0, ssl=self._server_tls, **_OPTIONS)
        port: int = next(iter(self._server.sockets)).getsockname()[1]
        return port

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    def behave(self) -> None:
        self.duplicates = self.reorders = self.replays = self.forgeries = 0.0

    async def _serve(self, client: ServerConnection) -> None:
        assert client.request is not None
        url = f"wss://{self._target}{client.request.path}"
        try:
            async with connect(url, ssl=self._client_tls, proxy=None, **_OPTIONS) as server:
                ends = [
                    asyncio.create_task(self._carry(client, server, is_upward=True)),
                    asyncio.create_task(self._carry(server, client, is_upward=False)),
                ]
                _, pending = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
                for task in pending:
                    task.cancel()
                await asyncio.wait(ends)
        except (OSError, WebSocketException):
            client.transport.abort()

    async def _carry(self, source: Connection, sink: Connection, *, is_upward: bool) -> None:
        with contextlib.suppress(ConnectionClosed):
            async for frame in self._meddled(source, self._seen[is_upward]):
                await sink.send(frame)
        if source.close_code in (None, 1005, 1006, 1015):
            sink.transport.abort()
        else:
            await sink.close(source.close_code, source.close_reason or "")

    async def _meddled(self, source: Connection, seen: deque[str | bytes]) -> AsyncIterator[str | bytes]:
        held: str | bytes | None = None
        while True:
            try:
                async with asyncio.timeout(None if held is None else _HELD_FOR_S):
                    frame = await source.recv()
            except TimeoutError:
                assert held is not None
                yield held
                held = None
                continue
            for extra in self._extras(frame, seen):
                self.deeds += 1
                yield extra
            seen.append(frame)
            if held is None and self._draw.random() < self.reorders:
                self.deeds += 1
                held = frame
                continue
            yield frame
            if self._draw.random() < self.duplicates:
                self.deeds += 1
                yield frame
            if held is not None:
                yield held
                held = None

    def _extras(self, frame: str | bytes, seen: deque[str | bytes]) -> Iterator[str | bytes]:
        if seen and self._draw.random() < self.replays:
            yield self._draw.choice(seen)
        if self._draw.random() < self.forgeries:
            forged = forge(frame)
            if forged != frame:
                yield forged


def forge(frame: str | bytes) -> str | bytes:
    """The frame with other content and its old seal: a command under a new id, a result that is not true."""
    text = frame if isinstance(frame, str) else frame.decode()
    if '"type":"command"' in text:
        return re.sub(r'(?<="request_id":")[^"]+', str(uuid.uuid4()), text)
    for truth, lie in _LIES:
        text = text.replace(truth, lie)
    return text
