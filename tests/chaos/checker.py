"""The judge: compares what was promised with what the hosts really ran. Pure, so that it can be tested itself.

It believes three witnesses and nothing else: what the API answered, the rows the database holds at the end, and the
ledgers into which the commands themselves wrote when they ran.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

GRACE = timedelta(seconds=60)
"""After `not_after` every command must have a definite end within this time."""

_OPEN = frozenset({"queued", "sent", "received", "started"})
_NEVER_RAN = frozenset({"not_started", "rejected", "expired"})


class Excuse(StrEnum):
    """What an end that is less than exact may be due to, because the trial did it to this very command's host."""

    NONE = "none"
    AGENT_DIED = "agent_died"
    """A sync command's process may have been a child of the agent: `failed` without an exit code is honest."""
    SHIM_DIED = "shim_died"
    """Nobody saw the end of the process: `unknown` is allowed, and so is a failure without an exit code."""


class Wrong(StrEnum):
    LOST = "lost"
    """Accepted and gone, or told otherwise than it was: a run nobody admits, a success nobody had."""
    TWICE = "twice"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True)
class Promise:
    """One command that a trial asked for. `key` is what it writes into the ledger of its host.

    `is_accepted`: the API answered 2xx. Otherwise the answer was lost, and there may be no such command.
    """

    key: str
    agent: str
    exit_code: int
    is_accepted: bool
    asked_at: datetime
    is_cancelled: bool = False
    excuse: Excuse = Excuse.NONE


@dataclass(frozen=True, slots=True)
class Row:
    """What the database says of a command at the time of judgement."""

    state: str
    exit_code: int | None
    not_after: datetime
    finished_at: datetime | None
    was_sent: bool


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that must not be."""

    promise: Promise
    fault: Wrong
    reason: str


@dataclass(frozen=True, slots=True)
class Judgement:
    findings: tuple[Finding, ...]
    states: Counter[str]
    """How many commands ended how; `unknown` among them."""

    def count(self, fault: Wrong) -> int:
        return sum(finding.fault is fault for finding in self.findings)


Runs = Mapping[tuple[str, str], int]
"""How often a command began, by agent and key."""


def judge(
    promises: Iterable[Promise],
    rows: Mapping[tuple[str, str], Row],
    runs: Runs,
    now: datetime,
    grace: timedelta = GRACE,
) -> Judgement:
    """Hold every promise against its row and its runs. `now` is when the rows were read.

    Raises:
        ValueError: a command is open and still has time.
    """
    findings: list[Finding] = []
    states: Counter[str] = Counter()
    for promise in promises:
        row = rows.get((promise.agent, promise.key))
        count = runs.get((promise.agent, promise.key), 0)
        if row is not None:
            states[row.state] += 1
        found = _twice(count) or _missing(promise, row, count)
        if found is None and row is not None:
            found = _undecided(promise, row, now, grace) or _untrue(promise, row, count)
        if found is not None:
            findings.append(Finding(promise, *found))
    return Judgement(tuple(findings), states)


def strangers(promises: Iterable[Promise], runs: Runs) -> list[tuple[str, str]]:
    """What hosts ran that nobody asked for."""
    known = {(promise.agent, promise.key) for promise in promises}
    return sorted(set(runs) - known)


def deadline_of(promise: Promise, row: Row, grace: timedelta = GRACE) -> datetime:
    """When it must have an end. From when it was asked for, if a wrong clock had set `not_after` before that."""
    return max(row.not_after, promise.asked_at) + grace


_Found = tuple[Wrong, str] | None


def _twice(count: int) -> _Found:
    return (Wrong.TWICE, f"it ran {count} times") if count > 1 else None


def _missing(promise: Promise, row: Row | None, count: int) -> _Found:
    if row is not None:
        return None
    if count:
        return Wrong.LOST, "it ran, and no row tells of it"
    return (Wrong.LOST, "the API accepted it, and there is no row") if promise.is_accepted else None


def _undecided(promise: Promise, row: Row, now: datetime, grace: timedelta) -> _Found:
    deadline = deadline_of(promise, row, grace)
    if row.state in _OPEN:
        if now < deadline:
            raise ValueError(f"{promise.key} is judged before its time: still {row.state}")
        return Wrong.UNDECIDED, f"still {row.state} {(now - deadline).total_seconds():.0f} s after its time"
    if row.state == "unknown":
        is_excused = promise.excuse is Excuse.SHIM_DIED
        return None if is_excused else (Wrong.UNDECIDED, "unknown, although neither shim nor host died")
    # A time still to come was written by a clock that a trial had set wrong: no evidence of being late.
    if row.finished_at is not None and deadline < row.finished_at <= now:
        return Wrong.UNDECIDED, f"decided {(row.finished_at - deadline).total_seconds():.0f} s after its time"
    return None


def _untrue(promise: Promise, row: Row, count: int) -> _Found:
    """Whether a definite end tells what happened."""
    match row.state:
        case "succeeded":
            return _exact(promise, row, count)
        case "failed" if row.exit_code is None:
            # A process that nobody saw end. Whether it ran is then not claimed either.
            is_excused = promise.excuse is not Excuse.NONE
            return None if is_excused else (Wrong.LOST, "failed without an exit code, although nothing of it died")
        case "failed":
            return _exact(promise, row, count)
        case "cancelled":
            if not promise.is_cancelled:
                return Wrong.LOST, "cancelled, and nobody asked for that"
            return (Wrong.LOST, "cancelled before it was sent, and it ran") if count and not row.was_sent else None
        case state if state in _NEVER_RAN:
            return (Wrong.LOST, f"{state}, and it ran") if count else None
    return None


def _exact(promise: Promise, row: Row, count: int) -> _Found:
    if count == 0:
        return Wrong.LOST, f"{row.state} with exit code {row.exit_code}, and it never ran"
    # Whatever kills a shim or cancels a command may have ended its process by a signal.
    was_interrupted = promise.excuse is not Excuse.NONE or promise.is_cancelled
    is_right = row.exit_code in (promise.exit_code, None) and (row.state == "succeeded") == (promise.exit_code == 0)
    if is_right or (was_interrupted and row.state == "failed"):
        return None
    return Wrong.LOST, f"{row.state} with exit code {row.exit_code}, but it ended with {promise.exit_code}"
