"""What a batch of reports says of each command, as rows for the statements of `report_sql`."""

from __future__ import annotations

import uuid
from collections import defaultdict
from datetime import datetime, timedelta
from typing import Any

from apps.gateways.dispatch import plain_check_result
from apps.gateways.enums import PREDECESSORS, CommandState
from opsmap.lib.uuid7 import uuid7
from opsmap_protocol import messages
from opsmap_protocol.enums import CommandOutcome, JobStatus

MAX_OUTPUT_CHARACTERS = 64 * 1024 * 1024
MAX_PIECE_CHARACTERS = 64 * 1024

_STATE_OF_OUTCOME = {
    CommandOutcome.SUCCEEDED: CommandState.SUCCEEDED,
    CommandOutcome.FAILED: CommandState.FAILED,
    CommandOutcome.NOT_STARTED: CommandState.NOT_STARTED,
    CommandOutcome.REJECTED: CommandState.REJECTED,
    CommandOutcome.EXPIRED: CommandState.EXPIRED,
    CommandOutcome.CANCELLED: CommandState.CANCELLED,
}
_STATE_OF_JOB = {
    JobStatus.COMPLETED: CommandState.SUCCEEDED,
    JobStatus.FAILED: CommandState.FAILED,
    JobStatus.TIMEOUT: CommandState.FAILED,
    JobStatus.CANCELLED: CommandState.CANCELLED,
}

Row = dict[str, Any]


class Rows:
    """Rows by kind. Each names its command and the agent that spoke: an agent can speak of its own commands only."""

    def __init__(self, now: datetime) -> None:
        self.now = now
        self.received: list[Row] = []
        self.started: list[Row] = []
        self.running: list[Row] = []
        self.outputs: list[Row] = []
        self.ended: dict[uuid.UUID, Row] = {}
        self.exits: dict[uuid.UUID, Row] = {}
        self.never_seen: list[Row] = []
        self.health: dict[uuid.UUID, list[messages.HealthChanged]] = defaultdict(list)
        self.lost: dict[uuid.UUID, list[messages.EventsLost]] = defaultdict(list)
        self._totals: dict[tuple[uuid.UUID, uuid.UUID], dict[str, Row]] = defaultdict(dict)

    def add_body(self, agent: uuid.UUID, body: messages.EventBody) -> None:
        if isinstance(body, messages.HealthChanged):
            self.health[agent].append(body)
            return
        if isinstance(body, messages.EventsLost):
            self.lost[agent].append(body)
            return
        command_id = command_id_of(body.request_id)
        if command_id is None:
            return
        match body:
            case messages.CommandResult():
                self._add_result(agent, command_id, body)
            case messages.AsyncStarted():
                self._add_started(agent, command_id, body)
            case messages.AsyncStatus():
                self._add_status(agent, command_id, body)
            case messages.JobExited():
                self.exits[command_id] = _row(command_id, agent, exit_code=_integer(body.exit_code))
            case messages.CommandOutput():
                self._add_output(agent, command_id, body)

    def add_received(self, agent: uuid.UUID, request_id: str) -> None:
        command_id = command_id_of(request_id)
        if command_id is not None:
            self.received.append(_row(command_id, agent))

    def add_never_seen(self, agent: uuid.UUID, probed: messages.ProbeResult) -> None:
        since = _plausible(probed.journal_since, self.now)
        for request_id in probed.never_seen:
            command_id = command_id_of(request_id)
            if command_id is not None:
                self.never_seen.append(_row(command_id, agent, since=since))

    def add_unstorable(self, agent: uuid.UUID, body: messages.EventBody, reason: str) -> None:
        """Of what could not be stored only that it came."""
        command_id = command_id_of(body.request_id) if isinstance(body, messages.CommandEvent) else None
        if command_id is not None:
            self._end(agent, command_id, CommandState.FAILED, detail=reason)

    def output_totals(self) -> list[Row]:
        """How much of each stream is kept, and how much there was if that is known."""
        return [_row(command, agent, output=streams) for (command, agent), streams in self._totals.items()]

    def _add_result(self, agent: uuid.UUID, command_id: uuid.UUID, result: messages.CommandResult) -> None:
        facts = result.result if isinstance(result.result, dict) else {}
        self._end(
            agent,
            command_id,
            _STATE_OF_OUTCOME[result.outcome],
            detail=result.error or "",
            result=result.result,
            exit_code=_integer(facts.get("exit_code")),
            duration_ms=_bounded(result.duration_ms),
        )

    def _add_started(self, agent: uuid.UUID, command_id: uuid.UUID, started: messages.AsyncStarted) -> None:
        pause_ms = min(max(500, started.suggested_poll_interval_ms), 3_600_000)
        self.started.append(
            _row(
                command_id,
                agent,
                job_id=started.job_id[:80],
                pid=_bounded(started.pid),
                started_at=_plausible(started.started_at, self.now),
                next_poll_at=self.now + timedelta(milliseconds=pause_ms),
            )
        )

    def _add_status(self, agent: uuid.UUID, command_id: uuid.UUID, status: messages.AsyncStatus) -> None:
        facts = {
            "check_result": plain_check_result(status.check_result),
            "exit_code": _integer(status.exit_code),
            "duration_ms": _bounded(status.elapsed_ms),
        }
        if not status.status.is_final:
            self.running.append(_row(command_id, agent, **facts))
            return
        detail = status.error or ""
        if status.status is JobStatus.TIMEOUT and not detail:
            detail = "The completion check did not pass in time."
        state = _STATE_OF_JOB[status.status]
        self._end(agent, command_id, state, detail=detail, log_tail=status.log_tail or "", **facts)

    def _end(self, agent: uuid.UUID, command_id: uuid.UUID, state: CommandState, **facts: Any) -> None:
        """The first end counts, but for one that only said that it was too late."""
        earlier = self.ended.get(command_id)
        if earlier is None or earlier["state"] in PREDECESSORS[state]:
            allowed = sorted(PREDECESSORS[state])
            self.ended[command_id] = _row(command_id, agent, state=state, allowed=allowed, **facts)

    def _add_output(self, agent: uuid.UUID, command_id: uuid.UUID, piece: messages.CommandOutput) -> None:
        if not 0 <= piece.offset <= MAX_OUTPUT_CHARACTERS:
            return
        text = piece.text[:MAX_PIECE_CHARACTERS]
        self.outputs.append(
            _row(command_id, agent, piece=str(uuid7()), stream=piece.stream, position=piece.offset, text=text)
        )
        facts: Row = {"kept": piece.offset + len(text)}
        if piece.total is not None:
            facts["total"] = _bounded(piece.total)
        self._totals[command_id, agent][piece.stream.value] = facts


def command_id_of(request_id: str) -> uuid.UUID | None:
    """The id, if it can be one. Whose command it is decides the agent of each row."""
    try:
        return uuid.UUID(request_id)
    except ValueError:
        return None


def _row(command_id: uuid.UUID, agent: uuid.UUID, /, **fields: Any) -> Row:
    row = {"id": str(command_id), "agent": str(agent)}
    for name, value in fields.items():
        row[name] = value.isoformat() if isinstance(value, datetime) else value
    return row


def _integer(value: Any) -> int | None:
    """An exit code that the column can hold."""
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**31 else None


def _bounded(value: int) -> int:
    return min(max(value, 0), 2**31 - 1)


def _plausible(moment: datetime, now: datetime) -> datetime:
    """A host's clock may say anything; what is centuries off no client can show, and some cannot even read."""
    return moment if abs(moment.timestamp() - now.timestamp()) < 50 * 365 * 86_400 else now
