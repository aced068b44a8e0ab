"""A cache of few large things, bounded by what they weigh together."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class WeightedCache(Generic[K, V]):
    """Keeps what was asked for last, as long as it does not weigh more than `max_weight` in all. For threads, too.

    One that is heavier than the whole is not kept: it would push out everything else, each time.
    """

    def __init__(self, max_weight: int) -> None:
        self._max_weight = max_weight
        self._lock = threading.Lock()
        self._kept: OrderedDict[K, tuple[V, int]] = OrderedDict()
        self._weight = 0

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: K) -> V | None:
        with self._lock:
            kept = self._kept.get(key)
            if kept is None:
                return None
            self._kept.move_to_end(key)
            return kept[0]

    def put(self, key: K, value: V, weight: int) -> None:
        with self._lock:
            self._drop(key)
            if weight > self._max_weight:
                return
            self._kept[key] = (value, weight)
            self._weight += weight
            while self._weight > self._max_weight:
                self._drop(next(iter(self._kept)))

    def clear(self) -> None:
        with self._lock:
            self._kept.clear()
            self._weight = 0

    def _drop(self, key: K) -> None:
        kept = self._kept.pop(key, None)
        if kept is not None:
            self._weight -= kept[1]
