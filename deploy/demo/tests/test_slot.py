"""Locks and pid files: who is ours to signal, and when nothing is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.demo.lease import is_free
from deploy.demo.slot import Slot


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A live process that has nothing to do with any slot."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def test_a_slot_has_one_holder(tmp_path: Path) -> None:
    first, second = Slot(tmp_path, "pricing"), Slot(tmp_path, "pricing")
    assert not second.is_held()
    assert first.acquire(timeout_s=0)
    assert second.is_held()
    assert not second.acquire(timeout_s=0.05)


def test_the_recorded_process_is_known_while_it_lives(tmp_path: Path, sleeper: subprocess.Popen[bytes]) -> None:
    slot = Slot(tmp_path, "pricing")
    assert slot.acquire(timeout_s=0)
    assert slot.main_pid() is None
    slot.record(sleeper.pid)
    assert slot.main_pid() == sleeper.pid
    sleeper.kill()
    # Dead but not waited for: a zombie does no work any more.
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)
    assert slot.main_pid() is None


@pytest.mark.parametrize("text", ["", "{pid}\n", "{pid} 1\n", "{pid} 0\n", "no pid\n"])
def test_a_stranger_with_the_recorded_pid_is_left_alone(
    tmp_path: Path, sleeper: subprocess.Popen[bytes], text: str
) -> None:
    slot = Slot(tmp_path, "pricing")
    assert slot.acquire(timeout_s=0)
    slot.pid_file.write_text(text.format(pid=sleeper.pid))
    assert slot.main_pid() is None
    assert not slot.end(signal.SIGKILL, timeout_s=0.1)
    assert sleeper.poll() is None


def test_the_lease_is_free_without_a_file_and_without_a_holder(tmp_path: Path) -> None:
    lease = tmp_path / "lease"
    assert is_free(lease)
    lease.touch()
    assert is_free(lease)
    holder = Slot(tmp_path, "holder")
    assert holder.acquire(timeout_s=0)
    assert not is_free(tmp_path / "holder" / "lock")
