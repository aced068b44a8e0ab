"""The journal's tables and what a transaction on them does. Runs in the committer's thread; see journal.py for why.

Functions take the connection first and never commit.
"""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from opsmap_agent.host.clocks import MAX_CLOCK_DIFFERENCE
from opsmap_agent.journal.rows import Admission, Holdings, JobRow, Occupancy, OpenCommand, Probed, StoredEvent
from opsmap_protocol.codec import encode
from opsmap_protocol.enums import CommandOutcome, JobStatus
from opsmap_protocol.messages import (
    AsyncStarted,
    AsyncStatus,
    Command,
    CommandEvent,
    CommandOutput,
    CommandResult,
    EventBody,
    JobExited,
)

SCHEMA = """
-- incarnation; complete_since: of commands received since then none was forgotten; horizon: commands that were to begin
-- up to then are over, whatever this host's clock says; setting:*: what the backend configured.
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


def identify(db: sqlite3.Connection, now: datetime) -> tuple[str, int]:
    row = db.execute("SELECT value FROM meta WHERE key = 'incarnation'").fetchone()
    if row is None:
        incarnation = new_incarnation(db, now)
    else:
        incarnation = row[0]
    return incarnation, _last_seq(db)


def new_incarnation(db: sqlite3.Connection, now: datetime) -> str:
    incarnation = str(uuid.uuid4())
    _save(db, "incarnation", incarnation)
    _save(db, "complete_since", as_text(now))
    return incarnation


def holdings(db: sqlite3.Connection) -> Holdings:
    last_seq = _last_seq(db)
    first_seq = db.execute("SELECT MIN(seq) FROM events").fetchone()[0]
    opened = db.execute("SELECT request_id FROM commands WHERE state = 'open' ORDER BY received_at").fetchall()
    return Holdings(_load(db, "incarnation") or "", first_seq or last_seq + 1, last_seq, [row[0] for row in opened])


def occupancy(db: sqlite3.Connection) -> Occupancy:
    first = db.execute("SELECT seq, at FROM events ORDER BY seq LIMIT 1").fetchone()
    events = 0 if first is None else _last_seq(db) - first[0] + 1
    return Occupancy(events, used_bytes(db), None if first is None else datetime.fromisoformat(first[1]))


def used_bytes(db: sqlite3.Connection) -> int:
    pages, free, size = (
        db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * size)


def _last_seq(db: sqlite3.Connection) -> int:
    row = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'events'").fetchone()
    return row[0] if row else 0


_INSERT_COMMAND = "INSERT INTO commands VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
_REFUSALS = {CommandOutcome.REJECTED, CommandOutcome.EXPIRED}


def admit(
    db: sqlite3.Connection,
    command: Command,
    frame: str,
    end: CommandResult | None,
    acked_seq: int,
    now: datetime,
    check_room: Callable[[sqlite3.Connection, datetime], None] = lambda db, now: None,
) -> tuple[Admission, list[StoredEvent]]:
    known = _known(db, command.request_id)
    if known is not None:
        return Admission.KNOWN, _repeat(db, command.request_id, known[0], acked_seq, now)
    check_room(db, now)
    # Looked at in any case: an epoch has been seen also when its command came too late.
    stale = _check_epoch(db, command)
    late = _check_horizon(db, command, now)
    if end is None or end.outcome not in _REFUSALS:
        end = late or stale or end
    row = (command.request_id, frame, as_text(now), as_text(command.not_after), command.subject, command.epoch)
    events = _insert_command(db, row, end, now)
    return (Admission.NEW if end is None else Admission.ENDED), events


def refuse(db: sqlite3.Connection, refusal: CommandResult, frame: str, now: datetime) -> list[StoredEvent]:
    if _known(db, refusal.request_id) is not None:
        return []
    return _insert_command(db, (refusal.request_id, frame, as_text(now), as_text(now), None, 0), refusal, now)


def _insert_command(
    db: sqlite3.Connection, row: tuple[Any, ...], end: CommandResult | None, now: datetime
) -> list[StoredEvent]:
    """A new command, given as the first columns of its row; with its end, if that is known already."""
    if end is None:
        db.execute(_INSERT_COMMAND, (*row, "open", None))
        return []
    text = encode(end)
    db.execute(_INSERT_COMMAND, (*row, "ended", text))
    return [_insert_event(db, text, row[0], now)]


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


def _check_horizon(db: sqlite3.Connection, command: Command, now: datetime) -> CommandResult | None:
    """A clock that was set back does not make an old command young: the backend's own times say that it is over."""
    horizon, issued_at = _load(db, "horizon") or "", as_text(command.issued_at)
    if issued_at > horizon and command.issued_at <= now + MAX_CLOCK_DIFFERENCE:
        _save(db, "horizon", issued_at)
    if as_text(command.not_after) > horizon:
        return None
    reason = f"it was to begin before {as_text(command.not_after)}, and the backend has given newer commands since"
    return CommandResult(command.request_id, False, CommandOutcome.EXPIRED, error=reason)


