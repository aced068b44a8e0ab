"""Programs under a time limit: their whole group ends, their output is bounded, nothing is left behind."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from opsmap_agent.commands.refusals import NotStartedError
from opsmap_agent.commands.sync import SyncRunner
from opsmap_agent.rules.program import Program

ENV = {"PATH": "/usr/bin:/bin"}


@pytest.fixture
def runner() -> Iterator[SyncRunner]:
    with ThreadPoolExecutor(2) as executor:
        yield SyncRunner(executor, 10_000)


def sh(text: str) -> Program:
    return Program(["/bin/sh", "-c", text], ENV)


def children() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


async def gone(pid: int) -> bool:
    """Whether a process ends within a moment: the kernel may still be about it."""
    for _ in range(200):
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        await asyncio.sleep(0.005)
    return False


async def test_result_of_a_program(runner: SyncRunner) -> None:
    result = await runner.run(sh("echo out; echo err >&2; exit 3"), 5)
    assert (result.exit_code, result.stdout, result.stderr) == (3, "out\n", "err\n")
    assert not result.timed_out
    assert (result.lost_stdout, result.lost_stderr) == (0, 0)
    assert not result.is_success
    assert (await runner.run(sh("kill -KILL $$"), 5)).exit_code == 137


async def test_limit_kills_the_whole_group(runner: SyncRunner, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    begun = time.monotonic()
    result = await runner.run(sh(f"echo before; (trap '' TERM; sleep 60) & echo $! > {pid_file}; sleep 60"), 0.3)
    assert time.monotonic() - begun < 2
    assert (result.exit_code, result.timed_out, result.stdout) == (-1, True, "before\n")
    assert await gone(int(pid_file.read_text()))
    assert children() == []


async def test_cancelling_kills_too(runner: SyncRunner, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    running = asyncio.create_task(
        runner.run(sh(f"echo $$ > {pid_file}.new; mv {pid_file}.new {pid_file}; sleep 60"), 60)
    )
    async with asyncio.timeout(5):
        while not pid_file.exists():  # noqa: ASYNC110 - made by another process
            await asyncio.sleep(0.005)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert await gone(int(pid_file.read_text()))


async def test_cancelling_while_starting_leaves_nothing(runner: SyncRunner) -> None:
    running = asyncio.create_task(runner.run(sh("sleep 60"), 60))
    await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert children() == []


async def test_output_beyond_the_limit_is_dropped_and_marked(runner: SyncRunner) -> None:
    result = await runner.run(sh("head -c 300000 /dev/zero | tr '\\0' x; echo done >&2"), 5)
    assert result.exit_code == 0
    assert result.lost_stdout + result.lost_stderr == 300_005 - 10_000
    assert len(result.stdout) + len(result.stderr) == 10_000


async def test_left_behind_child_does_not_hold_the_answer(runner: SyncRunner) -> None:
    begun = time.monotonic()
    result = await runner.run(sh("sleep 5 & echo $!; exit 0"), 5)
    assert time.monotonic() - begun < 2
    assert result.is_success
    psutil.Process(int(result.stdout)).kill()


async def test_any_output_survives_as_data(runner: SyncRunner) -> None:
    code = r"import sys; sys.stdout.buffer.write(b'<script>alert(1)</script>\x1b[2J\x00\xff\r\n\xc3\xa9')"
    result = await runner.run(Program([sys.executable, "-c", code], ENV), 5)
    assert result.stdout == "<script>alert(1)</script>\x1b[2J\x00\ufffd\r\né"


async def test_what_cannot_be_executed_is_told(runner: SyncRunner, tmp_path: Path) -> None:
    with pytest.raises(NotStartedError, match="No such file"):
        await runner.run(Program([str(tmp_path / "none")], ENV), 5)
    with pytest.raises(NotStartedError, match="Argument list too long"):
        await runner.run(Program(["/bin/true", "x" * 3_000_000], ENV), 5)


async def test_input_of_a_program_cannot_be_changed_under_it(runner: SyncRunner) -> None:
    program = Program(["/bin/sh", "-s", "1"], ENV, input=b'echo "got $1"; echo more >>/proc/self/fd/0 || echo sealed')
    assert (await runner.run(program, 5)).stdout == "got 1\nsealed\n"
    assert (await runner.run(sh("cat"), 5)).stdout == ""


async def test_many_at_once(runner: SyncRunner) -> None:
    results = await asyncio.gather(*(runner.run(sh(f"echo {number}"), 10) for number in range(30)))
    assert [result.stdout for result in results] == [f"{number}\n" for number in range(30)]
