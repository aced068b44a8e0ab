"""The listening side: lets agents in, one task each, and sees them out."""

from __future__ import annotations

import logging
import ssl
import uuid
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode as StandardCloseCode
from websockets.http11 import Request, Response

from opsmap_daemon.door import MAX_UNFINISHED, Door
from opsmap_daemon.sparing import SparingLog
from opsmap_gateway.agent_session import AgentSession
from opsmap_gateway.counters import Counters, Loss
from opsmap_gateway.goodbye import say_goodbye
from opsmap_gateway.outbox import Outbox, Quota
from opsmap_gateway.registration import RefusedError, fingerprints, identify, read_registration
from opsmap_gateway.registry import Registry
from opsmap_gateway.revoked import RevokedCertificates
from opsmap_gateway.router import Router
from opsmap_protocol import MAX_FRAME_BYTES
from opsmap_protocol.codec import build, encode
from opsmap_protocol.errors import CloseCode
from opsmap_protocol.identity import Identity
from opsmap_protocol.messages import Error, Register, Registered, RevokeAgent
from opsmap_protocol.session import GATEWAY_OF_AGENT, MAX_GREETING_BYTES, Session

_logger = logging.getLogger(__name__)

AGENT_PATH = "/agent/"
_HANDSHAKE_TIMEOUT_S = 5.0
"""For TLS, and as long again for the WebSocket."""
_MAX_CLOSE_TIMEOUT_S = 2.0
_MAX_REASON = 500
REVOKED = "revoked"
"""The code in the `error` to an agent that is not to come again as it is."""
_MAX_WAITING_FRAMES = 1_000
_MAX_WAITING_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """How the server listens and whom it lets in. A connection silent for `agent_timeout_s` is dead."""

    host: str
    port: int
    tls_context: ssl.SSLContext
    organization_id: str
    max_connections: int
    agent_timeout_s: float
    registration_timeout_s: float


