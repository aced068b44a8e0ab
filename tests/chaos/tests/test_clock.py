"""A wrong clock is wrong for whoever asks the time, and for nothing else."""

from __future__ import annotations

import subprocess
import sys
from datetime import timedelta
from pathlib import Path

from django.utils import timezone

from tests.chaos.clock import ClockOffset, shift_django

_PROGRAM = """
import sys, time
from pathlib import Path
import datetime as real
before = real.datetime.now(real.UTC)
from tests.chaos.clock import ClockOffset, shift_python
shift_python(ClockOffset(Path(sys.argv[1])))
from datetime import UTC, datetime
moved = datetime.now(UTC)
assert 3599 < (moved - before).total_seconds() < 3660, moved
assert 3599 < time.time() - before.timestamp() < 3660
assert isinstance(before, datetime) and isinstance(moved, datetime)
assert datetime.fromisoformat(moved.isoformat()) == moved
assert time.monotonic() < 10**9
"""


def test_both_sides_see_the_offset(tmp_path: Path) -> None:
    ours, theirs = ClockOffset(tmp_path / "clock"), ClockOffset(tmp_path / "clock")
    assert theirs.get() == 0.0
    ours.set(-3600.5)
    assert theirs.get() == -3600.5


def test_a_daemon_asks_the_wrong_clock(tmp_path: Path) -> None:
    ClockOffset(tmp_path / "clock").set(3600.0)
    subprocess.run([sys.executable, "-c", _PROGRAM, str(tmp_path / "clock")], check=True)


def test_the_backend_asks_the_wrong_clock(tmp_path: Path) -> None:
    real, offset = timezone.now, ClockOffset(tmp_path / "clock")
    try:
        shift_django(offset)
        offset.set(-60.0)
        assert timedelta(seconds=59) < real() - timezone.now() < timedelta(seconds=61)
        offset.set(0.0)
        assert timezone.now() >= real() - timedelta(seconds=1)
    finally:
        timezone.now = real
