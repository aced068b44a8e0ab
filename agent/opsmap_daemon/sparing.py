"""Log lines that somebody else can cause: so many a minute, and then how many were left out."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

_WINDOW_S = 60.0


class SparingLog:
    """Writes at most `limit` lines of one kind a minute.

    Args:
        logger, level: where the lines go.
        limit: lines a minute; the next minute begins with how many there would have been besides.
        clock: seconds that only grow, for tests.
    """

    def __init__(
        self, logger: logging.Logger, level: int, *, limit: int = 20, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._logger = logger
        self._level = level
        self._limit = limit
        self._clock = clock
        self._window_ends_at = clock() + _WINDOW_S
        self._lines = 0

    def write(self, text: str, *arguments: object) -> None:
        now = self._clock()
        if now >= self._window_ends_at:
            self._report_left_out()
            self._window_ends_at = now + _WINDOW_S
            self._lines = 0
        self._lines += 1
        if self._lines <= self._limit:
            self._logger.log(self._level, text, *arguments)

    def _report_left_out(self) -> None:
        if self._lines > self._limit:
            self._logger.log(self._level, "%d more lines like these were left out", self._lines - self._limit)
