"""Keeping the journal within its quota: what may go when it is full, in which order, and the gap that says so.

1. Commands that ended and were acknowledged: the backend has all of them, and they are too old to come again.
2. Health changes that a newer one of the same check has overtaken.
3. Output of commands, then the other health changes (what is so now is told again when a session resumes).

What commands did is never dropped: rather, new commands are refused. Runs in the committer's thread.
"""

from __future__ import annotations

import json
import logging
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import datetime

from opsmap_agent.journal import tables
from opsmap_agent.journal.committer import CommitError
from opsmap_protocol import codec
from opsmap_protocol.codec import encode
from opsmap_protocol.messages import CommandOutput, EventsLost, HealthChanged

_logger = logging.getLogger(__name__)

_ROOMY, _FULL = 0.8, 0.95
"""Shares of the quota: down to the first room is made, above the second no command is taken in."""

_LOOKS = 64
"""So often within the writing of one quota the size is looked at."""

_GROUP = 500
_MAX_AT_ONCE = 50_000
"""Of one kind: their numbers are in memory meanwhile."""


class BufferFullError(CommitError):
    """There is no room for another command; nothing is stored."""


class Quota:
    """The size of one journal. `max_bytes` None: it may grow.

    `lost_events` counts what was dropped since the journal was opened.
    """

    def __init__(self, max_bytes: int | None) -> None:
        self._max_bytes = max_bytes
        self._written = 0
        self._is_full = False
        self.lost_events = 0

    def check_room(self, db: sqlite3.Connection, now: datetime) -> None:
        """Raises BufferFullError if no command may be taken in now."""
        if not self._is_full or self._max_bytes is None:
            return
        tables.forget_oldest_commands(db, now, _GROUP)
        self._is_full = tables.used_bytes(db) > self._max_bytes * _FULL
        if self._is_full:
            held = "with what commands did and the backend has not acknowledged"
            raise BufferFullError(f"the buffer is full ({_megabytes(self._max_bytes)}) {held}")

    def note_written(self, db: sqlite3.Connection, characters: int, now: datetime) -> None:
        """So much has been written: now and then, see whether there is room for more, and make some."""
        if self._max_bytes is None:
            return
        self._written += characters
        if self._written < self._max_bytes / _LOOKS:
            return
        self._written = 0
        used = tables.used_bytes(db)
        if used > self._max_bytes * _FULL:
            self._make_room(db, self._max_bytes, now)
            used = tables.used_bytes(db)
        self._is_full = used > self._max_bytes * _FULL

    def _make_room(self, db: sqlite3.Connection, max_bytes: int, now: datetime) -> None:
        goal = max_bytes * _ROOMY
        while tables.used_bytes(db) > goal and tables.forget_oldest_commands(db, now, _GROUP):
            pass
        reason = f"the buffer is full ({_megabytes(max_bytes)})"
        dropped: Counter[str] = Counter()
        for kind, candidates in (
            (HealthChanged.type, _overtaken_health_changes(db)),
            (CommandOutput.type, _events_of(db, CommandOutput.type)),
            (HealthChanged.type, _events_of(db, HealthChanged.type)),
        ):
            for group in _grouped(candidates):
                if tables.used_bytes(db) <= goal:
                    break
                drop(db, group, kind, reason)
                dropped[kind] += len(group)
        if dropped:
            self.lost_events += dropped.total()
            kinds = ", ".join(f"{count} {kind}" for kind, count in dropped.items())
            _logger.warning("%s: dropped %s", reason, kinds)


def drop(db: sqlite3.Connection, seqs: Iterable[int], kind: str, reason: str) -> None:
    """Replace events, in order of `seqs`, by one `events_lost` for each run of numbers without another between them."""
    for first, last in _runs(seqs):
        kinds = Counter({kind: last - first + 1})
        before, behind = _gap_before(db, first), _gap_behind(db, last)
        for _, gap in filter(None, (before, behind)):
            kinds.update(gap.kinds)
        begin = first if before is None else before[1].first_seq
        place = last if behind is None else behind[0]
        body = encode(EventsLost(begin, dict(kinds), reason))
        db.execute("DELETE FROM events WHERE seq >= ? AND seq < ?", (begin, place))
        db.execute("UPDATE events SET body = ?, request_id = NULL WHERE seq = ?", (body, place))


def _gap_before(db: sqlite3.Connection, seq: int) -> tuple[int, EventsLost] | None:
    row = db.execute("SELECT seq, body FROM events WHERE seq = ? - 1", (seq,)).fetchone()
    return _as_gap(row)


def _gap_behind(db: sqlite3.Connection, seq: int) -> tuple[int, EventsLost] | None:
    row = db.execute("SELECT seq, body FROM events WHERE seq > ? ORDER BY seq LIMIT 1", (seq,)).fetchone()
    gap = _as_gap(row)
    return gap if gap is not None and gap[1].first_seq == seq + 1 else None


def _as_gap(row: tuple[int, str] | None) -> tuple[int, EventsLost] | None:
    if row is None or not row[1].startswith(_prefix(EventsLost.type)):
        return None
    gap: EventsLost = codec.build(EventsLost, json.loads(row[1]))
    return row[0], gap


def _events_of(db: sqlite3.Connection, kind: str) -> Iterator[int]:
    """The oldest of that type, as they are when the first is asked for."""
    found = db.execute(
        "SELECT seq FROM events WHERE body GLOB ? || '*' ORDER BY seq LIMIT ?", (_prefix(kind), _MAX_AT_ONCE)
    ).fetchall()
    yield from (seq for (seq,) in found)


def _overtaken_health_changes(db: sqlite3.Connection) -> Iterator[int]:
    rows = db.execute(
        "SELECT seq, body FROM events WHERE body GLOB ? || '*' ORDER BY seq DESC", (_prefix(HealthChanged.type),)
    )
    newest: set[str] = set()
    overtaken: list[int] = []
    for seq, body in rows:
        check_id = json.loads(body)["check_id"]
        if check_id in newest:
            overtaken.append(seq)
        newest.add(check_id)
        if len(overtaken) == _MAX_AT_ONCE:
            break
    yield from reversed(overtaken)


def _grouped(seqs: Iterator[int]) -> Iterator[list[int]]:
    group: list[int] = []
    for seq in seqs:
        group.append(seq)
        if len(group) == _GROUP:
            yield group
            group = []
    if group:
        yield group


def _runs(seqs: Iterable[int]) -> Iterator[tuple[int, int]]:
    """The first and last of each sequence of consecutive numbers."""
    run: tuple[int, int] | None = None
    for seq in seqs:
        if run is not None and seq == run[1] + 1:
            run = (run[0], seq)
            continue
        if run is not None:
            yield run
        run = (seq, seq)
    if run is not None:
        yield run


def _prefix(kind: str) -> str:
    """How the text of an event of that type begins: `encode` writes the type first."""
    return f'{{"type":"{kind}"'


def _megabytes(size: int) -> str:
    return f"{size / 1024**2:.0f} MB"
