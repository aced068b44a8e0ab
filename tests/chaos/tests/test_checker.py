"""The judge must find every kind of fault, and nothing where there is none."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from tests.chaos.checker import GRACE, Excuse, Finding, Promise, Row, Wrong, judge, strangers

NOT_AFTER = datetime(2030, 1, 1, tzinfo=UTC)
LATER = NOT_AFTER + GRACE + timedelta(seconds=1)
PROMISE = Promise("key", "agent", 0, is_accepted=True, asked_at=NOT_AFTER - timedelta(seconds=60))
FAILING = replace(PROMISE, exit_code=1)
ROW = Row("succeeded", 0, NOT_AFTER, NOT_AFTER, was_sent=True)


def findings(promise: Promise, row: Row | None, runs: int, now: datetime = LATER) -> list[Finding]:
    rows = {} if row is None else {("agent", "key"): row}
    return list(judge([promise], rows, {("agent", "key"): runs}, now).findings)


def faults(promise: Promise, row: Row | None, runs: int) -> list[Wrong]:
    return [finding.fault for finding in findings(promise, row, runs)]


def row(state: str, exit_code: int | None = None, **changes: object) -> Row:
    return replace(ROW, state=state, exit_code=exit_code, **changes)


@pytest.mark.parametrize(
    ("promise", "found", "runs"),
    [
        (PROMISE, ROW, 1),
        (PROMISE, row("succeeded"), 1),
        (FAILING, row("failed", 1), 1),
        (PROMISE, row("not_started"), 0),
        (PROMISE, row("rejected"), 0),
        (PROMISE, row("expired"), 0),
        (replace(PROMISE, is_accepted=False), None, 0),
        (replace(PROMISE, is_cancelled=True), row("cancelled"), 1),
        (replace(PROMISE, is_cancelled=True), row("cancelled", was_sent=False), 0),
        (replace(PROMISE, is_cancelled=True), row("failed", 143), 1),
        (replace(PROMISE, excuse=Excuse.AGENT_DIED), row("failed"), 0),
        (replace(PROMISE, excuse=Excuse.AGENT_DIED), row("failed"), 1),
        (replace(PROMISE, excuse=Excuse.SHIM_DIED), row("unknown"), 1),
        (replace(PROMISE, excuse=Excuse.SHIM_DIED), row("failed", 137), 1),
    ],
)
def test_what_may_be(promise: Promise, found: Row | None, runs: int) -> None:
    assert findings(promise, found, runs) == []


@pytest.mark.parametrize(
    ("promise", "found", "runs"),
    [
        (PROMISE, None, 0),
        (PROMISE, None, 1),
        (replace(PROMISE, is_accepted=False), None, 1),
        (PROMISE, ROW, 0),
        (FAILING, row("failed", 1), 0),
        (FAILING, ROW, 1),
        (PROMISE, row("failed", 1), 1),
        (FAILING, row("failed", 2), 1),
        (PROMISE, row("failed"), 1),
        (PROMISE, row("not_started"), 1),
        (PROMISE, row("rejected"), 1),
        (PROMISE, row("expired"), 1),
        (PROMISE, row("cancelled"), 0),
        (replace(PROMISE, is_cancelled=True), row("cancelled", was_sent=False), 1),
        (replace(PROMISE, excuse=Excuse.SHIM_DIED), row("expired"), 1),
    ],
)
def test_lost(promise: Promise, found: Row | None, runs: int) -> None:
    assert faults(promise, found, runs) == [Wrong.LOST]


@pytest.mark.parametrize("excuse", list(Excuse))
@pytest.mark.parametrize("found", [None, ROW, row("unknown"), row("cancelled"), row("sent")])
def test_nothing_excuses_a_second_run(excuse: Excuse, found: Row | None) -> None:
    assert faults(replace(PROMISE, excuse=excuse, is_cancelled=True), found, 2) == [Wrong.TWICE]


@pytest.mark.parametrize("state", ["queued", "sent", "received", "started"])
@pytest.mark.parametrize("excuse", list(Excuse))
def test_open_after_its_time(state: str, excuse: Excuse) -> None:
    assert faults(replace(PROMISE, excuse=excuse), row(state), 1) == [Wrong.UNDECIDED]


@pytest.mark.parametrize("excuse", [Excuse.NONE, Excuse.AGENT_DIED])
def test_unknown_only_where_shim_or_host_died(excuse: Excuse) -> None:
    assert faults(replace(PROMISE, excuse=excuse), row("unknown"), 1) == [Wrong.UNDECIDED]


def test_an_end_that_came_too_late() -> None:
    late = NOT_AFTER + GRACE + timedelta(milliseconds=1)
    assert faults(PROMISE, replace(ROW, finished_at=late), 1) == [Wrong.UNDECIDED]


def test_judging_too_early_is_an_error_and_no_verdict() -> None:
    with pytest.raises(ValueError, match="before its time"):
        findings(PROMISE, row("sent"), 0, now=NOT_AFTER)


def test_the_same_key_on_two_hosts_is_two_commands() -> None:
    promises = [PROMISE, replace(PROMISE, agent="other")]
    rows = {("agent", "key"): ROW, ("other", "key"): ROW}
    judgement = judge(promises, rows, {("agent", "key"): 2}, LATER)
    assert [(each.promise.agent, each.fault) for each in judgement.findings] == [
        ("agent", Wrong.TWICE),
        ("other", Wrong.LOST),
    ]
    assert judgement.states == {"succeeded": 2}
    assert (judgement.count(Wrong.TWICE), judgement.count(Wrong.UNDECIDED)) == (1, 0)


def test_what_nobody_asked_for() -> None:
    assert strangers([PROMISE], {("agent", "key"): 1, ("agent", "forged"): 1}) == [("agent", "forged")]


def test_a_wrong_clock_is_no_evidence_of_being_late() -> None:
    assert findings(PROMISE, replace(ROW, finished_at=LATER + timedelta(hours=1)), 1) == []


def test_a_wrong_clock_does_not_make_a_command_late_from_the_start() -> None:
    asked_late = replace(PROMISE, asked_at=LATER)
    assert findings(asked_late, replace(ROW, finished_at=LATER), 1, now=LATER) == []
    assert [each.fault for each in findings(asked_late, row("sent"), 1, now=LATER + 2 * GRACE)] == [Wrong.UNDECIDED]
