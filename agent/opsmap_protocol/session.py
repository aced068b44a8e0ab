"""The state of one session, without the socket: which frames may come when, and what is wrong with those that may not.

All ends of the links use it: each reads its frames with `Session.read` and closes as a `FatalError` says.

    greeting ──greeted──▶ open ──drain──▶ draining
        └────────────┬──────┴──────────────┘
                     ▼ closed
"""

from __future__ import annotations

import typing
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from opsmap_protocol import MAX_AGENT_NESTING, MAX_NESTING, MIN_PROTOCOL_VERSION, PROTOCOL_VERSION, messages
from opsmap_protocol.codec import from_plain, parse
from opsmap_protocol.errors import (
    CloseCode,
    FatalError,
    FrameTooLargeError,
    MalformedMessageError,
    ProtocolError,
    UnknownMessageError,
)

MAX_GREETING_BYTES = 256 * 1024
"""Greetings come from peers that nothing is known of yet, and registrations are kept and passed on inside others."""

MAX_BAD_FRAMES = 100
"""Frames that could not be understood before a session is given up: each costs an answer and a line in a log."""


class Phase(StrEnum):
    GREETING = "greeting"
    OPEN = "open"
    DRAINING = "draining"
    """This end has said `goaway`: frames still come and go, new work does not."""
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class End:
    """One end of a link: what the other side has to begin with, and what it may say then.

    `passed_on` are the types of frames that others wrote and the other side only carries: it cannot help what is in
    their fields. An agent must not be able to end the session of its gateway, and with it everybody's.
    """

    greeting: Any
    accepts: Any
    max_nesting: int = MAX_NESTING
    passed_on: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        assert self.greeting in typing.get_args(self.accepts)


AGENT_OF_GATEWAY = End(messages.Registered, messages.TO_AGENT)
GATEWAY_OF_AGENT = End(messages.Register, messages.FROM_AGENT, MAX_AGENT_NESTING)
GATEWAY_OF_ENROLLING = End(messages.Enroll, messages.FROM_ENROLLING, MAX_AGENT_NESTING)
ENROLLING_OF_GATEWAY = End(messages.Introduction, messages.TO_ENROLLING)
GATEWAY_OF_BACKEND = End(messages.GatewayRegistered, messages.TO_GATEWAY)
BACKEND_OF_GATEWAY = End(
    messages.GatewayRegister,
    messages.FROM_GATEWAY,
    passed_on=frozenset(
        member.type
        for member in set(typing.get_args(messages.FROM_AGENT)) & set(typing.get_args(messages.FROM_GATEWAY))
    ),
)


class Session:
    """One session as one end sees it. `version` is what both speak, once the greeting has been read."""

    def __init__(self, end: End) -> None:
        self._end = end
        self._types = frozenset(member.type for member in typing.get_args(end.accepts))
        self._bad_frames = 0
        self.phase = Phase.GREETING
        self.version = PROTOCOL_VERSION

    def read(self, frame: str | bytes) -> dict[str, Any]:
        """The object in a frame that may come now, its type known, its fields not looked at yet.

        Raises:
            FatalError: the session has to end, as the error says.
            ProtocolError: this frame is refused; the session goes on.
        """
        if self.phase is Phase.CLOSED:
            raise FatalError(CloseCode.BAD_MESSAGE, "session_closed", "a frame after the end of the session")
        if self.phase is Phase.GREETING:
            return self._read_greeting(frame)
        try:
            return self._read_next(frame)
        except ProtocolError as error:
            raise self.refused(error) from None

    def understand(self, data: dict[str, Any]) -> Any:
        """The message in an object that `read` gave.

        Raises:
            FatalError, ProtocolError: as `read` does.
        """
        try:
            return from_plain(data, self._end.accepts)
        except ProtocolError as error:
            if data["type"] in self._end.passed_on:
                raise
            raise self.refused(error) from None

    def refused(self, error: ProtocolError) -> ProtocolError:
        """Count a frame that is refused; returns what to raise: the error itself, or the end of the session."""
        self._bad_frames += 1
        if isinstance(error, FatalError) or self._bad_frames < MAX_BAD_FRAMES:
            return error
        reason = f"{MAX_BAD_FRAMES} frames could not be understood, the last one: {error}"
        return FatalError(CloseCode.BAD_MESSAGE, error.code, reason)

    def drain(self) -> None:
        if self.phase is Phase.OPEN:
            self.phase = Phase.DRAINING

    def close(self) -> None:
        self.phase = Phase.CLOSED

    def _read_greeting(self, frame: str | bytes) -> dict[str, Any]:
        expected = self._end.greeting.type
        try:
            if len(frame) > MAX_GREETING_BYTES:
                raise FrameTooLargeError(f"{len(frame)} bytes, at most {MAX_GREETING_BYTES} are accepted")
            data = self._parse(frame)
            if data["type"] == messages.Error.type:
                refusal = from_plain(data, messages.Error)
                raise FatalError(CloseCode.REFUSED_BY_PEER, refusal.code, refusal.reason)
            if data["type"] != expected:
                reason = f"expected {expected}, found {data['type'][:80]}"
                raise FatalError(CloseCode.UNAUTHENTICATED, "not_registered", reason)
            # Before the rest: another version may well have another shape, and deserves the true reason.
            self.version = negotiate(data)
            from_plain(data, self._end.greeting)
        except FatalError:
            raise
        except ProtocolError as error:
            raise FatalError(CloseCode.BAD_MESSAGE, error.code, f"expected {expected}: {error}") from None
        self.phase = Phase.OPEN
        return data

    def _read_next(self, frame: str | bytes) -> dict[str, Any]:
        data = self._parse(frame)
        kind: str = data["type"]
        if kind not in self._types:
            raise UnknownMessageError(kind[:80])
        if kind == self._end.greeting.type:
            raise MalformedMessageError(f"{kind} a second time")
        return data

    def _parse(self, frame: str | bytes) -> dict[str, Any]:
        if isinstance(frame, bytes):
            raise MalformedMessageError("frames are text, not binary")
        return parse(frame, self._end.max_nesting)


def negotiate(greeting: dict[str, Any]) -> int:
    """The newest version that both sides speak. A peer that names no oldest one speaks exactly one.

    Raises:
        FatalError: there is none.
    """
    newest = greeting.get("protocol_version")
    newest = PROTOCOL_VERSION if newest is None else newest
    oldest = greeting.get("protocol_min")
    oldest = newest if oldest is None else oldest
    is_stated = type(newest) is int and type(oldest) is int
    if is_stated and oldest <= PROTOCOL_VERSION and newest >= MIN_PROTOCOL_VERSION and oldest <= newest:
        return min(newest, PROTOCOL_VERSION)
    theirs = f"{str(oldest)[:20]} to {str(newest)[:20]}" if oldest != newest else str(newest)[:20]
    reason = f"this side speaks protocol versions {MIN_PROTOCOL_VERSION} to {PROTOCOL_VERSION}, the other {theirs}"
    raise FatalError(CloseCode.VERSION_UNSUPPORTED, "version_unsupported", reason)