class AgentServer:
    """An asynchronous context manager: listens inside, and closes every session in order on the way out."""

    def __init__(
        self,
        *,
        settings: ServerSettings,
        router: Router,
        registry: Registry,
        counters: Counters,
        waiting: Quota,
    ) -> None:
        self._settings = settings
        self._router = router
        self._registry = registry
        self._counters = counters
        self._waiting = waiting
        self._refusals_log = SparingLog(_logger, logging.WARNING)
        self.refused: Counter[str] = Counter()
        """How many were turned away, by the code of the reason."""
        self._revoked = RevokedCertificates()
        self._knocking: dict[str, ServerConnection] = {}
        self._door: Door | None = None
        self._server: Server | None = None
        self._is_draining = False

    @property
    def port(self) -> int:
        """Where it listens, also if the configuration said 0."""
        assert self._server is not None, "the server is not running"
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    @property
    def knocking(self) -> int:
        """How many connections have not registered."""
        return 0 if self._door is None else self._door.unfinished

    def turn_away(self) -> None:
        """From now on nobody is let in, and hears why."""
        self._is_draining = True

    def revoke(self, revocation: RevokeAgent) -> None:
        """End the sessions of an agent, and let nobody in with these certificates any more.

        One that has another certificate by now was enrolled anew, and stays.
        """
        reason = revocation.reason[:_MAX_REASON]
        self._revoked.add(revocation.certificates, reason)
        session = self._registry.get(revocation.agent_id)
        if session is None:
            return
        if revocation.certificates and not session.certificates.intersection(revocation.certificates):
            return
        _logger.warning("agent %s was revoked: %s", session.agent_id, reason)
        session.end(CloseCode.REVOKED, reason, Error(code=REVOKED, reason=reason))

    async def __aenter__(self) -> Self:
        """Begin to listen. Raises OSError if the address cannot be had."""
        settings = self._settings
        self._door = Door(
            settings.host,
            settings.port,
            # After a restart all agents come at once: they may, and cost no more than when they have registered.
            limit=max(MAX_UNFINISHED, settings.max_connections),
            timeout_s=2 * _HANDSHAKE_TIMEOUT_S + settings.registration_timeout_s,
            on_drop=lambda reason: self._counters.count(Loss.CONNECTION_DROPPED),
        )
        # Silence, an unanswered ping, an unanswered close: together a half-open connection lasts no longer than told.
        third_s = settings.agent_timeout_s / 3
        self._server = await serve(
            self._serve,
            sock=self._door,
            ssl=settings.tls_context,
            open_timeout=_HANDSHAKE_TIMEOUT_S,
            process_request=_check_path,
            server_header=None,
            compression=None,
            # Little until an agent has registered, see `_serve`; and no frames ahead of the one that is being read.
            max_size=MAX_GREETING_BYTES,
            max_queue=1,
            ping_interval=third_s,
            ping_timeout=third_s,
            close_timeout=min(third_s, _MAX_CLOSE_TIMEOUT_S),
        )
        _logger.info("agents may connect to %s port %d", settings.host, self.port)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._server is not None
        # The library would close the connections itself, but wait for those that do not read for ever.
        self._server.close(close_connections=False)
        for session in self._registry.sessions():
            session.end(StandardCloseCode.GOING_AWAY, "the gateway is stopping")
        for socket in self._knocking.values():
            socket.transport.abort()
        await self._server.wait_closed()

    async def _serve(self, socket: ServerConnection) -> None:
        address = _address(socket)
        try:
            identity = identify(socket, self._settings.organization_id)
            self._check_is_not_revoked(fingerprints(socket))
            protocol = Session(GATEWAY_OF_AGENT)
            registration = await self._let_in(socket, protocol, identity)
            shown = fingerprints(socket, registration)
            self._check_is_not_revoked(shown)
        except RefusedError as refusal:
            await self._turn_away(socket, address, refusal)
            return
        except ConnectionClosed as error:
            _logger.info("%s left before it registered: %s", address, error)
            return
        assert self._door is not None, "whoever comes in comes by the door"
        self._door.admit(socket.transport)
        socket.protocol.max_message_size = MAX_FRAME_BYTES
        session_id = uuid.uuid4().hex
        registered = Registered(session_id=session_id, server_time=datetime.now(UTC), protocol_version=protocol.version)
        session = AgentSession(
            socket=socket,
            session_id=session_id,
            protocol=protocol,
            register=build(Register, registration),
            registration=registration,
            outbox=Outbox(
                max_frames=_MAX_WAITING_FRAMES,
                max_bytes=_MAX_WAITING_BYTES,
                quota=self._waiting,
                flow=self._counters.traffic.to_agents,
                first=[encode(registered)],
            ),
            send_timeout_s=self._settings.agent_timeout_s,
            certificates=shown,
        )
        await self._host(session, address)

    async def _host(self, session: AgentSession, address: str) -> None:
        name = session.agent_id
        _logger.info("agent %s has come from %s, session %s", name, address, session.session_id)
        reason = "a fault in the gateway"
        try:
            await self._router.arrived(session)
            reason = await session.run(self._router.agent_frame)
        finally:
            _logger.info("agent %s is gone, session %s: %s", name, session.session_id, reason)
            # The backend hears of it before the agent has been seen out, which can take seconds.
            await self._router.left(session, reason)
            await session.close()

    async def _let_in(self, socket: ServerConnection, protocol: Session, identity: Identity) -> dict[str, Any]:
        """The registration of an agent for which there is room."""
        self._check_is_open()
        name = identity.name
        is_new = self._registry.get(name) is None and name not in self._knocking
        if is_new and len(self._registry) + len(self._knocking) >= self._settings.max_connections:
            limit = self._settings.max_connections
            reason = f"this gateway accepts {limit} agents and has as many"
            raise RefusedError(CloseCode.TOO_MANY_CONNECTIONS, "too_many_connections", reason)
        former = self._knocking.get(name)
        if former is not None:
            # One at a time, or a single agent that never registers could use up everybody's connections.
            former.transport.abort()
        self._knocking[name] = socket
        try:
            registration = await read_registration(socket, protocol, identity, self._settings.registration_timeout_s)
        finally:
            if self._knocking.get(name) is socket:
                del self._knocking[name]
        self._check_is_open()
        return registration

    def _check_is_open(self) -> None:
        if self._is_draining:
            raise RefusedError(StandardCloseCode.GOING_AWAY, "draining", "this gateway is stopping")

    def _check_is_not_revoked(self, shown: frozenset[str]) -> None:
        reason = self._revoked.why(shown)
        if reason is not None:
            raise RefusedError(CloseCode.REVOKED, REVOKED, reason)

    async def _turn_away(self, socket: ServerConnection, address: str, refusal: RefusedError) -> None:
        self._counters.count(Loss.CONNECTION_REFUSED)
        self.refused[refusal.code] += 1
        self._refusals_log.write("%s is not let in: %s", address, refusal)
        error = Error(code=refusal.code, reason=str(refusal))
        await say_goodbye(socket, refusal.close_code, str(refusal), error)


def _check_path(socket: ServerConnection, request: Request) -> Response | None:
    if request.path.partition("?")[0] == AGENT_PATH:
        return None
    return socket.respond(HTTPStatus.NOT_FOUND, f"Agents connect to {AGENT_PATH}\n")


def _address(socket: ServerConnection) -> str:
    address = socket.remote_address
    if address is None:
        return "somebody who is gone already"
    host, port = address[:2]
    return f"{host}:{port}"
