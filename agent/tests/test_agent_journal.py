"""The journal's promises: taken once, reported for certain, kept over restarts and through a full disk."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from opsmap_agent.journal.committer import CommitError
from opsmap_agent.journal.journal import Journal
from opsmap_agent.journal.rows import Admission, JobRow
from opsmap_protocol.enums import CommandOutcome, HealthStatus, JobStatus, OutputStream
from opsmap_protocol.messages import (
    AsyncStarted,
    AsyncStatus,
    Command,
    CommandOutput,
    CommandResult,
    HealthChanged,
    JobExited,
)
from opsmap_protocol.specs import NativeCommand, SyncMode

NOW = datetime(2026, 11, 21, 3, 0, tzinfo=UTC)


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def journal(tmp_path: Path, clock: Clock) -> AsyncIterator[Journal]:
    opened = await Journal.open(tmp_path, clock)
    yield opened
    await opened.close()


def command(
    request_id: str, *, subject: str | None = None, epoch: int = 0, in_time_s: float = 60, issued_at: datetime = NOW
) -> Command:
    return Command(
        request_id=request_id,
        target_agent="srv-1",
        command=NativeCommand("uptime"),
        execution_mode=SyncMode(),
        timeout_ms=1000,
        issued_at=issued_at,
        not_after=issued_at + timedelta(seconds=in_time_s),
        subject=subject,
        epoch=epoch,
    )


def result(request_id: str) -> CommandResult:
    return CommandResult(request_id, True, CommandOutcome.SUCCEEDED, result={"ok": "<b>\x1b[31m</b>"})


def started(job_id: str, request_id: str, subject: str, *, is_start: bool, at: datetime) -> tuple[AsyncStarted, JobRow]:
    row = JobRow(job_id, request_id, "{}", subject, is_start, at)
    return AsyncStarted(request_id, job_id, 1, at, 2000), row


def count_events(db: sqlite3.Connection) -> int:
    return int(db.execute("SELECT count(*) FROM events").fetchone()[0])


def count_commands(db: sqlite3.Connection) -> int:
    return int(db.execute("SELECT count(*) FROM commands").fetchone()[0])


async def seqs(journal: Journal, after: int = 0) -> list[int]:
    return [event.seq for event in await journal.events_after(after, 100)]


async def test_command_is_taken_once(journal: Journal) -> None:
    assert await journal.admit(command("r-1"), "{}") is Admission.NEW
    assert await journal.admit(command("r-1"), "{}") is Admission.KNOWN
    assert (await journal.holdings()).open_requests == ["r-1"]


async def test_simultaneous_copies_are_taken_once(journal: Journal) -> None:
    admissions = await asyncio.gather(*(journal.admit(command("r-1"), "{}") for _ in range(20)))
    assert admissions.count(Admission.NEW) == 1


async def test_lower_epoch_is_refused_and_said_so(journal: Journal) -> None:
    assert await journal.admit(command("r-1", subject="kafka", epoch=5), "{}") is Admission.NEW
    assert await journal.admit(command("r-2", subject="kafka", epoch=5), "{}") is Admission.NEW
    assert await journal.admit(command("r-3", subject="redis", epoch=1), "{}") is Admission.NEW
    assert await journal.admit(command("r-4", subject="kafka", epoch=4), "{}") is Admission.ENDED
    (event,) = await journal.events_after(0, 10)
    body = json.loads(event.json)["body"]
    assert (body["request_id"], body["outcome"]) == ("r-4", "rejected")
    assert "epoch 5" in body["error"]


async def test_epoch_counts_although_the_command_came_too_late(journal: Journal) -> None:
    late = CommandResult("r-1", False, CommandOutcome.EXPIRED, error="late")
    assert await journal.admit(command("r-1", subject="kafka", epoch=7), "{}", late) is Admission.ENDED
    assert await journal.admit(command("r-2", subject="kafka", epoch=6), "{}") is Admission.ENDED


async def test_answer_is_written_together_with_its_command(journal: Journal) -> None:
    assert await journal.admit(command("r-1"), "{}", result("r-1")) is Admission.ENDED
    assert await journal.admit(command("r-1"), "{}", result("r-1")) is Admission.KNOWN
    assert await seqs(journal) == [1]
    assert (await journal.holdings()).open_requests == []


async def test_answer_does_not_count_if_its_command_is_refused(journal: Journal) -> None:
    await journal.admit(command("r-1", subject="kafka", epoch=5), "{}")
    assert await journal.admit(command("r-2", subject="kafka", epoch=4), "{}", result("r-2")) is Admission.ENDED
    (event,) = await journal.events_after(0, 10)
    assert json.loads(event.json)["body"]["outcome"] == "rejected"


async def test_known_command_repeats_its_end_once_that_was_acknowledged(journal: Journal) -> None:
    await journal.admit(command("r-1"), "{}")
    await journal.record(result("r-1"))
    await journal.admit(command("r-1"), "{}")
    assert await seqs(journal) == [1]
    journal.acknowledge(1)
    async with asyncio.timeout(3):
        while await journal._committer.submit(count_events):  # noqa: ASYNC110 - deleted later, without news
            await asyncio.sleep(0.02)
    await journal.admit(command("r-1"), "{}")
    (event,) = await journal.events_after(1, 10)
    assert json.loads(event.json) == {
        "seq": 2,
        "at": "2026-11-21T03:00:00.000000+00:00",
        "body": json.loads(event.json)["body"],
    }
    assert json.loads(event.json)["body"]["result"] == {"ok": "<b>\x1b[31m</b>"}


async def test_everything_survives_a_restart(tmp_path: Path) -> None:
    first = await Journal.open(tmp_path)
    await first.admit(command("r-1"), '{"some":"frame"}')
    await first.admit(command("r-2"), "{}")
    await first.record(result("r-2"), HealthChanged("c-1", HealthStatus.HEALTHY, {}, NOW))
    await first.save_setting("config_update", "{}")
    incarnation = first.incarnation
    await first.close()
    second = await Journal.open(tmp_path)
    try:
        assert (second.incarnation, second.last_seq) == (incarnation, 2)
        assert [open_command.frame for open_command in await second.open_commands()] == ['{"some":"frame"}']
        assert await seqs(second) == [1, 2]
        assert await second.load_setting("config_update") == "{}"
        assert await second.admit(command("r-2"), "{}") is Admission.KNOWN
    finally:
        await second.close()


async def test_numbers_are_never_given_twice(tmp_path: Path) -> None:
    first = await Journal.open(tmp_path)
    await first.record(result("r-1"), result("r-2"))
    await first._forget(2)
    await first.close()
    second = await Journal.open(tmp_path)
    try:
        assert second.last_seq == 2
        await second.record(result("r-3"))
        assert await seqs(second) == [3]
    finally:
        await second.close()


async def test_events_beyond_memory_come_from_disk(journal: Journal) -> None:
    await journal.record(*(result(f"r-{number}") for number in range(400)))
    assert await seqs(journal, 0) == list(range(1, 101))
    assert await seqs(journal, 350) == list(range(351, 401))


async def test_listener_hears_of_events_in_order(journal: Journal) -> None:
    heard: list[int] = []
    stop = journal.listen(lambda: heard.append(journal.last_seq))
    await asyncio.gather(*(journal.record(result(f"r-{number}")) for number in range(50)))
    stop()
    await journal.record(result("r-last"))
    assert heard == sorted(heard)
    assert heard[-1] == 50


async def make_room(journal: Journal) -> None:
    while True:
        # It fails with whatever shares its commit and finds the disk still full.
        with suppress(CommitError):
            await journal._committer.submit(lambda db: db.execute("PRAGMA max_page_count = 100000").fetchone())
            return


async def test_full_disk_refuses_commands_and_keeps_trying_events(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("opsmap_agent.journal.journal._RETRY_DELAY_S", 0.02)
    await journal._committer.submit(lambda db: db.execute("PRAGMA max_page_count = 1").fetchone())
    with pytest.raises(CommitError, match="full"):
        await journal.admit(command("r-1"), "x" * 100_000)
    recording = asyncio.create_task(journal.record(CommandResult("r", True, CommandOutcome.SUCCEEDED, "x" * 100_000)))
    await asyncio.sleep(0.1)
    assert not recording.done()
    await make_room(journal)
    async with asyncio.timeout(3):
        await recording
    assert journal.last_seq == 1
    assert await journal.admit(command("r-1"), "{}") is Admission.NEW


async def test_fault_in_one_write_leaves_the_others_alone(journal: Journal) -> None:
    outcomes = await asyncio.gather(
        journal.record(result("r-1")),
        journal._committer.submit(lambda db: db.execute("INSERT INTO meta VALUES ('incarnation', 'twice')")),
        journal.record(result("r-2")),
        return_exceptions=True,
    )
    assert [type(outcome).__name__ for outcome in outcomes] == ["NoneType", "IntegrityError", "NoneType"]
    assert await seqs(journal) == [1, 2]


async def test_pruning_keeps_what_could_come_again(journal: Journal, clock: Clock) -> None:
    await journal.admit(command("short", in_time_s=60), "{}")
    await journal.admit(command("long", in_time_s=90_000), "{}")
    await journal.admit(command("open", in_time_s=60), "{}")
    await journal.record(result("short"), result("long"))
    clock.now += timedelta(hours=24, seconds=1)
    await journal.prune(clock.now)
    assert await journal._committer.submit(count_commands) == 2
    assert await journal.admit(command("long"), "{}") is Admission.KNOWN
    assert await journal.admit(command("open"), "{}") is Admission.KNOWN


async def test_old_command_is_over_whatever_the_clock_says(journal: Journal, clock: Clock) -> None:
    """Nobody knows any more that it was run, and the clock says that it is still in time."""
    minute = timedelta(minutes=1)
    assert await journal.admit(command("old", in_time_s=60), "{}") is Admission.NEW
    await journal.record(result("old"))
    clock.now += timedelta(hours=25)
    await journal.prune(clock.now)
    assert await journal._committer.submit(count_commands) == 0
    clock.now = NOW
    assert await journal.admit(command("old", in_time_s=60), "{}") is Admission.ENDED
    (event,) = await journal.events_after(1, 10)
    assert json.loads(event.json)["body"]["outcome"] == "expired"
    assert await journal.admit(command("new", issued_at=NOW + minute), "{}") is Admission.NEW


async def test_command_that_was_held_back_is_over(journal: Journal, clock: Clock) -> None:
    """It was never seen; but the backend has issued another one after the time until which it was to begin."""
    late = NOW + timedelta(minutes=5)
    clock.now = late
    assert await journal.admit(command("newest", issued_at=late), "{}") is Admission.NEW
    clock.now = NOW
    assert await journal.admit(command("held-back", in_time_s=60), "{}") is Admission.ENDED
    assert await journal.admit(command("long", in_time_s=600), "{}") is Admission.NEW


async def test_command_from_the_future_makes_no_others_old(journal: Journal, clock: Clock) -> None:
    future = CommandResult("future", False, CommandOutcome.REJECTED, error="from the future")
    far = command("future", issued_at=NOW + timedelta(days=1))
    assert await journal.admit(far, "{}", future) is Admission.ENDED
    assert await journal.admit(command("r-1"), "{}") is Admission.NEW


async def test_horizon_survives_a_restart(tmp_path: Path, clock: Clock) -> None:
    first = await Journal.open(tmp_path, clock)
    await first.admit(command("newest", issued_at=NOW + timedelta(seconds=59)), "{}")
    await first.close()
    second = await Journal.open(tmp_path, clock)
    try:
        assert await second.admit(command("old", in_time_s=58), "{}") is Admission.ENDED
    finally:
        await second.close()


async def test_probe_tells_open_ended_and_never_seen(journal: Journal) -> None:
    for request_id in ("open", "ended"):
        await journal.admit(command(request_id), "{}")
    await journal.record(result("ended"))
    await journal._forget(1)
    probed = await journal.probe(["never", "open", "ended"])
    assert (probed.open_requests, probed.never_seen) == (["open"], ["never"])
    (event,) = await journal.events_after(1, 10)
    assert json.loads(event.json)["body"]["request_id"] == "ended"
    # Asked again, it is not told again while the backend has not said that it holds it.
    await journal.probe(["ended"])
    assert await seqs(journal, after=1) == [2]


async def test_probe_counts_only_since_nothing_was_forgotten(journal: Journal, clock: Clock) -> None:
    """With the clocks a minute apart, a command may have been issued that much later than it was received."""
    minute = timedelta(minutes=1)
    assert (await journal.probe([])).journal_since == NOW + minute
    clock.now += timedelta(hours=1)
    await journal.admit(command("r-1"), "{}")
    await journal.record(result("r-1"))
    clock.now += timedelta(hours=25)
    await journal.prune(clock.now)
    probed = await journal.probe(["r-1"])
    assert probed.never_seen == ["r-1"]
    assert probed.journal_since == NOW + timedelta(hours=1) + minute
    await journal.renew()
    assert (await journal.probe([])).journal_since == clock.now + minute


async def test_answer_is_repeated_although_other_events_of_the_command_wait(journal: Journal) -> None:
    await journal.admit(command("r-1"), "{}")
    await journal.record(AsyncStatus("r-1", "j-1", JobStatus.COMPLETED, 5))
    await journal._forget(1)
    await journal.record(JobExited("r-1", "j-1", 0))
    await journal.admit(command("r-1"), "{}")
    kinds = [json.loads(event.json)["body"]["type"] for event in await journal.events_after(1, 10)]
    assert kinds == ["job_exited", "async_status"]


async def test_output_is_no_end(journal: Journal) -> None:
    await journal.admit(command("r-1"), "{}")
    await journal.record(CommandOutput("r-1", OutputStream.STDOUT, 0, "x"))
    assert (await journal.holdings()).open_requests == ["r-1"]
    await journal._forget(1)
    await journal.admit(command("r-1"), "{}")
    assert await seqs(journal, after=1) == [], "and no answer that could be repeated"
    await journal.record(CommandOutput("r-1", OutputStream.STDOUT, 1, "y", total=2), result("r-1"))
    assert (await journal.holdings()).open_requests == []


async def test_log_of_a_subject_is_that_of_its_newest_start(journal: Journal) -> None:
    for number, is_start in enumerate([True, True, False]):
        event, row = started(
            f"j-{number}", f"r-{number}", "kafka", is_start=is_start, at=NOW + timedelta(seconds=number)
        )
        await journal.record(event, job=row)
    newest = await journal.newest_job("kafka")
    assert newest is not None
    assert newest.job_id == "j-1"
    assert await journal.newest_job("redis") is None


async def test_job_is_live_until_its_process_is_gone(journal: Journal) -> None:
    event, row = started("j-1", "r-1", "kafka", is_start=True, at=NOW)
    await journal.admit(command("r-1"), "{}")
    await journal.record(event, job=row)
    assert (await journal.open_commands())[0].job == row
    await journal.record(AsyncStatus("r-1", "j-1", JobStatus.COMPLETED, 5))
    assert await journal.open_commands() == []
    assert [job.job_id for job in await journal.ended_jobs_with_live_process()] == ["j-1"]
    assert json.loads((await journal.final_statuses(["j-1", "none"]))["j-1"])["status"] == "completed"
    await journal.record(JobExited("r-1", "j-1", 0))
    assert await journal.ended_jobs_with_live_process() == []


async def test_renewed_journal_is_another_incarnation(journal: Journal) -> None:
    before = journal.incarnation
    await journal.renew()
    assert journal.incarnation != before


async def test_journal_is_its_owners_alone(journal: Journal, tmp_path: Path) -> None:
    await journal.record(result("r-1"))
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes == {"journal.sqlite3": 0o600, "journal.sqlite3-wal": 0o600, "journal.sqlite3-shm": 0o600}


async def test_large_events_are_read_in_small_numbers(journal: Journal) -> None:
    large = [CommandResult(f"r-{number}", True, CommandOutcome.SUCCEEDED, "x" * 400_000) for number in range(5)]
    for each in large:
        await journal.record(each)
    assert await seqs(journal, 0) == [1, 2]
    assert await seqs(journal, 2) == [3, 4]
    assert await seqs(journal, 4) == [5]


async def test_unusable_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "journal.sqlite3").mkdir()
    with pytest.raises(CommitError, match=r"journal\.sqlite3: Is a directory"):
        await Journal.open(tmp_path)
