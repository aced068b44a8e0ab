"""One session with a gateway, and through it with the backend.

    register ─▶ registered ─▶ trust, challenge ─▶ presence: stands by ─▶ resume: in use, until another session is

The gateway is not trusted: it carries what backend and agent seal for each other.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from opsmap_agent.checks.health import HealthMonitor
from opsmap_agent.commands.dispatcher import Dispatcher, is_request_id
from opsmap_agent.commands.tally import Tally
from opsmap_agent.discovery.discoverer import Discoverer
from opsmap_agent.identity.credentials import Credentials
from opsmap_agent.identity.renewal import Renewal
from opsmap_agent.identity.trust import BackendKeys, TrustError
from opsmap_agent.jobs.jobs import Jobs
from opsmap_agent.journal.committer import CommitError
from opsmap_agent.journal.journal import Journal
from opsmap_agent.journal.rows import StoredEvent
from opsmap_agent.rules.remote_settings import SettingsInForce
from opsmap_agent.sessions.introduction import Introduction
from opsmap_agent.sessions.pump import EventPump
from opsmap_agent.sessions.switchboard import Switchboard
from opsmap_daemon.connection import PeerRefusedError, PeerUnavailableError, RevokedError
from opsmap_daemon.sparing import SparingLog
from opsmap_protocol import session as protocol
from opsmap_protocol.codec import encode
from opsmap_protocol.errors import FatalError, ProtocolError, UnknownMessageError
from opsmap_protocol.messages import (
    SEALED_BY_AGENT,
    SEALED_BY_BACKEND,
    CancelCommand,
    CertificateRefused,
    CertificateRenewed,
    Challenge,
    CheckJobStatus,
    Command,
    ConfigUpdate,
    Discover,
    Error,
    Events,
    EventsAck,
    GoAway,
    JobStatuses,
    Ping,
    ProbeCommands,
    ProbeResult,
    Resume,
    Trust,
)
from opsmap_trust.seals import SealError

_logger = logging.getLogger(__name__)

_REGISTER_TIMEOUT_S = 10.0
_SEND_TIMEOUT_S = 10.0
_TOLERATED_SKEW_S = 10.0
_MAX_TOKEN_CHARACTERS = 128
_NONCE_BYTES = 16
_MAX_CHALLENGES = 64
"""One for each time that the gateway came back to the backend. Their tokens are kept; after so many the agent registers
anew, and begins with none."""

_REVOKED = "revoked"
_PASSING_REFUSALS = {"draining", "too_many_connections"}
"""Error codes of a gateway that would never have us, and of one that would at another time."""


class NotAcceptableError(ProtocolError):
    """A frame that is understood but not obeyed: not for us, not the backend's, or not of this session."""

    code = "not_acceptable"


@dataclass(frozen=True, slots=True)
class Desk:
    """The parts of the agent that sessions talk to; they outlive them."""

    agent_id: str
    credentials: Credentials
    renewal: Renewal
    keys: BackendKeys
    switchboard: Switchboard
    journal: Journal
    dispatcher: Dispatcher
    jobs: Jobs
    health: HealthMonitor
    discoverer: Discoverer
    introduction: Introduction
    settings: SettingsInForce
    refusals: SparingLog
    tally: Tally


