"""The journal's tables and what a transaction on them does. Runs in the committer's thread; see journal.py for why.

Functions take the connection first and never commit.
"""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any

from opsmap_protocol.codec import encode
from opsmap_protocol.enums import CommandOutcome, JobStatus
from opsmap_protocol.messages import (
    AsyncStarted,
    AsyncStatus,
    Command,
    CommandResult,
    EventBody,
    HealthChanged,
    JobExited,
)

SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS commands (
    request_id TEXT PRIMARY KEY,
    frame TEXT NOT NULL,
    received_at TEXT NOT NULL,
    not_after TEXT NOT NULL,
    subject TEXT,
    epoch INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('open', 'ended')),
    last_event TEXT
) WITHOUT ROWID;
-- Open commands are few and looked for at every registration.
CREATE INDEX IF NOT EXISTS commands_open ON commands (request_id) WHERE state = 'open';
CREATE INDEX IF NOT EXISTS commands_received_at ON commands (received_at);
CREATE TABLE IF NOT EXISTS epochs (subject TEXT PRIMARY KEY, epoch INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS jobs (
    job_id TEXT PRIMARY KEY,
    request_id TEXT NOT NULL UNIQUE,
    frame TEXT NOT NULL,
    subject TEXT,
    is_start INTEGER NOT NULL,
    started_at TEXT NOT NULL,
    status TEXT NOT NULL,
    final TEXT,
    exited_at TEXT
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS jobs_live ON jobs (job_id) WHERE exited_at IS NULL;
CREATE INDEX IF NOT EXISTS jobs_subject ON jobs (subject, started_at);
-- AUTOINCREMENT: a number is never given twice, also after all events were acknowledged and deleted.
CREATE TABLE IF NOT EXISTS events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    at TEXT NOT NULL,
    request_id TEXT,
    body TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS events_request ON events (request_id) WHERE request_id IS NOT NULL;
"""

_MAX_READ_CHARACTERS = 1024 * 1024
_KEEP_COMMANDS = 10_000
_KEEP_COMMANDS_FOR = timedelta(hours=24)


class Admission(Enum):
    NEW = "new"
    """Never seen: it is now in the journal and must be run or refused."""
    KNOWN = "known"
    """Seen before: it must not be run; what it last reported is reported again if it was acknowledged already."""
    REFUSED = "refused"
    """Never seen, and refused: the event that says so is in the journal."""


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """`json` is the `Event` as it goes into a frame."""

    seq: int
    json: str


@dataclass(frozen=True, slots=True)
class OpenCommand:
    """A command whose end has not been reported. `job` is None before its process is known to run, and for ever
    if it is not one that becomes a job."""

    request_id: str
    frame: str
    job: JobRow | None


@dataclass(frozen=True, slots=True)
class JobRow:
    """A job as the journal knows it. `frame` is its command; `is_start`: its check waits for something to be up."""

    job_id: str
    request_id: str
    frame: str
    subject: str | None
    is_start: bool
    started_at: datetime
    status: JobStatus = JobStatus.RUNNING


def identify(db: sqlite3.Connection, now: datetime) -> tuple[str, int]:
    row = db.execute("SELECT value FROM meta WHERE key = 'incarnation'").fetchone()
    if row is None:
        db.execute("INSERT INTO meta VALUES ('created', ?)", (now.isoformat(),))
        incarnation = new_incarnation(db)
    else:
        incarnation = row[0]
    last = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'events'").fetchone()
    return incarnation, last[0] if last else 0


def new_incarnation(db: sqlite3.Connection) -> str:
    incarnation = str(uuid.uuid4())
    db.execute("INSERT OR REPLACE INTO meta VALUES ('incarnation', ?)", (incarnation,))
    return incarnation


_INSERT_COMMAND = "INSERT INTO commands VALUES (?, ?, ?, ?, ?, ?, 'open', NULL)"


def admit(
    db: sqlite3.Connection, command: Command, frame: str, refusal: CommandResult | None, now: datetime
) -> tuple[Admission, list[StoredEvent]]:
    known = _known(db, command.request_id)
    if known is not None:
        return Admission.KNOWN, _repeat(db, command.request_id, known[0], now)
    # Looked at in any case: an epoch has been seen also when its command came too late.
    stale = _check_epoch(db, command)
    refusal = refusal or stale
    row = (command.request_id, frame, as_text(now), as_text(command.not_after), command.subject, command.epoch)
    db.execute(_INSERT_COMMAND, row)
    if refusal is None:
        return Admission.NEW, []
    return Admission.REFUSED, record(db, [refusal], None, now)


def refuse(db: sqlite3.Connection, refusal: CommandResult, frame: str, now: datetime) -> list[StoredEvent]:
    if _known(db, refusal.request_id) is not None:
        return []
    db.execute(_INSERT_COMMAND, (refusal.request_id, frame, as_text(now), as_text(now), None, 0))
    return record(db, [refusal], None, now)


def _known(db: sqlite3.Connection, request_id: str) -> tuple[str | None] | None:
    """The last event of a command, None if there is no such command."""
    found: tuple[str | None] | None = db.execute(
        "SELECT last_event FROM commands WHERE request_id = ?", (request_id,)
    ).fetchone()
    return found


def _check_epoch(db: sqlite3.Connection, command: Command) -> CommandResult | None:
    if command.subject is None:
        return None
    row = db.execute("SELECT epoch FROM epochs WHERE subject = ?", (command.subject,)).fetchone()
    if row is not None and command.epoch < row[0]:
        reason = f"a newer command for this component has been seen (epoch {row[0]}, this one has {command.epoch})"
        return CommandResult(command.request_id, False, CommandOutcome.REJECTED, error=reason)
    db.execute("INSERT OR REPLACE INTO epochs VALUES (?, ?)", (command.subject, command.epoch))
    return None


def _repeat(db: sqlite3.Connection, request_id: str, last_event: str | None, now: datetime) -> list[StoredEvent]:
    """Whoever asks again has lost the answer, unless it is still waiting to be acknowledged."""
    waiting = db.execute("SELECT 1 FROM events WHERE request_id = ?", (request_id,)).fetchone()
    if last_event is None or waiting is not None:
        return []
    return [_insert_event(db, last_event, request_id, now)]


def record(db: sqlite3.Connection, bodies: Iterable[EventBody], job: JobRow | None, now: datetime) -> list[StoredEvent]:
    stored = []
    for body in bodies:
        text = encode(body)
        request_id = None if isinstance(body, HealthChanged) else body.request_id
        stored.append(_insert_event(db, text, request_id, now))
        if isinstance(body, AsyncStarted) and job is not None:
            _insert_job(db, job)
        if isinstance(body, AsyncStatus) and body.status.is_final:
            _end_job(db, body, text, now)
        if isinstance(body, JobExited):
            mark_exited(db, body.job_id, now)
        if request_id is not None and not isinstance(body, JobExited):
            is_end = isinstance(body, CommandResult) or (isinstance(body, AsyncStatus) and body.status.is_final)
            db.execute(
                "UPDATE commands SET last_event = ?, state = ? WHERE request_id = ?",
                (text, "ended" if is_end else "open", request_id),
            )
    return stored


def _insert_event(db: sqlite3.Connection, body: str, request_id: str | None, now: datetime) -> StoredEvent:
    at = as_text(now)
    seq = db.execute("INSERT INTO events (at, request_id, body) VALUES (?, ?, ?)", (at, request_id, body)).lastrowid
    return StoredEvent(seq or 0, _event_json(seq or 0, at, body))


def _event_json(seq: int, at: str, body: str) -> str:
    return f'{{"seq":{seq},"at":"{at}","body":{body}}}'


def _insert_job(db: sqlite3.Connection, job: JobRow) -> None:
    db.execute(
        "INSERT OR IGNORE INTO jobs (job_id, request_id, frame, subject, is_start, started_at, status)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            job.job_id,
            job.request_id,
            job.frame,
            job.subject,
            job.is_start,
            as_text(job.started_at),
            job.status,
        ),
    )


def _end_job(db: sqlite3.Connection, status: AsyncStatus, text: str, now: datetime) -> None:
    db.execute("UPDATE jobs SET status = ?, final = ? WHERE job_id = ?", (status.status, text, status.job_id))
    if status.exit_code is not None:
        mark_exited(db, status.job_id, now)


_SELECT_JOB = "SELECT job_id, request_id, frame, subject, is_start, started_at, status FROM jobs "


def open_commands(db: sqlite3.Connection) -> list[OpenCommand]:
    rows = db.execute("SELECT request_id, frame FROM commands WHERE state = 'open' ORDER BY received_at").fetchall()
    return [OpenCommand(request_id, frame, job_of(db, request_id)) for request_id, frame in rows]


def job_of(db: sqlite3.Connection, request_id: str) -> JobRow | None:
    return _job(db.execute(_SELECT_JOB + "WHERE request_id = ?", (request_id,)).fetchone())


def newest_job(db: sqlite3.Connection, subject: str) -> JobRow | None:
    newest_start = _SELECT_JOB + "WHERE subject = ? ORDER BY is_start DESC, started_at DESC LIMIT 1"
    return _job(db.execute(newest_start, (subject,)).fetchone())


def ended_jobs_with_live_process(db: sqlite3.Connection) -> list[JobRow]:
    rows = db.execute(_SELECT_JOB + "WHERE exited_at IS NULL AND status != 'running'").fetchall()
    return [job for job in map(_job, rows) if job is not None]


def final_statuses(db: sqlite3.Connection, job_ids: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for job_id in job_ids:
        row = db.execute("SELECT final FROM jobs WHERE job_id = ?", (job_id,)).fetchone()
        if row is not None and row[0] is not None:
            found[job_id] = row[0]
    return found


def mark_exited(db: sqlite3.Connection, job_id: str, now: datetime) -> None:
    db.execute("UPDATE jobs SET exited_at = ? WHERE job_id = ? AND exited_at IS NULL", (as_text(now), job_id))


def _job(row: tuple[Any, ...] | None) -> JobRow | None:
    if row is None:
        return None
    job_id, request_id, frame, subject, is_start, started_at, status = row
    started = datetime.fromisoformat(started_at)
    return JobRow(job_id, request_id, frame, subject, bool(is_start), started, JobStatus(status))


def first_seq(db: sqlite3.Connection) -> int | None:
    oldest: int | None = db.execute("SELECT MIN(seq) FROM events").fetchone()[0]
    return oldest


def events_after(db: sqlite3.Connection, seq: int, max_events: int) -> list[StoredEvent]:
    """The first of them at least, and not much more than a frame takes: one result may be megabytes."""
    rows = db.execute("SELECT seq, at, body FROM events WHERE seq > ? ORDER BY seq LIMIT ?", (seq, max_events))
    events: list[StoredEvent] = []
    size = 0
    for number, at, body in rows:
        size += len(body)
        if events and size > _MAX_READ_CHARACTERS:
            break
        events.append(StoredEvent(number, _event_json(number, at, body)))
    return events


def forget_events(db: sqlite3.Connection, seq: int) -> None:
    db.execute("DELETE FROM events WHERE seq <= ?", (seq,))


def save_setting(db: sqlite3.Connection, key: str, value: str) -> None:
    db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (f"setting:{key}", value))


def load_setting(db: sqlite3.Connection, key: str) -> str | None:
    row = db.execute("SELECT value FROM meta WHERE key = ?", (f"setting:{key}",)).fetchone()
    return None if row is None else str(row[0])


def prune(db: sqlite3.Connection, now: datetime, jobs_before: datetime) -> None:
    # Never one that could still come again and be run: only its row says that it was run already.
    db.execute(
        "DELETE FROM commands WHERE state = 'ended' AND not_after < ? AND (received_at < ? OR received_at <"
        " (SELECT received_at FROM commands ORDER BY received_at DESC LIMIT 1 OFFSET ?))",
        (as_text(now), as_text(now - _KEEP_COMMANDS_FOR), _KEEP_COMMANDS - 1),
    )
    db.execute("DELETE FROM jobs WHERE status != 'running' AND exited_at < ?", (as_text(jobs_before),))


def as_text(moment: datetime) -> str:
    """Times as text that sorts as they do."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")