def _repeat(
    db: sqlite3.Connection, request_id: str, last_event: str | None, acked_seq: int, now: datetime
) -> list[StoredEvent]:
    """Whoever asks again has lost the answer, unless it is still waiting to be acknowledged."""
    if last_event is None:
        return []
    waiting = db.execute(
        "SELECT 1 FROM events WHERE request_id = ? AND body = ? AND seq > ?", (request_id, last_event, acked_seq)
    )
    if waiting.fetchone() is not None:
        return []
    return [_insert_event(db, last_event, request_id, now)]


def record(db: sqlite3.Connection, bodies: Iterable[EventBody], job: JobRow | None, now: datetime) -> list[StoredEvent]:
    stored = []
    for body in bodies:
        text = encode(body)
        request_id = body.request_id if isinstance(body, CommandEvent) else None
        stored.append(_insert_event(db, text, request_id, now))
        if isinstance(body, AsyncStarted) and job is not None:
            _insert_job(db, job)
        if isinstance(body, AsyncStatus) and body.status.is_final:
            _end_job(db, body, text, now)
        if isinstance(body, JobExited):
            mark_exited(db, body.job_id, now)
        if request_id is not None and not isinstance(body, (JobExited, CommandOutput)):
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


def probe(
    db: sqlite3.Connection, request_ids: Sequence[str], acked_seq: int, now: datetime
) -> tuple[Probed, list[StoredEvent]]:
    """What became of commands; the last event of those that have ended comes again."""
    opened, never_seen, repeated = [], [], []
    for request_id in request_ids:
        row = db.execute("SELECT state, last_event FROM commands WHERE request_id = ?", (request_id,)).fetchone()
        if row is None:
            never_seen.append(request_id)
        elif row[0] == "open":
            opened.append(request_id)
        else:
            repeated += _repeat(db, request_id, row[1], acked_seq, now)
    # What ran before the journal began may have been issued that much later, by the backend's clock.
    since = datetime.fromisoformat(_load(db, "complete_since") or as_text(now)) + MAX_CLOCK_DIFFERENCE
    return Probed(since, opened, never_seen), repeated


def save_setting(db: sqlite3.Connection, key: str, value: str) -> None:
    _save(db, f"setting:{key}", value)


def load_setting(db: sqlite3.Connection, key: str) -> str | None:
    return _load(db, f"setting:{key}")


def _save(db: sqlite3.Connection, key: str, value: str) -> None:
    db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))


def _load(db: sqlite3.Connection, key: str) -> str | None:
    row = db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    return None if row is None else str(row[0])


def prune(db: sqlite3.Connection, now: datetime, jobs_before: datetime) -> None:
    # Never one that could still come again and be run: only its row says that it was run already.
    old = (
        "FROM commands WHERE state = 'ended' AND not_after < ? AND (received_at < ? OR received_at <"
        " (SELECT received_at FROM commands ORDER BY received_at DESC LIMIT 1 OFFSET ?))"
    )
    limits = (as_text(now), as_text(now - _KEEP_COMMANDS_FOR), _KEEP_COMMANDS - 1)
    # What is forgotten must neither seem never to have come, nor run again when the clock is set back.
    received_at, not_after = db.execute(f"SELECT max(received_at), max(not_after) {old}", limits).fetchone()
    if received_at is not None:
        _raise(db, "complete_since", received_at)
        _raise(db, "horizon", not_after)
        db.execute(f"DELETE {old}", limits)
    db.execute("DELETE FROM jobs WHERE status != 'running' AND exited_at < ?", (as_text(jobs_before),))


def forget_oldest_commands(db: sqlite3.Connection, now: datetime, count: int) -> int:
    """As `prune`, before their time: commands that are over and acknowledged. How many there were, `count` at most."""
    rows = db.execute(
        "SELECT request_id, received_at, not_after FROM commands c WHERE state = 'ended' AND not_after < ?"
        " AND NOT EXISTS (SELECT 1 FROM events e WHERE e.request_id = c.request_id) ORDER BY received_at LIMIT ?",
        (as_text(now), count),
    ).fetchall()
    if rows:
        _raise(db, "complete_since", rows[-1][1])
        _raise(db, "horizon", max(row[2] for row in rows))
        db.executemany("DELETE FROM commands WHERE request_id = ?", [(row[0],) for row in rows])
    return len(rows)


def _raise(db: sqlite3.Connection, key: str, value: str) -> None:
    _save(db, key, max(value, _load(db, key) or ""))


def as_text(moment: datetime) -> str:
    """Times as text that sorts as they do."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")
