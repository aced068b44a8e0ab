"""The witness has to be beyond doubt: every run leaves exactly one mark."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.chaos.ledger import Ledger, command, write_program


@pytest.fixture
def program(tmp_path: Path) -> Path:
    write_program(tmp_path / "run")
    return tmp_path / "run"


def start(program: Path, home: Path, key: str, exit_code: int = 0) -> subprocess.Popen[bytes]:
    spec = command(program, key, seconds=0, exit_code=exit_code)
    environment = {"HOME": str(home), "PATH": "/usr/bin:/bin"}
    return subprocess.Popen([spec["path"], *spec["args"]], stdout=subprocess.DEVNULL, env=environment)


def test_each_run_is_counted_also_at_the_same_moment(program: Path, tmp_path: Path) -> None:
    ledger, other = Ledger(tmp_path / "host"), Ledger(tmp_path / "other")
    keys = ("001-a.1", "001-a.1", "001-a.10", "001-a.1")
    processes = [start(program, tmp_path / "host", key, 3) for key in keys]
    assert [process.wait() for process in processes] == [3, 3, 3, 3]
    assert ledger.runs() == {"001-a.1": 3, "001-a.10": 1}
    assert other.runs() == {}


def test_a_run_that_cannot_be_counted_fails_in_its_own_way(program: Path, tmp_path: Path) -> None:
    assert start(program, tmp_path / "nobody", "key").wait() == 90
