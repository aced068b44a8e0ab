"""One session with a gateway: registration, commands in, events out, until the connection ends."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from websockets.asyncio.client import ClientConnection

from opsmap_agent.dispatcher import Dispatcher, is_request_id
from opsmap_agent.health import HealthMonitor
from opsmap_agent.jobs import Jobs
from opsmap_agent.journal import Journal
from opsmap_agent.journal_tables import StoredEvent
from opsmap_agent.presence import Presence
from opsmap_daemon.connection import PeerRefusedError
from opsmap_protocol import codec
from opsmap_protocol.errors import ProtocolError
from opsmap_protocol.messages import (
    TO_AGENT,
    CancelCommand,
    CheckJobStatus,
    Command,
    ConfigUpdate,
    Error,
    EventsAck,
    JobStatuses,
    Ping,
    Registered,
    Resume,
)

_logger = logging.getLogger(__name__)

_REGISTER_TIMEOUT_S = 10.0
_TOLERATED_SKEW_S = 10.0
_MAX_BATCH_EVENTS = 100
_MAX_BATCH_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Desk:
    """The parts of the agent that a session talks to; they outlive it."""

    agent_id: str
    journal: Journal
    dispatcher: Dispatcher
    jobs: Jobs
    health: HealthMonitor
    presence: Presence
    heartbeat_interval_s: float


class Session:
    def __init__(self, socket: ClientConnection, desk: Desk) -> None:
        self._socket = socket
        self._desk = desk
        self._wake = asyncio.Event()
        self._resume_after: int | None = None
        """Set by `resume`: the pump goes on behind this event. None while there is nothing new to obey."""

    async def run(self, on_registered: Callable[[], None]) -> None:
        """Serve until the connection ends, which raises, or this side wants to begin again, which returns."""
        await self._register()
        on_registered()
        stop_listening = self._desk.journal.listen(self._wake.set)
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._pump()), group.create_task(self._beat())]
                await self._receive()
                for task in tasks:
                    task.cancel()
        finally:
            stop_listening()

    async def send(self, message: object) -> None:
        await self._socket.send(codec.encode(message))

    async def _register(self) -> None:
        await self.send(await self._desk.presence.register())
        try:
            async with asyncio.timeout(_REGISTER_TIMEOUT_S):
                answer = codec.decode(await self._socket.recv(), TO_AGENT)
        except ProtocolError as error:
            raise PeerRefusedError(f"it does not answer like a gateway: {error}") from None
        if isinstance(answer, Error):
            raise PeerRefusedError(f"it refuses this agent: {answer.reason} ({answer.code})")
        if not isinstance(answer, Registered):
            raise PeerRefusedError(f"it does not answer like a gateway: {answer.type} before registered")
        _logger.info("registered with the gateway, session %s", answer.session_id)
        skew_s = (datetime.now(UTC) - answer.server_time).total_seconds()
        if abs(skew_s) > _TOLERATED_SKEW_S:
            _logger.warning(
                "this host's clock is off by %.0f s: commands may be taken for expired, or too long", skew_s
            )

    # Inward

    async def _receive(self) -> None:
        """Returns only if the session has to begin again."""
        is_valid = True
        while is_valid:
            frame = await self._socket.recv()
            text = frame if isinstance(frame, str) else frame.decode("utf-8", "replace")
            message = await self._read(text)
            if message is not None:
                is_valid = await self._handle(message, text)

    async def _read(self, frame: str) -> Any:
        """The message in a frame; None after telling the sender what is wrong with it."""
        data: dict[str, Any] = {}
        try:
            data = codec.parse(frame)
            message = codec.from_plain(data, TO_AGENT)
        except ProtocolError as error:
            await self._refuse_frame(data, frame, error)
            return None
        reason = self._why_not_ours(message)
        if reason is not None:
            _logger.error("refused a message: %s", reason)
            await self._complain("not_acceptable", reason, data)
            return None
        return message

    async def _refuse_frame(self, data: dict[str, Any], frame: str, error: ProtocolError) -> None:
        """A command that a newer backend words in a way we cannot read still ends, with the reason."""
        _logger.warning("a frame of the gateway is not understood: %s", error)
        request_id = data.get("request_id")
        is_ours = data.get("type") == Command.type and data.get("target_agent") == self._desk.agent_id
        if is_ours and isinstance(request_id, str) and is_request_id(request_id):
            await self._desk.dispatcher.refuse(request_id, frame, f"this agent does not understand it: {error}")
        else:
            await self._complain(error.code, str(error), data)

    async def _complain(self, code: str, reason: str, data: dict[str, Any]) -> None:
        about = data.get("request_id") or data.get("type")
        await self.send(Error(code, reason, str(about)[:80] if about else None, self._desk.agent_id))

    def _why_not_ours(self, message: Any) -> str | None:
        """Whether a message is meant for this agent at all: the one gate before anything is done or recorded."""
        target = getattr(message, "target_agent", self._desk.agent_id)
        if target != self._desk.agent_id:
            return f"this is for agent {target[:80]!r}, not for {self._desk.agent_id!r}"
        return None

    async def _handle(self, message: Any, frame: str) -> bool:
        """Act on a message. False if the session has to begin again."""
        match message:
            case Command():
                await self._desk.dispatcher.accept(message, frame)
            case EventsAck():
                if message.incarnation == self._desk.journal.incarnation:
                    self._desk.journal.acknowledge(message.seq)
            case Resume():
                return await self._resume(message)
            case CancelCommand():
                await self._desk.dispatcher.cancel(message)
            case CheckJobStatus():
                statuses = await self._desk.jobs.statuses(message.job_ids)
                await self.send(JobStatuses(self._desk.agent_id, statuses))
            case ConfigUpdate():
                await self._desk.health.configure(message, frame)
            case Ping():
                await self.send(self._desk.presence.heartbeat())
            case Error():
                _logger.warning("the gateway refused %s: %s (%s)", message.about, message.reason, message.code)
            case _:
                _logger.debug("ignored %s in the middle of a session", message.type)
        return True

    async def _resume(self, resume: Resume) -> bool:
        journal = self._desk.journal
        acked_seq = resume.acked_seq if resume.incarnation == journal.incarnation else 0
        if acked_seq > journal.last_seq:
            _logger.error("the backend holds %d events, the journal %d: it is an old copy", acked_seq, journal.last_seq)
            await journal.renew()
            return False
        if acked_seq:
            journal.acknowledge(acked_seq)
        self._resume_after = acked_seq
        self._wake.set()
        await self._desk.health.resync()
        return True

    # Outward

    async def _pump(self) -> None:
        """Sends events in order: after `resume` all that the backend does not hold, then each as it is committed."""
        sent_seq: int | None = None
        while True:
            await self._wake.wait()
            self._wake.clear()
            while True:
                if self._resume_after is not None:
                    sent_seq, self._resume_after = self._resume_after, None
                if sent_seq is None or sent_seq >= self._desk.journal.last_seq:
                    break
                sent_seq = await self._send_batch(sent_seq)

    async def _send_batch(self, sent_seq: int) -> int:
        """Sends some events behind `sent_seq`; the number of the last."""
        events = await self._desk.journal.events_after(sent_seq, _MAX_BATCH_EVENTS)
        if not events:
            # All of them were acknowledged and forgotten.
            return self._desk.journal.last_seq
        batch = _fitting(events)
        agent_id, incarnation = json.dumps(self._desk.agent_id), json.dumps(self._desk.journal.incarnation)
        listed = ",".join(event.json for event in batch)
        # Put together from what the journal holds: an event is encoded once, however often it is sent.
        await self._socket.send(
            f'{{"type":"events","agent_id":{agent_id},"incarnation":{incarnation},"events":[{listed}]}}'
        )
        return batch[-1].seq

    async def _beat(self) -> None:
        while True:
            await self.send(self._desk.presence.heartbeat())
            await asyncio.sleep(self._desk.heartbeat_interval_s)


def _fitting(events: list[StoredEvent]) -> list[StoredEvent]:
    """As many of the first events as go into one frame, and always one."""
    total = 0
    for index, event in enumerate(events):
        total += len(event.json.encode())
        if total > _MAX_BATCH_BYTES and index > 0:
            return events[:index]
    return events
