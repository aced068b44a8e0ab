"""Which frame goes where.

Frames are looked at just enough to route them and are passed on byte for byte. They are parsed with the
parser that the receiver uses, so that none can mean one thing here and another there.

What a backend may rely on: on one connection, `agent_online` precedes every other frame of that session. What it has to
mind: events that were lost with an earlier connection leave a gap in `seq` that only a `resume` fills, so it must not
acknowledge beyond a gap; and an `agent_online` that is repeated on a new connection is of a session that began earlier,
so it has to challenge the agent to learn what it holds now.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from opsmap_daemon.sparing import SparingLog
from opsmap_gateway.agent_session import AgentSession
from opsmap_gateway.backend_link import BackendLink
from opsmap_gateway.counters import Counters, Loss
from opsmap_gateway.delivery import Delivery
from opsmap_gateway.discovery import MAX_RESULT_BYTES, Discovery
from opsmap_gateway.heartbeats import MAX_HEARTBEAT_BYTES, Heartbeats
from opsmap_gateway.registry import Registry
from opsmap_protocol.codec import encode
from opsmap_protocol.errors import CloseCode, FatalError, FrameTooLargeError, ProtocolError
from opsmap_protocol.messages import (
    AgentOffline,
    AgentOnline,
    BroadcastCommand,
    DiscoveryAck,
    DiscoveryResult,
    Error,
    GoAway,
    Heartbeat,
)
from opsmap_protocol.session import Session

_logger = logging.getLogger(__name__)
_MAX_SHOWN = 500
"""Characters of a peer's words in a line of the log."""


class Router:
    """Between the sessions in the registry and the link. Holds nothing itself.

    Args:
        own: what takes the messages of the backend that are for this gateway itself, by type. Never waits.
    """

    def __init__(
        self,
        *,
        gateway_id: str,
        registry: Registry,
        link: BackendLink,
        delivery: Delivery,
        heartbeats: Heartbeats,
        discovery: Discovery,
        counters: Counters,
        own: Mapping[str, Callable[[Any], None]],
    ) -> None:
        self._gateway_id = gateway_id
        self._registry = registry
        self._link = link
        self._delivery = delivery
        self._heartbeats = heartbeats
        self._discovery = discovery
        self._counters = counters
        self._own = own
        self._agents_log = SparingLog(_logger, logging.WARNING)
        self._backend_log = SparingLog(_logger, logging.ERROR)

    # Coming and going

    def announcements(self) -> list[str]:
        """What a backend must hear first: every agent that is here. Then come the batches it has not acknowledged."""
        self._discovery.link_is_up()
        return [self._online(session) for session in self._registry.sessions()]

    async def arrived(self, session: AgentSession) -> None:
        """An agent has registered. Its newest session is the one that counts."""
        replaced = self._registry.add(session)
        if replaced is not None:
            replaced.end(CloseCode.REPLACED, "a newer session of this agent took over")
        await self._link.put(self._online(session))

    async def left(self, session: AgentSession, reason: str) -> None:
        """A session has ended. Of one that was replaced, the backend need not hear."""
        self._delivery.return_unsent(session.unsent)
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
        message = AgentOnline(gateway_id=self._gateway_id, session_id=session.session_id, agent=session.registration)
        return encode(message)

    # From an agent

    async def agent_frame(self, session: AgentSession, frame: str | bytes) -> None:
        """Pass a frame of an agent on, or answer what is wrong with it."""
        self._counters.traffic.from_agents.count(frame)
        try:
            data = session.protocol.read(frame)
            assert isinstance(frame, str), "the session reads text only"
            await self._route_to_backend(session, data, frame)
        except FatalError as error:
            self._counters.count(Loss.BAD_FRAME_FROM_AGENT)
            self._agents_log.write("agent %s has to leave: %s", session.agent_id, error)
            session.end(error.close_code, str(error), _refusal(error))
        except ProtocolError as error:
            self._counters.count(Loss.BAD_FRAME_FROM_AGENT)
            self._agents_log.write("agent %s: %s", session.agent_id, error)
            self._delivery.offer(session, encode(_refusal(error)))

    async def _route_to_backend(self, session: AgentSession, data: dict[str, Any], frame: str) -> None:
        kind: str = data["type"]
        if kind == Error.type and data.get("agent_id") is None:
            reason = session.protocol.understand(data).reason
            self._agents_log.write("agent %s reports: %s", session.agent_id, reason[:_MAX_SHOWN])
            return
        if data.get("agent_id") != session.agent_id:
            reason = f"a frame of type {kind} that is not its own"
            raise FatalError(CloseCode.IDENTITY_MISMATCH, "identity_mismatch", reason)
        match kind:
            case Heartbeat.type:
                self._gather_heartbeat(session, data, frame)
            case DiscoveryResult.type:
                await self._gather_discovery(session, data, frame)
            case _:
                if not await self._link.put(frame):
                    self._counters.count(Loss.BACKEND_AWAY)

    def _gather_heartbeat(self, session: AgentSession, data: dict[str, Any], frame: str) -> None:
        if len(frame) > MAX_HEARTBEAT_BYTES:
            error = FrameTooLargeError(f"a heartbeat of {len(frame)} bytes, at most {MAX_HEARTBEAT_BYTES}")
            raise session.protocol.refused(error)
        self._heartbeats.add(session.protocol.understand(data))

    async def _gather_discovery(self, session: AgentSession, data: dict[str, Any], frame: str) -> None:
        size = len(frame.encode())
        if size > MAX_RESULT_BYTES:
            error = FrameTooLargeError(f"a discovery_result of {size} bytes, at most {MAX_RESULT_BYTES}")
            raise session.protocol.refused(error)
        # A batch with one bad result in it would be refused as a whole, and the others are not its agent's.
        session.protocol.understand(data)
        await self._discovery.add(frame)

    # From the backend

    def backend_frame(self, protocol: Session, frame: str | bytes) -> None:
        """Hand a frame of the backend to its agents, or answer why not. Never waits.

        Raises:
            FatalError: the session with the backend cannot go on.
        """
        self._counters.traffic.from_backend.count(frame)
        try:
            data = protocol.read(frame)
            assert isinstance(frame, str), "the session reads text only"
            self._route_from_backend(protocol, data, frame)
        except ProtocolError as error:
            self._counters.count(Loss.BAD_FRAME_FROM_BACKEND)
            self._backend_log.write("frame of the backend: %s", error)
            if isinstance(error, FatalError):
                raise
            self._delivery.answer(encode(_refusal(error)))

    def _route_from_backend(self, protocol: Session, data: dict[str, Any], frame: str) -> None:
        kind: str = data["type"]
        match kind:
            case Error.type:
                error: Error = protocol.understand(data)
                self._discovery.refused(error.about or "")
                self._backend_log.write("the backend reports: %s (%s)", error.reason[:_MAX_SHOWN], error.code[:80])
            case GoAway.type:
                self._link.leave(protocol.understand(data).reason)
            case DiscoveryAck.type:
                self._discovery.acknowledged(protocol.understand(data).batch_id)
            case BroadcastCommand.type:
                self._delivery.broadcast(protocol.understand(data))
            case _ if kind in self._own:
                self._own[kind](protocol.understand(data))
            case _:
                self._delivery.deliver(kind, data, frame)


def _refusal(error: ProtocolError) -> Error:
    return Error(code=error.code, reason=str(error))
