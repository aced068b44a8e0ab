"""Holds back whoever tries enrolment tokens that are refused: in memory, of one process, bounded.

Tokens are 256 random bits, so nobody guesses one; this spares the database and the audit trail the attempts.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from threading import Lock

WINDOW_S = 60.0
MAX_PLACES = 10_000


class RefusalThrottle:
    """Counts refusals by where they came from. Safe to use from threads."""

    def __init__(self, max_refusals: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_refusals = max_refusals
        self._clock = clock
        self._lock = Lock()
        # Where from: since when, and how many.
        self._counts: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def wait_s(self, place: str) -> float:
        """How long nobody from there is heard; 0 if at all."""
        with self._lock:
            since_s, count = self._counts.get(place, (0.0, 0))
            left_s = since_s + WINDOW_S - self._clock()
            return left_s if count >= self._max_refusals and left_s > 0 else 0.0

    def note(self, place: str) -> None:
        """A refusal."""
        now_s = self._clock()
        with self._lock:
            since_s, count = self._counts.pop(place, (now_s, 0))
            if since_s + WINDOW_S <= now_s:
                since_s, count = now_s, 0
            self._counts[place] = (since_s, count + 1)
            if len(self._counts) > MAX_PLACES:
                self._counts.popitem(last=False)

    def forget(self) -> None:
        with self._lock:
            self._counts.clear()


BY_ADDRESS = RefusalThrottle(20)
"""By the address that asked, at the web server or at a gateway's door."""

BY_GATEWAY = RefusalThrottle(300)
"""By gateway, however many addresses it names."""