class Session:
    """`run` once. It keeps the seal that it has begun with, also when the certificate is renewed meanwhile.

    Args:
        gateway: the address.
        on_goaway: called when the gateway is about to stop.
        on_begun: called when the backend has begun its session by this one.
    """

    def __init__(
        self,
        socket: ClientConnection,
        desk: Desk,
        *,
        gateway: str,
        is_preferred: bool,
        on_goaway: Callable[[Session], None],
        on_begun: Callable[[], None],
    ) -> None:
        self._socket = socket
        self._desk = desk
        self._gateway = gateway
        self.connected_since = self.last_contact = datetime.now(UTC)
        self._is_preferred = is_preferred
        self._on_goaway = on_goaway
        self._on_begun = on_begun
        self._seal = desk.credentials.seal
        self._protocol = protocol.Session(protocol.AGENT_OF_GATEWAY)
        self._pump = EventPump(desk.journal, lambda: self.gets_events, self._send_events)
        self._nonce = secrets.token_hex(_NONCE_BYTES)
        self._tokens: list[str] = []
        """What the backend began its sessions by this connection with; the last one counts."""
        self._is_over = asyncio.Event()
        self._fatal: FatalError | None = None
        self._is_resumed = asyncio.Event()

    async def run(self, on_registered: Callable[[], None]) -> None:
        """Serve until the connection ends, which raises, or `end` is called.

        Raises:
            PeerRefusedError, PeerUnavailableError: the gateway does not want us.
            FatalError: it does not keep to the protocol.
        """
        await self._register()
        on_registered()
        self._desk.switchboard.add(self)
        try:
            async with asyncio.TaskGroup() as group:
                works = (self._receive(), self._pump.run(), self._beat(), self._resync_health())
                tasks = [group.create_task(work) for work in works]
                await self._is_over.wait()
                for task in tasks:
                    task.cancel()
        finally:
            self._desk.switchboard.remove(self)
            self._protocol.close()
        if self._fatal is not None:
            raise self._fatal

    def end(self) -> None:
        self._is_over.set()

    @property
    def _token(self) -> str:
        """Empty before the backend has begun its session."""
        return self._tokens[-1] if self._tokens else ""

    @property
    def gateway(self) -> str:
        return self._gateway

    @property
    def gets_events(self) -> bool:
        return self._desk.switchboard.in_use is self

    async def reply(self, message: object) -> None:
        """Send by this session, or if it is gone by the one in use. Not durable, and never raises."""
        switchboard = self._desk.switchboard
        session = self if switchboard.is_open(self) else switchboard.in_use
        if session is None:
            return
        try:
            await session.send(message)
        except (ConnectionClosed, TimeoutError):
            _logger.debug("the gateway went away before a reply; the next session tells it all")

    async def send(self, message: Any) -> None:
        """Seal with the token of this session what has to be sealed, and send it.

        Raises:
            ConnectionClosed, TimeoutError: the session is over.
        """
        if hasattr(message, "token"):
            message = dataclasses.replace(message, token=self._token)
        await self._write(self._seal.sealer.seal(message) if message.type in SEALED_BY_AGENT else encode(message))

    async def send_large(self, message: Any) -> None:
        """Like `send`, for what has no token and is so large that sealing it would hold up the event loop."""
        await self._write(await asyncio.to_thread(self._seal.sealer.seal, message))

    async def _write(self, frame: str) -> None:
        try:
            async with asyncio.timeout(_SEND_TIMEOUT_S):
                await self._socket.send(frame)
        except TimeoutError:
            # A close in order would only wait behind what the gateway does not read.
            self._socket.transport.abort()
            raise TimeoutError(f"it has taken no frame for {_SEND_TIMEOUT_S:g} s") from None

    async def _register(self) -> None:
        introduction = self._desk.introduction
        certificate = self._seal.certificate
        await self.send(
            introduction.register(certificate=certificate, nonce=self._nonce, is_preferred=self._is_preferred)
        )
        try:
            async with asyncio.timeout(_REGISTER_TIMEOUT_S):
                answer = self._protocol.understand(self._protocol.read(await self._socket.recv()))
        except FatalError as error:
            if error.code == _REVOKED:
                raise RevokedError(str(error)) from None
            if error.code in _PASSING_REFUSALS:
                raise PeerUnavailableError(f"it cannot serve this agent now: {error}") from None
            raise PeerRefusedError(f"it refuses this agent: {error} ({error.code})") from None
        _logger.info("registered with the gateway at %s, session %s", self._gateway, answer.session_id)
        skew_s = (datetime.now(UTC) - answer.server_time).total_seconds()
        self._desk.tally.clock_ahead_s = skew_s
        if abs(skew_s) > _TOLERATED_SKEW_S:
            _logger.warning(
                "this host's clock is off by %.0f s: commands may be taken for expired, or too long", skew_s
            )

    # Inward

    async def _receive(self) -> None:
        while True:
            frame = await self._socket.recv()
            self.last_contact = self._desk.tally.last_contact = datetime.now(UTC)
            try:
                await self._take(frame)
            except FatalError as error:
                self._fatal = error
                self.end()
                return

    async def _take(self, frame: str | bytes) -> None:
        """Act on a frame, or tell its sender what is wrong with it. Raises FatalError."""
        data: dict[str, Any] = {}
        try:
            data = self._protocol.read(frame)
            assert isinstance(frame, str), "binary ones are not read"
            self._check(data)
            message = self._protocol.understand(data)
            await self._handle(message, frame)
        except FatalError as error:
            await self._complain(error, data)
            raise
        except ProtocolError as error:
            await self._refuse(data, frame, error)
        except CommitError as error:
            await self.reply(Error("journal_unavailable", str(error), _about(data, error), self._desk.agent_id))
            if data["type"] in (Challenge.type, Resume.type):
                # The backend asks but once in a session.
                self.end()

    def _check(self, data: dict[str, Any]) -> None:
        """Whether a frame may be acted on: the one gate before anything is done or recorded.

        Raises:
            NotAcceptableError, FatalError: it may not.
        """
        reason = self._why_not_acceptable(data)
        if reason is not None:
            raise self._protocol.refused(NotAcceptableError(reason))

    def _why_not_acceptable(self, data: dict[str, Any]) -> str | None:
        kind, target = data["type"], data.get("target_agent", self._desk.agent_id)
        if target != self._desk.agent_id:
            return f"this is for agent {str(target)[:80]!r}, not for {self._desk.agent_id!r}"
        if kind not in SEALED_BY_BACKEND:
            return None
        try:
            self._desk.keys.check(data)
        except SealError as error:
            return str(error)
        if kind == Challenge.type:
            return self._why_not_begun_by(data)
        if not self._token:
            return f"{kind} before the backend has begun this session"
        if kind == Resume.type and data.get("token") != self._token:
            return "this resume is of another session"
        return None

    def _why_not_begun_by(self, challenge: dict[str, Any]) -> str | None:
        """A gateway that repeats an old challenge and its resume would get the events, and the backend none."""
        token = challenge.get("token")
        if challenge.get("nonce") != self._nonce:
            return "this challenge is of another session"
        if not isinstance(token, str) or not 0 < len(token) <= _MAX_TOKEN_CHARACTERS:
            return f"a token has 1 to {_MAX_TOKEN_CHARACTERS} characters"
        if token in self._tokens:
            return "this challenge has been answered before"
        return None

    async def _refuse(self, data: dict[str, Any], frame: str | bytes, error: ProtocolError) -> None:
        """A command that a newer backend words in a way we cannot read still ends, with the reason."""
        self._desk.refusals.write("a frame from %s is refused: %s", self._gateway, error)
        self._desk.tally.count_refusal(error.code, str(error))
        request_id = data.get("request_id")
        is_the_backends = data.get("type") == Command.type and not isinstance(error, NotAcceptableError)
        if isinstance(frame, str) and is_the_backends and isinstance(request_id, str) and is_request_id(request_id):
            await self._desk.dispatcher.refuse(request_id, frame, f"this agent does not understand it: {error}", self)
        else:
            await self._complain(error, data)

    async def _complain(self, error: ProtocolError, data: dict[str, Any]) -> None:
        await self.reply(Error(error.code, str(error), _about(data, error), self._desk.agent_id))

    async def _handle(self, message: Any, frame: str) -> None:
        """Act on a message that has passed the gate. Raises ProtocolError or CommitError if it cannot be obeyed."""
        desk = self._desk
        match message:
            case Command():
                await desk.dispatcher.accept(message, frame, self)
            case EventsAck():
                if message.incarnation == desk.journal.incarnation:
                    desk.journal.acknowledge(message.seq)
            case CancelCommand():
                await desk.dispatcher.cancel(message, self)
            case CheckJobStatus():
                await self.reply(JobStatuses(desk.agent_id, "", await desk.jobs.statuses(message.job_ids)))
            case ProbeCommands():
                await self._probe(message)
            case ConfigUpdate():
                await self._configure(message, frame)
            case Ping():
                await self.reply(desk.introduction.heartbeat())
            case Trust():
                await self._learn(message)
            case Challenge():
                await self._answer(message)
            case Resume():
                await self._resume(message)
            case CertificateRenewed() | CertificateRefused():
                desk.renewal.answered(message)
            case GoAway():
                _logger.info("the gateway at %s is about to stop: %s", self._gateway, message.reason)
                self._on_goaway(self)
            case Discover():
                if reason := desk.discoverer.ask(message):
                    await self.reply(Error("not_available", reason, message.discovery_id[:80], desk.agent_id))
            case Error():
                desk.refusals.write("the gateway refused %s: %s (%s)", message.about, message.reason, message.code)

    async def _learn(self, trust: Trust) -> None:
        try:
            refusals = await self._desk.keys.learn(trust.certificates, self._gateway, trust.crl)
        except TrustError as error:
            raise self._protocol.refused(NotAcceptableError(str(error))) from None
        for reason in refusals:
            self._desk.refusals.write("something that proves the backend's keys is refused: %s", reason)

    async def _answer(self, challenge: Challenge) -> None:
        if len(self._tokens) == _MAX_CHALLENGES:
            _logger.info("the backend has begun %d sessions by this connection: a new one is made", _MAX_CHALLENGES)
            self.end()
            return
        self._desk.switchboard.stand_by(self)
        presence = await self._desk.introduction.presence(challenge.token)
        self._tokens.append(challenge.token)
        await self.reply(presence)
        self._on_begun()

    async def _resume(self, resume: Resume) -> None:
        journal = self._desk.journal
        acked_seq = resume.acked_seq if resume.incarnation == journal.incarnation else 0
        if acked_seq > journal.last_seq:
            _logger.error("the backend holds %d events, the journal %d: it is an old copy", acked_seq, journal.last_seq)
            await journal.renew()
            self._desk.switchboard.begin_again()
            return
        if not self._desk.switchboard.use(self, resume.in_use_since):
            raise self._protocol.refused(NotAcceptableError("another session has come into use since"))
        if acked_seq:
            journal.acknowledge(acked_seq)
        self._pump.resume(acked_seq)
        self._is_resumed.set()
        self._desk.discoverer.session_came_into_use()

    async def _configure(self, update: ConfigUpdate, frame: str) -> None:
        if not await self._desk.health.configure(update, frame):
            raise self._protocol.refused(NotAcceptableError("a newer configuration is in force"))

    async def _probe(self, probe: ProbeCommands) -> None:
        desk = self._desk
        at_work = {each for each in probe.request_ids if desk.dispatcher.is_at_work_on(each)}
        probed = await desk.journal.probe([each for each in probe.request_ids if each not in at_work])
        opened = [*at_work, *probed.open_requests]
        await self.reply(ProbeResult(desk.agent_id, "", probed.journal_since, opened, probed.never_seen))

    # Outward

    async def _resync_health(self) -> None:
        """Apart from reading: the journal may have to wait for room on its disk."""
        while True:
            await self._is_resumed.wait()
            self._is_resumed.clear()
            await self._desk.health.resync()

    async def _send_events(self, batch: list[StoredEvent]) -> None:
        # Events are encoded once, when they are recorded; what is sealed is the frame, with the token of the session.
        message = {
            "type": Events.type,
            "agent_id": self._desk.agent_id,
            "token": self._token,
            "incarnation": self._desk.journal.incarnation,
            "events": [json.loads(event.json) for event in batch],
        }
        await self._write(self._seal.sealer.seal(message))

    async def _beat(self) -> None:
        while True:
            await self.send(self._desk.introduction.heartbeat())
            await self._desk.settings.pause(lambda: self._desk.settings.heartbeat_interval_s)


def _about(data: dict[str, Any], error: Exception) -> str | None:
    """What a complaint is about: a request id, or the type of a frame."""
    unknown = error.type_name if isinstance(error, UnknownMessageError) else None
    about = data.get("request_id") or data.get("type") or unknown
    return str(about)[:80] if about else None
