"""Which frame goes where.

Frames are looked at just enough to route them and are passed on byte for byte. They are parsed with the
parser that the receiver uses, so that none can mean one thing here and another there.

What a backend may rely on: on one connection, `agent_online` precedes every other frame of that session. What it has to
mind: events that were lost with an earlier connection leave a gap in `seq` that only a `resume` fills, so it must not
acknowledge beyond a gap; and an `agent_online` that is repeated on a new connection tells what the agent held when its
session began, not what it holds now.
"""

from __future__ import annotations

import logging
from typing import Any

from opsmap_gateway.agent_session import NOT_READING, AgentSession
from opsmap_gateway.backend_link import BackendLink
from opsmap_gateway.counters import Counters, Loss
from opsmap_gateway.heartbeats import MAX_HEARTBEAT_BYTES, Heartbeats
from opsmap_gateway.outbox import Quota
from opsmap_gateway.registry import Registry
from opsmap_protocol.codec import encode, from_plain, parse
from opsmap_protocol.errors import (
    CloseCode,
    FrameTooLargeError,
    MalformedMessageError,
    ProtocolError,
    UnknownMessageError,
)
from opsmap_protocol.messages import (
    AgentOffline,
    AgentOnline,
    CancelCommand,
    CheckJobStatus,
    Command,
    CommandReceived,
    CommandRefused,
    ConfigUpdate,
    Error,
    Events,
    EventsAck,
    Heartbeat,
    JobStatuses,
    Resume,
)

_logger = logging.getLogger(__name__)

_FROM_AGENT = frozenset({CommandReceived.type, Events.type, JobStatuses.type, Error.type, Heartbeat.type})
_TO_AGENT = frozenset(
    {Resume.type, Command.type, EventsAck.type, CheckJobStatus.type, CancelCommand.type, ConfigUpdate.type}
)


