"""A wall clock that the runner can set wrong while a process runs. Monotonic time goes on as it should."""

from __future__ import annotations

import datetime as dt
import mmap
import struct
import time
from datetime import timedelta, tzinfo
from pathlib import Path
from typing import Any

_FORMAT = struct.Struct("d")
_RealDatetime = dt.datetime
_real_time = time.time


class ClockOffset:
    """Seconds by which a process's clock is wrong, in a file that both sides have mapped."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(_FORMAT.pack(0.0))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), _FORMAT.size)

    def get(self) -> float:
        return float(_FORMAT.unpack_from(self._map)[0])

    def set(self, seconds: float) -> None:
        _FORMAT.pack_into(self._map, 0, seconds)


def shift_python(offset: ClockOffset) -> None:
    """Make `datetime.now` and `time.time` wrong by `offset`, in all that is imported after this."""

    class Meta(type(_RealDatetime)):  # type: ignore[misc]  # the metaclass of datetime is type
        def __instancecheck__(cls, instance: Any) -> bool:
            return isinstance(instance, _RealDatetime)

    class ShiftedDatetime(_RealDatetime, metaclass=Meta):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Any:
            return _RealDatetime.now(tz) + timedelta(seconds=offset.get())

    dt.datetime = ShiftedDatetime  # type: ignore[misc]
    time.time = lambda: _real_time() + offset.get()


def shift_django(offset: ClockOffset) -> None:
    """The same for a backend process, whose code asks `django.utils.timezone`."""
    from django.utils import timezone

    real_now = timezone.now
    timezone.now = lambda: real_now() + timedelta(seconds=offset.get())
