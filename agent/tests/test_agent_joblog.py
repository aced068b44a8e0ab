"""Logs of jobs: bounded while the process runs, with offsets that stay true."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from opsmap_agent.configuration import DetachedExecution
from opsmap_agent.jobs import log as joblog
from opsmap_agent.jobs.log import JobLog
from opsmap_protocol.specs import AsyncMode, ExecuteCommand, NativeCommand

if TYPE_CHECKING:
    from conftest import OpenHost

LINE = 64
"""Bytes of each numbered line."""


def line(number: int) -> str:
    return f"{number:063d}\n"


@pytest.fixture
def log(tmp_path: Path) -> JobLog:
    return JobLog(tmp_path / "output.log")


@pytest.fixture(params=["hole", "cut"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Whether the file system knows holes."""
    if request.param == "cut":
        monkeypatch.setattr(joblog, "_punch", lambda descriptor, length: False)
    return str(request.param)


def append(log: JobLog, numbers: range) -> None:
    with log.path.open("ab") as file:
        file.write("".join(map(line, numbers)).encode())


def test_log_below_its_limit_is_left_alone(log: JobLog) -> None:
    log.limit(1000)
    append(log, range(16))
    log.limit(LINE * 15)
    assert (log.read(10_000).gone, log.read(10_000).text) == (0, "".join(map(line, range(16))))


def test_oldest_part_goes_and_offsets_stay_true(log: JobLog, way: str) -> None:
    append(log, range(4096))
    with log.path.open("ab") as writer:  # as the command has it
        for begin in range(4096, 16_384, 2048):
            log.limit(64 * 1024)
            writer.write("".join(map(line, range(begin, begin + 2048))).encode())
            writer.flush()
        log.limit(64 * 1024)
    assert log.path.stat().st_blocks * 512 <= 64 * 1024 + 8192
    tail = log.read(LINE * 2)
    assert (tail.text, tail.size) == (line(16_382) + line(16_383), 16_384 * LINE)
    first = log.read(LINE, offset=0)
    least_kept = 64 * 1024 if way == "hole" else 32 * 1024
    assert least_kept <= first.size - first.gone <= 64 * 1024 + 4096
    assert first.offset == first.gone
    assert first.text == line(first.gone // LINE) if first.gone % LINE == 0 else first.text
    middle = log.read(LINE, offset=16_000 * LINE)
    assert (middle.text, middle.offset, middle.next_offset) == (line(16_000), 16_000 * LINE, 16_001 * LINE)
    assert log.read(10, offset=10**9).text == ""


def test_following_by_offset_says_what_is_gone(log: JobLog, way: str) -> None:
    append(log, range(100))
    piece = log.read(LINE * 100, offset=0)
    assert piece.next_offset == 100 * LINE
    append(log, range(100, 8000))
    log.limit(64 * 1024)
    seen = log.read(10**6, offset=piece.next_offset)
    assert seen.offset == seen.gone > piece.next_offset, "what is between the two is what was missed"
    assert seen.next_offset == seen.size == 8000 * LINE
    assert seen.text.endswith(line(7999))
    assert log.read(LINE, offset=seen.next_offset).text == ""


def test_limit_holds_every_time(log: JobLog, way: str) -> None:
    for round_ in range(20):
        append(log, range(round_ * 1000, round_ * 1000 + 1000))
        log.limit(20 * 1024)
        assert log.path.stat().st_blocks * 512 <= 20 * 1024 * 9 // 8 + 8192
    assert log.read(LINE).text == line(19_999)
    assert log.read(1).size == 20_000 * LINE


def test_reading_a_hole_never_shows_it(log: JobLog) -> None:
    append(log, range(8000))
    log.limit(64 * 1024)
    assert "\0" not in log.read(10**7, offset=0).text
    assert "\0" not in log.read(10**7).text


@pytest.mark.parametrize("record", ["", "x", "1", "-1 0\n", "1 2 3", "\xff\xff"])
def test_broken_record_is_no_record(log: JobLog, record: str) -> None:
    append(log, range(3))
    log.path.with_suffix(".gone").write_text(record, encoding="latin-1")
    assert log.read(1000, offset=0).text == "".join(map(line, range(3)))


def test_full_disk_is_an_error_and_no_loss(log: JobLog, monkeypatch: pytest.MonkeyPatch) -> None:
    append(log, range(8000))

    def full(*_: object) -> bool:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(JobLog, "_tell", full)
    with pytest.raises(OSError, match="No space"):
        log.limit(64 * 1024)
    assert log.read(LINE, offset=0).text == line(0)


async def test_log_of_a_running_job_is_bounded_and_followed(
    open_host: OpenHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("opsmap_agent.jobs.jobs._LOG_LIMIT_INTERVAL_S", 0.02)
    text = "head -c 3000000 /dev/zero | tr '\\0' x; echo; echo end; exec sleep 60"
    async with open_host(detached_execution=DetachedExecution(tmp_path / "detached", max_log_mb=1)) as host:
        request = await host.gateway.command(ExecuteCommand("sh", ["-c", text]), AsyncMode())
        pid = (await host.gateway.body("async_started", request))["pid"]
        path = tmp_path / "detached" / f"job_{request}" / "output.log"
        async with asyncio.timeout(5):
            while not (path.stat().st_size == 3_000_005 and path.stat().st_blocks * 512 < 1_100_000):  # noqa: ASYNC110
                await asyncio.sleep(0.01)  # another process writes it
        seen = await host.gateway.run(NativeCommand("job_log", {"request_id": request, "offset": 5, "max_bytes": 100}))
        assert seen["result"]["gone"] == seen["result"]["offset"] > 1_900_000
        end = await host.gateway.run(NativeCommand("job_log", {"request_id": request, "max_bytes": 8}))
        assert end["result"]["text"] == "xxx\nend\n"
        with path.open("ab") as file:
            file.write(b"more\n")
        following = {"request_id": request, "offset": end["result"]["next_offset"]}
        assert (await host.gateway.run(NativeCommand("job_log", following)))["result"]["text"] == "more\n"
        os.kill(pid, signal.SIGKILL)
        await host.gateway.body("async_status", request)
        told = [event["body"] for event in host.gateway.events if event["body"]["type"] == "command_output"]
        assert told[0]["text"].startswith("[the first ")