class Router:
    """Between the sessions in the registry and the link. Holds nothing itself."""

    def __init__(
        self,
        *,
        gateway_id: str,
        registry: Registry,
        link: BackendLink,
        heartbeats: Heartbeats,
        counters: Counters,
        waiting: Quota,
    ) -> None:
        self._gateway_id = gateway_id
        self._registry = registry
        self._link = link
        self._heartbeats = heartbeats
        self._counters = counters
        self._waiting = waiting

    # Coming and going

    def announcements(self) -> list[str]:
        """What a backend must hear first: every agent that is here."""
        return [self._online(session) for session in self._registry.sessions()]

    async def arrived(self, session: AgentSession) -> None:
        """An agent has registered. Its newest session is the one that counts."""
        replaced = self._registry.add(session)
        if replaced is not None:
            replaced.end(CloseCode.REPLACED, "a newer session of this agent took over")
        await self._link.put(self._online(session))

    async def left(self, session: AgentSession, reason: str) -> None:
        """A session has ended. Of one that was replaced, the backend need not hear."""
        for frame in session.unsent:
            self._return_unsent(frame)
        if not self._registry.remove(session):
            return
        message = AgentOffline(
            gateway_id=self._gateway_id,
            agent_id=session.agent_id,
            session_id=session.session_id,
            reason=reason,
        )
        await self._link.put(encode(message))

    def _online(self, session: AgentSession) -> str:
        message = AgentOnline(
            gateway_id=self._gateway_id,
            session_id=session.session_id,
            agent=session.register,
            certificate_sha256=session.certificate_sha256,
        )
        return encode(message)

    # From an agent

    async def agent_frame(self, session: AgentSession, frame: str | bytes) -> None:
        """Pass a frame of an agent on, or answer what is wrong with it."""
        try:
            await self._route_to_backend(session, _text_of(frame))
        except _ImpostorError as error:
            self._counters.count(Loss.BAD_FRAME_FROM_AGENT)
            _logger.error("agent %s: %s", session.agent_id, error)
            session.end(CloseCode.IDENTITY_MISMATCH, str(error), _refusal(error))
        except ProtocolError as error:
            self._counters.count(Loss.BAD_FRAME_FROM_AGENT)
            _logger.warning("agent %s: %s", session.agent_id, error)
            self._offer_to_agent(session, encode(_refusal(error)))

    async def _route_to_backend(self, session: AgentSession, frame: str) -> None:
        data = parse(frame)
        kind: str = data["type"]
        if kind == Error.type and data.get("agent_id") is None:
            _logger.warning("agent %s reports: %s", session.agent_id, from_plain(data, Error).reason[:500])
            return
        if kind not in _FROM_AGENT:
            raise UnknownMessageError(kind[:80])
        if data.get("agent_id") != session.agent_id:
            raise _ImpostorError(f"a frame of type {kind} that is not its own")
        if kind == Heartbeat.type:
            if len(frame) > MAX_HEARTBEAT_BYTES:
                raise FrameTooLargeError(f"a heartbeat of {len(frame)} bytes, at most {MAX_HEARTBEAT_BYTES}")
            self._heartbeats.add(from_plain(data, Heartbeat))
        elif not await self._link.put(frame):
            self._counters.count(Loss.BACKEND_AWAY)

    # From the backend

    def backend_frame(self, frame: str | bytes) -> None:
        """Hand a frame of the backend to its agent, or answer why not. Never waits."""
        try:
            text = _text_of(frame)
            data = parse(text)
            kind: str = data["type"]
            if kind == Error.type:
                _logger.warning("the backend reports: %s", from_plain(data, Error))
            elif kind in _TO_AGENT:
                self._route_to_agent(kind, data, text)
            else:
                raise UnknownMessageError(kind[:80])
        except ProtocolError as error:
            self._counters.count(Loss.BAD_FRAME_FROM_BACKEND)
            _logger.error("frame of the backend: %s", error)
            self._offer_to_backend(encode(_refusal(error)))

    def _route_to_agent(self, kind: str, data: dict[str, Any], frame: str) -> None:
        agent_id = _string(data, "target_agent")
        request_id = _string(data, "request_id") if kind == Command.type else None
        session = self._registry.get(agent_id)
        if session is None:
            if request_id is None:
                self._counters.count(Loss.AGENT_AWAY)
                _logger.debug("%s for agent %s, which is not here", kind, agent_id[:130])
            else:
                self._refuse(request_id, agent_id, "agent_offline", "the agent is not connected here")
        elif request_id is not None and self._waiting.is_full and len(session.outbox) > 0:
            # An agent that keeps up is never refused for others that do not.
            reason = f"{self._waiting.used} frames wait for agents already"
            self._refuse(request_id, agent_id, "queue_full", reason)
        elif not self._offer_to_agent(session, frame) and request_id is not None:
            self._refuse(request_id, agent_id, "queue_full", "the agent does not take what waits for it")

    def _return_unsent(self, frame: str) -> None:
        data = parse(frame)
        if data["type"] == Command.type:
            reason = "the session ended before the command was sent"
            self._refuse(data["request_id"], data["target_agent"], "agent_offline", reason)
        else:
            self._counters.count(Loss.AGENT_AWAY)

    def _refuse(self, request_id: str, agent_id: str, code: str, reason: str) -> None:
        self._counters.count(Loss.COMMAND_REFUSED)
        message = CommandRefused(
            gateway_id=self._gateway_id,
            request_id=request_id,
            target_agent=agent_id,
            code=code,
            reason=reason,
        )
        self._offer_to_backend(encode(message))

    def _offer_to_agent(self, session: AgentSession, frame: str) -> bool:
        if session.outbox.offer(frame):
            return True
        # Leaving out one frame would leave the agent with a state that the backend does not know of. A new
        # session begins with a resume and puts everything right.
        self._counters.count(Loss.AGENT_TOO_SLOW)
        session.drop(NOT_READING)
        return False

    def _offer_to_backend(self, frame: str) -> None:
        if not self._link.offer(frame):
            self._counters.count(Loss.REFUSAL_UNDELIVERED)


class _ImpostorError(ProtocolError):
    """A frame in the name of another agent: the one thing that ends a session."""

    code = "identity_mismatch"


def _text_of(frame: str | bytes) -> str:
    if isinstance(frame, bytes):
        raise MalformedMessageError("frames are text, not binary")
    return frame


def _string(data: dict[str, Any], key: str) -> str:
    value = data.get(key)
    if not isinstance(value, str):
        raise MalformedMessageError(f"{key}: expected a string")
    return value


def _refusal(error: ProtocolError) -> Error:
    return Error(code=error.code, reason=str(error))
