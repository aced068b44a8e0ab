"""The session of one agent: from its registration to the end of its socket."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from opsmap_gateway.goodbye import say_goodbye
from opsmap_gateway.outbox import Outbox
from opsmap_protocol.messages import Error, Register
from opsmap_protocol.session import Session

NOT_READING = "the agent does not read what it is sent"

OnFrame = Callable[["AgentSession", str | bytes], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class _Ending:
    """How we end a session: with a close code, or without a word (`close_code` None) if nobody listens."""

    reason: str
    close_code: int | None
    error: Error | None = None


class _EndedByUsError(Exception):
    """Leaves the task group of a session."""


class AgentSession:
    """Reads the frames of an agent and writes those in its `outbox`, until either side ends it.

    Whoever ends a session calls `end` or `drop`, which return at once: a new session must not wait for the
    socket of the old one. Only the session's own task does, in `close`.

    Args:
        protocol: the state of the session, past its greeting.
        register: what the agent said of itself; `registration` is the same as it came, with its seal.
        certificates: the SHA-256 fingerprints of those it has shown.
        send_timeout_s: an agent that does not take a frame for so long is given up.
    """

    def __init__(
        self,
        *,
        socket: ServerConnection,
        session_id: str,
        protocol: Session,
        register: Register,
        registration: dict[str, Any],
        outbox: Outbox,
        send_timeout_s: float,
        certificates: frozenset[str] = frozenset(),
    ) -> None:
        self._socket = socket
        self.session_id = session_id
        self.protocol = protocol
        self.register = register
        self.registration = registration
        self.certificates = certificates
        self.outbox = outbox
        self._send_timeout_s = send_timeout_s
        self.unsent: list[str] = []
        """What still waited for the agent when the session ended."""
        self._ending: _Ending | None = None
        self._is_ended = asyncio.Event()

    @property
    def agent_id(self) -> str:
        return self.register.agent_id

    async def run(self, on_frame: OnFrame) -> str:
        """Serve the session to its end, and return the reason. The socket may still be open: `close` follows."""
        reason = "the connection was closed"
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._read(on_frame))
                tasks.create_task(self._write())
                await self._is_ended.wait()
                raise _EndedByUsError
        except* ConnectionClosed as group:
            reason = f"connection lost: {group.exceptions[0]}"
        except* _EndedByUsError:
            pass
        finally:
            self.unsent = self.outbox.close()
        return reason if self._ending is None else self._ending.reason

    def end(self, close_code: int, reason: str, error: Error | None = None) -> None:
        """End the session, telling the agent why."""
        self._finish(_Ending(reason, close_code, error))

    def drop(self, reason: str) -> None:
        """End the session of an agent that does not read, without a goodbye that it would not read either."""
        self._finish(_Ending(reason, None))

    async def close(self) -> None:
        """Say goodbye if it was us who ended the session."""
        if self._ending is None:
            return
        if self._ending.close_code is None:
            self._socket.transport.abort()
        else:
            await say_goodbye(self._socket, self._ending.close_code, self._ending.reason, self._ending.error)

    def _finish(self, ending: _Ending) -> None:
        self.protocol.close()
        if self._ending is None:
            self._ending = ending
            self._is_ended.set()

    async def _read(self, on_frame: OnFrame) -> None:
        async for frame in self._socket:
            if self._ending is None:
                await on_frame(self, frame)
            if self._ending is not None:
                return
        self._is_ended.set()

    async def _write(self) -> None:
        try:
            await self.outbox.write_to(self._socket.send, self._send_timeout_s)
        except TimeoutError:
            self.drop(NOT_READING)
