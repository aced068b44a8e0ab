"""A journal that is full: what goes, what never goes, and the gap that says so."""

from __future__ import annotations

import itertools
import json
import sqlite3
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsmap_agent.journal.journal import Journal, tables
from opsmap_agent.journal.quota import BufferFullError, drop
from opsmap_agent.journal.rows import Admission
from opsmap_protocol.enums import CommandOutcome, HealthStatus, OutputStream
from opsmap_protocol.messages import Command, CommandOutput, CommandResult, EventBody, HealthChanged
from opsmap_protocol.specs import NativeCommand, SyncMode

if TYPE_CHECKING:
    from conftest import OpenHost

NOW = datetime(2026, 11, 21, 3, 0, tzinfo=UTC)
MB = 1024 * 1024
KB = "x" * 1024


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    opened = await Journal.open(tmp_path, lambda: NOW, max_bytes=MB)
    yield opened
    await opened.close()


def command(request_id: str, in_time: timedelta = timedelta(seconds=60)) -> Command:
    spec = NativeCommand("uptime")
    issued = NOW - timedelta(seconds=120)
    return Command(request_id, "srv-1", spec, SyncMode(), 1000, issued_at=issued, not_after=NOW + in_time)


def health(check_id: str, text: str = KB) -> HealthChanged:
    return HealthChanged(check_id, HealthStatus.HEALTHY, {"text": text}, NOW)


def output(request_id: str, offset: int = 0) -> CommandOutput:
    return CommandOutput(request_id, OutputStream.STDOUT, offset, 16 * KB)


def result(request_id: str, text: str = "") -> CommandResult:
    return CommandResult(request_id, True, CommandOutcome.SUCCEEDED, result={"text": text})


async def all_events(journal: Journal) -> list[dict[str, Any]]:
    """As a session that begins anew reads them from the disk."""
    events: list[dict[str, Any]] = []
    journal._tail.clear()
    while batch := await journal.events_after(events[-1]["seq"] if events else 0, 1000):
        events += [json.loads(event.json) for event in batch]
    return events


def check_is_gapless(events: Sequence[dict[str, Any]], first: int = 1) -> int:
    """Every number is an event's or within a gap that says so. How many were lost."""
    lost = 0
    for event in events:
        body = event["body"]
        begin = body["first_seq"] if body["type"] == "events_lost" else event["seq"]
        assert begin == first, "nothing is missing without a word"
        lost += sum(body["kinds"].values()) if body["type"] == "events_lost" else 0
        first = event["seq"] + 1
    return lost


async def test_overtaken_health_changes_go_first(journal: Journal) -> None:
    await journal.record(health("kept"))
    await journal.record(output("r-1"))
    for _ in range(50):
        await journal.record(*[health("flapping")] * 30)
    events = await all_events(journal)
    assert check_is_gapless(events) == journal.lost_events > 0
    left = [event["body"]["type"] for event in events]
    assert "command_output" in left
    kept = [event["body"]["check_id"] for event in events if event["body"]["type"] == "health_changed"]
    assert kept[0] == "kept", "the newest word of a check stays"
    assert (await journal.occupancy()).size_bytes < MB


async def test_output_goes_and_what_commands_did_stays(journal: Journal) -> None:
    for number in range(200):
        await journal.record(output(f"r-{number}"), result(f"r-{number}"))
    events = await all_events(journal)
    assert check_is_gapless(events) == journal.lost_events > 0
    results = [event["body"]["request_id"] for event in events if event["body"]["type"] == "command_result"]
    assert results == [f"r-{number}" for number in range(200)]
    assert {event["body"]["reason"] for event in events if event["body"]["type"] == "events_lost"} == {
        "the buffer is full (1 MB)"
    }
    assert (await journal.occupancy()).size_bytes < MB


