"""The gateway's end of its connection to the backend: dial, introduce ourselves, and carry frames both ways.

While the backend is away, `put` and `offer` answer False at once. Agents stay connected and keep their events
in their own journals; on every new connection the backend first hears of all agents that are here
(`greeting`), and answers each with a `resume` that makes it repeat what the backend has missed.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from typing import NoReturn

from websockets.asyncio.client import ClientConnection

from opsmap_daemon.connection import Dialler, PeerRefusedError
from opsmap_gateway.counters import Counters, Loss
from opsmap_gateway.goodbye import say_goodbye
from opsmap_gateway.outbox import Outbox
from opsmap_protocol.codec import encode
from opsmap_protocol.errors import CloseCode, FatalError
from opsmap_protocol.messages import Error, GatewayRegister
from opsmap_protocol.session import GATEWAY_OF_BACKEND, Session

_logger = logging.getLogger(__name__)

OnFrame = Callable[[Session, str | bytes], None]

DEFAULT_PATH = "/link/"
_HELLO_TIMEOUT_S = 10.0
_SEND_TIMEOUT_S = 30.0
_SUCCESSION_S = 20.0
_LEAVING_S = 2.0
"""How long a connection that has a successor is still read and written."""
_MAX_WAITING_FRAMES = 10_000
_MAX_WAITING_BYTES = 32 * 1024 * 1024


class _Tenure:
    """One dialler and its connections, from one renewal of the certificate to the next."""

    def __init__(self) -> None:
        self.task: asyncio.Task[None] | None = None
        self.is_up = asyncio.Event()
        """It has had a connection."""
        self.has_lost = asyncio.Event()
        """It has lost one."""

    async def end(self) -> None:
        if self.task is not None:
            self.task.cancel()
            await asyncio.wait([self.task])


async def _first_of(*events: asyncio.Event) -> None:
    waiting = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for each in waiting:
            each.cancel()


class BackendLink:
    """Frames to the backend wait in one bounded outbox, which lives as long as the connection.

    Args:
        make_dialler: of what finds and keeps a connection; a new one for each certificate that we dial with.
        hello: how we introduce ourselves.
        has_fallback: whether there is another backend to go to when this one says `goaway`.
    """

    def __init__(
        self,
        *,
        make_dialler: Callable[[], Dialler],
        hello: GatewayRegister,
        counters: Counters,
        has_fallback: bool = False,
    ) -> None:
        self._make_dialler = make_dialler
        self._counters = counters
        self._has_fallback = has_fallback
        self._hello = encode(hello)
        self._outbox: Outbox | None = None
        self._is_leaving = False
        self._heard_at: float | None = None
        self._is_renewal_wanted = asyncio.Event()

    @property
    def is_up(self) -> bool:
        return self._outbox is not None

    @property
    def waiting(self) -> int:
        """Frames that the backend has not taken."""
        return 0 if self._outbox is None else len(self._outbox)

    @property
    def silent_s(self) -> float | None:
        """Since the last frame of the backend; None if there was none."""
        return None if self._heard_at is None else time.monotonic() - self._heard_at

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
            on_frame: called with the session and each frame of the backend; must not block. FatalError ends the
                session.
            greeting: what the backend must hear first on a new connection. It is asked in the same step of
                the event loop in which `put` begins to work: no agent comes or goes unseen in between.
        """

        async with asyncio.TaskGroup() as group:

            def begin() -> _Tenure:
                tenure = _Tenure()
                work = self._keep(tenure, on_frame, greeting)
                tenure.task = group.create_task(work, name="backend link")
                return tenure

            present = begin()
            while True:
                await self._is_renewal_wanted.wait()
                self._is_renewal_wanted.clear()
                if self.is_up:
                    present = await self._succeed(present, begin())

    def renew(self) -> None:
        """Replace the connection by a new one, made before the old one breaks. It dials with what is current now."""
        self._is_renewal_wanted.set()

    async def _keep(self, tenure: _Tenure, on_frame: OnFrame, greeting: Callable[[], Iterable[str]]) -> None:
        dialler = self._make_dialler()

        async def session(socket: ClientConnection) -> None:
            try:
                protocol = await self._introduce(socket)
                dialler.established()
                fatal = await self._carry(tenure, socket, protocol, on_frame, greeting())
                if fatal is not None:
                    await self._refuse(socket, fatal)
            finally:
                tenure.has_lost.set()

        await dialler.run(session)

    async def _succeed(self, former: _Tenure, successor: _Tenure) -> _Tenure:
        """Which of them stays, once the other has ended."""
        former.has_lost.clear()
        try:
            async with asyncio.timeout(_SUCCESSION_S):
                await _first_of(successor.is_up, former.has_lost)
        except TimeoutError:
            _logger.error("no new connection to the backend within %g s: the old one stays", _SUCCESSION_S)
            await successor.end()
            return former
        # What either side had on its way by the old one still arrives. If it ends by itself it must not dial again:
        # to the backend, its newest connection is the one that counts.
        try:
            async with asyncio.timeout(_LEAVING_S):
                await former.has_lost.wait()
        except TimeoutError:
            _logger.debug("the former connection to the backend is closed")
        await former.end()
        return successor

    def leave(self, reason: str) -> None:
        """The backend stops soon. Go to another one now, if there is one; else stay as long as it does."""
        _logger.warning("the backend stops soon: %s", reason[:500])
        self._is_leaving = self._has_fallback

    async def _introduce(self, socket: ClientConnection) -> Session:
        await socket.send(self._hello)
        try:
            async with asyncio.timeout(_HELLO_TIMEOUT_S):
                frame = await socket.recv()
        except TimeoutError:
            raise TimeoutError("the backend does not answer our registration") from None
        self._heard_at = time.monotonic()
        protocol = Session(GATEWAY_OF_BACKEND)
        try:
            answer = protocol.read(frame)
        except FatalError as error:
            await self._refuse(socket, error)
        _logger.info("connected to the backend, session %s", answer["session_id"][:80])
        return protocol

    async def _refuse(self, socket: ClientConnection, error: FatalError) -> NoReturn:
        if error.close_code is CloseCode.REFUSED_BY_PEER:
            await say_goodbye(socket, error.close_code, str(error))
            raise PeerRefusedError(f"it refuses this gateway: {error}")
        await say_goodbye(socket, error.close_code, str(error), Error(code=error.code, reason=str(error)))
        raise PeerRefusedError(f"it does not speak like a backend: {error}")

    async def _carry(
        self, tenure: _Tenure, socket: ClientConnection, protocol: Session, on_frame: OnFrame, first: Iterable[str]
    ) -> FatalError | None:
        """Until the connection ends, or we end it: because of the error that is returned, or to go elsewhere."""
        outbox = Outbox(
            max_frames=_MAX_WAITING_FRAMES,
            max_bytes=_MAX_WAITING_BYTES,
            first=first,
            flow=self._counters.traffic.to_backend,
        )
        self._outbox = outbox
        self._is_leaving = False
        tenure.is_up.set()
        try:
            async with asyncio.TaskGroup() as tasks:
                writer = tasks.create_task(outbox.write_to(socket.send, _SEND_TIMEOUT_S))
                fatal = await self._read(socket, protocol, on_frame)
                writer.cancel()
        finally:
            if self._outbox is outbox:
                self._outbox = None
            protocol.close()
            self._counters.count(Loss.BACKEND_AWAY, len(outbox.close()))
        return fatal

    async def _read(self, socket: ClientConnection, protocol: Session, on_frame: OnFrame) -> FatalError | None:
        async for frame in socket:
            self._heard_at = time.monotonic()
            try:
                on_frame(protocol, frame)
            except FatalError as error:
                return error
            if self._is_leaving:
                break
        return None
