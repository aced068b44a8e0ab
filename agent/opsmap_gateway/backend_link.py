"""The gateway's end of its connection to the backend: dial, introduce ourselves, and carry frames both ways.

While the backend is away, `put` and `offer` answer False at once. Agents stay connected and keep their events
in their own journals; on every new connection the backend first hears of all agents that are here
(`greeting`), and answers each with a `resume` that makes it repeat what the backend has missed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable

from websockets.asyncio.client import ClientConnection

from opsmap_daemon.connection import Dialler, PeerRefusedError
from opsmap_gateway.counters import Counters, Loss
from opsmap_gateway.outbox import Outbox
from opsmap_protocol.codec import decode, encode
from opsmap_protocol.errors import ProtocolError
from opsmap_protocol.messages import Error, GatewayRegister, GatewayRegistered

_logger = logging.getLogger(__name__)

OnFrame = Callable[[str | bytes], None]

DEFAULT_PATH = "/link/"
_HELLO_TIMEOUT_S = 10.0
_SEND_TIMEOUT_S = 30.0
_MAX_WAITING_FRAMES = 10_000
_MAX_WAITING_BYTES = 32 * 1024 * 1024


class BackendLink:
    """Frames to the backend wait in one bounded outbox, which lives as long as the connection.

    Args:
        dialler: finds and keeps the connection.
        hello: how we introduce ourselves.
    """

    def __init__(self, *, dialler: Dialler, hello: GatewayRegister, counters: Counters) -> None:
        self._dialler = dialler
        self._counters = counters
        self._hello = encode(hello)
        self._outbox: Outbox | None = None

    @property
    def is_up(self) -> bool:
        return self._outbox is not None

    def offer(self, frame: str) -> bool:
        """Send if the backend is there and takes it; never waits.

        For answers to the backend itself: if we stopped reading its frames until it reads ours, both sides
        could wait for each other.
        """
        return self._outbox is not None and self._outbox.offer(frame)

    async def put(self, frame: str) -> bool:
        """Send, waiting (and making the agent wait) while the backend is slow. False if it is away."""
        return self._outbox is not None and await self._outbox.put(frame)

    async def run(self, on_frame: OnFrame, greeting: Callable[[], Iterable[str]]) -> None:
        """Keep the connection until cancelled.

        Args:
            on_frame: called with each frame of the backend; must not block.
            greeting: what the backend must hear first on a new connection. It is asked in the same step of
                the event loop in which `put` begins to work: no agent comes or goes unseen in between.
        """

        async def session(socket: ClientConnection) -> None:
            await self._introduce(socket)
            self._dialler.established()
            await self._carry(socket, on_frame, greeting())

        await self._dialler.run(session)

    async def _introduce(self, socket: ClientConnection) -> None:
        await socket.send(self._hello)
        try:
            async with asyncio.timeout(_HELLO_TIMEOUT_S):
                answer = decode(await socket.recv(), GatewayRegistered | Error)
        except TimeoutError:
            raise TimeoutError("the backend does not answer our registration") from None
        except ProtocolError as error:
            raise PeerRefusedError(f"it does not answer like a backend: {error}") from None
        if isinstance(answer, Error):
            raise PeerRefusedError(f"it refuses this gateway: {answer.reason}")
        _logger.info("connected to the backend, session %s", answer.session_id)

    async def _carry(self, socket: ClientConnection, on_frame: OnFrame, first: Iterable[str]) -> None:
        outbox = Outbox(max_frames=_MAX_WAITING_FRAMES, max_bytes=_MAX_WAITING_BYTES, first=first)
        self._outbox = outbox
        try:
            async with asyncio.TaskGroup() as tasks:
                writer = tasks.create_task(outbox.write_to(socket.send, _SEND_TIMEOUT_S))
                async for frame in socket:
                    on_frame(frame)
                writer.cancel()
        finally:
            self._outbox = None
            self._counters.count(Loss.BACKEND_AWAY, len(outbox.close()))
