"""What benchmarks share: percentiles, closed loops, and a last line for programs."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that `share` (0 to 1) of all are not above."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def milliseconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return (time.perf_counter() - began) * 1000


def say(text: str) -> None:
    """Progress, for people."""
    print(text, file=sys.stderr, flush=True)


def report(figures: dict[str, Any]) -> None:
    """The last line, for programs."""
    print(json.dumps(figures), flush=True)


class Loops:
    """Several threads, each of which does one thing again and again until `stop`.

    Args:
        make_step: makes what one thread repeats, in that thread, so that each has connections of its own.
    """

    def __init__(self, count: int, make_step: Callable[[], Callable[[], None]]) -> None:
        self.failure: BaseException | None = None
        self._is_over = threading.Event()
        self._make_step = make_step
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(count)]

    def __enter__(self) -> Loops:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()
        if self.failure is not None and error[0] is None:
            raise self.failure

    def wait(self, seconds: float) -> None:
        """Let them run; ends early, with the error, if one of them fails."""
        self._is_over.wait(seconds)
        if self.failure is not None:
            raise self.failure

    def _run(self) -> None:
        try:
            step = self._make_step()
            while not self._is_over.is_set():
                step()
        except BaseException as failure:
            self.failure = self.failure or failure
            self._is_over.set()
