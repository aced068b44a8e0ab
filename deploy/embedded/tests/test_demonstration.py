"""The demonstration's processes: found by their pid files, waited for, named when they stay."""

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.embedded import demonstration
from deploy.embedded.liveness import CLOCK_SLACK_S


@pytest.fixture
def component(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process with its pid file, as the demonstration writes it."""
    with subprocess.Popen(["sleep", "600"]) as process:
        file = tmp_path / "pricing" / "pid"
        file.parent.mkdir()
        file.write_text(f"{process.pid}\n", encoding="ascii")
        yield process
        process.kill()


async def test_one_that_stays_is_named(tmp_path: Path, component: subprocess.Popen[bytes]) -> None:
    left = await demonstration.wait_until_gone(tmp_path, timeout_s=0.1, hurry=asyncio.Event())
    assert left == [f"pricing (pid {component.pid})"]


async def test_nobody_waits_in_a_hurry(tmp_path: Path, component: subprocess.Popen[bytes]) -> None:
    hurry = asyncio.Event()
    hurry.set()
    async with asyncio.timeout(10):
        assert await demonstration.wait_until_gone(tmp_path, timeout_s=600, hurry=hurry)


async def test_the_end_of_the_last_one_ends_the_waiting(tmp_path: Path, component: subprocess.Popen[bytes]) -> None:
    waiting = asyncio.create_task(demonstration.wait_until_gone(tmp_path, timeout_s=600, hurry=asyncio.Event()))
    await asyncio.sleep(0)
    component.terminate()
    async with asyncio.timeout(10):
        assert await waiting == []


def test_a_pid_file_older_than_its_process_is_stale(tmp_path: Path, component: subprocess.Popen[bytes]) -> None:
    file = tmp_path / "pricing" / "pid"
    written = file.stat().st_mtime - CLOCK_SLACK_S - 10
    os.utime(file, (written, written))
    assert demonstration.processes(tmp_path) == {}


@pytest.mark.parametrize("text", ["", "none", "999999999"])
def test_a_pid_file_that_names_nobody(tmp_path: Path, text: str) -> None:
    file = tmp_path / "pricing" / "pid"
    file.parent.mkdir()
    file.write_text(text, encoding="ascii")
    assert demonstration.processes(tmp_path) == {}