async def test_full_of_results_no_command_is_taken_in_until_they_are_acknowledged(journal: Journal) -> None:
    await journal.admit(command("known"), "{}")
    for number in range(100):
        await journal.record(result(f"r-{number}", 16 * KB))
    with pytest.raises(BufferFullError, match=r"the buffer is full \(1 MB\) with what commands did"):
        await journal.admit(command("new"), "{}")
    assert await journal.admit(command("known"), "{}") is Admission.KNOWN, "who asks again is answered"
    assert check_is_gapless(await all_events(journal)) == 0, "no result was dropped"
    assert (await journal.probe(["new"])).never_seen == ["new"]
    journal.acknowledge(journal.last_seq)
    await journal._forget(journal.last_seq)
    assert await journal.admit(command("new"), "{}") is Admission.NEW


async def test_old_commands_go_before_any_event_and_are_not_run_again(journal: Journal) -> None:
    for number in range(100):
        await journal.admit(command(f"r-{number}", -timedelta(seconds=30)), "{}" + " " * 16_384)
        await journal.record(result(f"r-{number}"))
        await journal._forget(journal.last_seq)
    await journal.record(health("a"))
    for number in range(100, 150):
        await journal.admit(command(f"r-{number}"), "{}" + " " * 16_384)
    assert journal.lost_events == 0
    assert (await journal.occupancy()).size_bytes < MB
    again = await journal.admit(command("r-0", -timedelta(seconds=30)), "{}")
    assert again is Admission.ENDED, "forgotten, it is over all the same"
    assert (await journal.probe(["r-0"])).journal_since > NOW


async def test_quota_counts_what_was_there_at_the_start(tmp_path: Path) -> None:
    first = await Journal.open(tmp_path, lambda: NOW)
    for number in range(100):
        await first.record(result(f"r-{number}", 16 * KB))
    await first.close()
    second = await Journal.open(tmp_path, lambda: NOW, max_bytes=MB)
    await second.record(result("r-100", 16 * KB))
    with pytest.raises(BufferFullError):
        await second.admit(command("new"), "{}")
    await second.close()


@given(st.lists(st.sampled_from("hoc"), min_size=1, max_size=40), st.lists(st.integers(0, 39), max_size=60))
def test_whatever_is_dropped_in_whatever_order_the_sequence_has_no_hole(kinds: list[str], order: list[int]) -> None:
    db = sqlite3.connect(":memory:", isolation_level=None)
    db.executescript(tables.SCHEMA)
    bodies: dict[str, EventBody] = {"h": health("a", ""), "o": output("r", 0), "c": result("r")}
    tables.record(db, [bodies[kind] for kind in kinds], None, NOW)
    dropped = set()
    for index in order:
        if index < len(kinds) and kinds[index] != "c" and index not in dropped:
            drop(db, [index + 1], bodies[kinds[index]].type, "full")
            dropped.add(index)
    events = [json.loads(event.json) for event in tables.events_after(db, 0, 1000)]
    assert check_is_gapless(events) == len(dropped)
    assert events[-1]["seq"] == len(kinds)
    neighbours = itertools.pairwise(events)
    assert not any(one["body"]["type"] == two["body"]["type"] == "events_lost" for one, two in neighbours)
    db.close()


async def test_refusals_for_want_of_room_are_counted(journal: Journal) -> None:
    for number in range(100):
        await journal.record(result(f"r-{number}", 16 * KB))
    with pytest.raises(BufferFullError):
        await journal.admit(command("new"), "{}")
    assert journal.tally.refused["buffer_full"] == 1


async def test_backend_hears_of_the_gap_and_of_everything_else(open_host: OpenHost) -> None:
    async with open_host() as host:
        await host.stop()
        host.gateway.forget()
        path = host.configuration.buffer.path
        while_away = await Journal.open(path, max_bytes=MB)
        for number in range(100):
            await while_away.record(output(f"r-{number}"), result(f"r-{number}"))
        lost, last = while_away.lost_events, while_away.last_seq
        await while_away.close()
        await host.start_again()
        await host.gateway.until(lambda: bool(host.gateway.events) and host.gateway.events[-1]["seq"] >= last)
        assert check_is_gapless(host.gateway.events) == lost > 0
        kinds = [event["body"]["type"] for event in host.gateway.events]
        assert kinds.count("command_result") == 100
