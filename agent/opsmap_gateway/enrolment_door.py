"""The door for agents that have no certificate yet: they show a token, and the backend decides.

A port of its own, so that the agents' port asks everybody for a certificate. Nothing is kept here: not the token, and
nothing that waits while the backend is away.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from types import TracebackType
from typing import Self

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from opsmap_daemon.door import Door
from opsmap_daemon.sparing import SparingLog
from opsmap_gateway.attempts import Attempts
from opsmap_gateway.counters import Counters, Loss
from opsmap_gateway.goodbye import say_goodbye
from opsmap_gateway.registration import RefusedError
from opsmap_protocol.codec import build, encode
from opsmap_protocol.enums import PeerRole
from opsmap_protocol.errors import CloseCode, FatalError, InvalidIdentityError
from opsmap_protocol.identity import Identity, parse_identity
from opsmap_protocol.messages import Authorities, Enroll, EnrollAgent, Enrolled, EnrolmentAnswer, Error, Introduction
from opsmap_protocol.session import GATEWAY_OF_ENROLLING, Session

_logger = logging.getLogger(__name__)

ENROLMENT_PATH = "/enroll/"
_MAX_CONNECTIONS = 64
_HANDSHAKE_TIMEOUT_S = 5.0
_WORD_TIMEOUT_S = 10.0
_ANSWER_TIMEOUT_S = 15.0
_MAX_FRAME_BYTES = 32 * 1024
_MAX_LENGTHS = {"enrolment_token": 256, "hostname": 253, "csr": 8 * 1024}
_TRY_AGAIN = "try_again"


@dataclass(frozen=True, slots=True)
class EnrolmentSettings:
    """Where it listens, as whom, and for which organization names are checked."""

    host: str
    port: int
    tls_context: ssl.SSLContext
    identity: Identity


class EnrolmentDoor:
    """An asynchronous context manager: listens inside.

    Args:
        authorities: whom agents are to trust, as the backend last said; None before it has.
        send: puts a frame on the link; False if the backend is away.
    """

    def __init__(
        self,
        *,
        settings: EnrolmentSettings,
        authorities: Callable[[], Authorities | None],
        send: Callable[[str], Awaitable[bool]],
        counters: Counters,
    ) -> None:
        self._settings = settings
        self._authorities = authorities
        self._send = send
        self._counters = counters
        self._attempts = Attempts()
        self._waiting: dict[str, asyncio.Future[EnrolmentAnswer]] = {}
        self._log = SparingLog(_logger, logging.WARNING)
        self._server: Server | None = None

    @property
    def port(self) -> int:
        """Where it listens, also if the configuration said 0."""
        assert self._server is not None, "the door is not open"
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def __aenter__(self) -> Self:
        """Begin to listen. Raises OSError if the address cannot be had."""
        settings = self._settings
        door = Door(
            settings.host,
            settings.port,
            limit=_MAX_CONNECTIONS,
            # Nobody is ever let in: this is how long a visit may last.
            timeout_s=2 * _HANDSHAKE_TIMEOUT_S + _WORD_TIMEOUT_S + _ANSWER_TIMEOUT_S,
            on_drop=lambda reason: self._counters.count(Loss.CONNECTION_DROPPED),
        )
        self._server = await serve(
            self._serve,
            sock=door,
            ssl=settings.tls_context,
            open_timeout=_HANDSHAKE_TIMEOUT_S,
            process_request=_check_path,
            server_header=None,
            compression=None,
            max_size=_MAX_FRAME_BYTES,
            max_queue=1,
            ping_interval=None,
            close_timeout=1.0,
        )
        _logger.info("agents may enrol at %s port %d", settings.host, self.port)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()

    def answered(self, answer: EnrolmentAnswer) -> None:
        """An answer of the backend. Whoever asked may be gone: then the certificate is nobody's, and harmless."""
        waiting = self._waiting.get(answer.enrolment_id)
        if waiting is not None and not waiting.done():
            waiting.set_result(answer)

    async def _serve(self, socket: ServerConnection) -> None:
        address = str(socket.remote_address[0]) if socket.remote_address else "somebody who is gone already"
        try:
            await self._receive(socket, address)
        except RefusedError as refusal:
            self._counters.count(Loss.CONNECTION_REFUSED)
            self._log.write("an enrolment from %s is refused: %s (%s)", address, refusal, refusal.code)
            error = Error(code=refusal.code, reason=str(refusal))
            await say_goodbye(socket, refusal.close_code, str(refusal), error)
        except ConnectionClosed:
            # The first visit ends like this: it has seen the root and comes again, or it does not want us.
            _logger.debug("%s left the door for enrolments", address)

    async def _receive(self, socket: ServerConnection, address: str) -> None:
        authorities = self._authorities()
        if authorities is None:
            raise _later("this gateway has not heard from the backend since it started")
        await socket.send(encode(Introduction(authorities.root, authorities.gateway)))
        enroll = await self._read(socket, address)
        answer = await self._ask(enroll, address)
        if not answer.certificate:
            raise RefusedError(CloseCode.UNAUTHENTICATED, answer.code[:80] or "refused", answer.reason[:500])
        _logger.info("agent %s was enrolled from %s", enroll.agent_id, address)
        # The newest ones: they may have changed while the backend was asked.
        trusted = self._authorities() or authorities
        await socket.send(encode(Enrolled(enroll.agent_id, answer.certificate, trusted.gateway, trusted.backend)))

    async def _read(self, socket: ServerConnection, address: str) -> Enroll:
        """The one thing an agent says here. Raises RefusedError, ConnectionClosed."""
        try:
            async with asyncio.timeout(_WORD_TIMEOUT_S):
                frame = await socket.recv()
        except TimeoutError:
            reason = f"no enroll within {_WORD_TIMEOUT_S:g} s"
            raise RefusedError(CloseCode.UNAUTHENTICATED, "not_registered", reason) from None
        # Whatever it says counts, also if it cannot be understood: tokens must not be tried out.
        if not self._attempts.count(address):
            reason = "too many enrolments from this address: try again in a minute"
            raise RefusedError(CloseCode.TOO_MANY_CONNECTIONS, "too_many_attempts", reason)
        try:
            enroll: Enroll = build(Enroll, Session(GATEWAY_OF_ENROLLING).read(frame))
        except FatalError as error:
            raise RefusedError(error.close_code, error.code, str(error)) from None
        self._check(enroll)
        return enroll

    def _check(self, enroll: Enroll) -> None:
        for name, limit in _MAX_LENGTHS.items():
            found = len(getattr(enroll, name))
            if not 0 < found <= limit:
                reason = f"{name}: {found} characters, 1 to {limit} are expected"
                raise RefusedError(CloseCode.BAD_MESSAGE, "malformed_message", reason)
        try:
            parse_identity(Identity(self._settings.identity.organization_id, PeerRole.AGENT, enroll.agent_id).uri)
        except InvalidIdentityError:
            reason = "agent_id: letters, digits, '.', '_' and '-', at most 127, are expected"
            raise RefusedError(CloseCode.BAD_MESSAGE, "malformed_message", reason) from None

    async def _ask(self, enroll: Enroll, address: str) -> EnrolmentAnswer:
        """What the backend says. Raises RefusedError if it says nothing."""
        enrolment_id = uuid.uuid4().hex
        request = EnrollAgent(
            gateway_id=self._settings.identity.name,
            enrolment_id=enrolment_id,
            enrolment_token=enroll.enrolment_token,
            agent_id=enroll.agent_id,
            hostname=enroll.hostname,
            csr=enroll.csr,
            address=address,
        )
        waiting = asyncio.get_running_loop().create_future()
        self._waiting[enrolment_id] = waiting
        try:
            async with asyncio.timeout(_ANSWER_TIMEOUT_S):
                if not await self._send(encode(request)):
                    raise _later("this gateway has no connection to the backend")
                answer: EnrolmentAnswer = await waiting
        except TimeoutError:
            raise _later(f"the backend has not answered within {_ANSWER_TIMEOUT_S:g} s") from None
        finally:
            del self._waiting[enrolment_id]
        return answer


def _later(reason: str) -> RefusedError:
    return RefusedError(CloseCode.TOO_MANY_CONNECTIONS, _TRY_AGAIN, f"{reason}: try again in a minute")


def _check_path(socket: ServerConnection, request: Request) -> Response | None:
    if request.path.partition("?")[0] == ENROLMENT_PATH:
        return None
    return socket.respond(HTTPStatus.NOT_FOUND, f"Agents enrol at {ENROLMENT_PATH}\n")
