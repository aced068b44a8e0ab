"""How long to wait before trying again: exponential, capped, and with jitter.

Jitter matters more than the exponent: when a gateway dies, its thousand agents must not knock at the next one
together.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from opsmap_daemon.configuration import at_least, setting


@dataclass(frozen=True)
class Reconnect:
    """The `reconnect` section of both daemons. `max_attempts` 0 means for ever."""

    initial_delay_ms: int = setting(1_000, rule=at_least(1))
    max_delay_ms: int = setting(30_000, rule=at_least(1))
    multiplier: float = setting(2.0, rule=at_least(1))
    max_attempts: int = setting(0, rule=at_least(0))

    def __post_init__(self) -> None:
        if self.max_delay_ms < self.initial_delay_ms:
            raise ValueError("max_delay_ms is smaller than initial_delay_ms")

    @property
    def max_delay_s(self) -> float:
        return self.max_delay_ms / 1000

    def delays(self, draw: Callable[[], float] = random.random) -> Iterator[float]:
        """Endless delays in seconds, each from half to all of its step. `draw` gives numbers in [0, 1)."""
        step_s = self.initial_delay_ms / 1000
        while True:
            yield step_s * (0.5 + draw() / 2)
            step_s = min(step_s * self.multiplier, self.max_delay_s)
