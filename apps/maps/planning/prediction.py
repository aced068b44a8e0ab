"""How long an action will take, from how long it took: a median and a 90th percentile that forget.

Durations of one action on one component are few, skewed and restless: a release makes a start twice as slow for good,
a full disk makes one of them ten times as slow once, and a cache that is warm or cold makes two humps. So

- the middle is a median in which a run weighs half as much as the one four runs later: it follows a change within a
  few runs, and a single outlier hardly moves it;
- what may come above it is read from the errors that this very middle made in the past (the logarithm of the ratio, as
  durations err by factors), likewise weighted: prediction intervals from one-step errors, as in Hyndman and
  Athanasopoulos, "Forecasting: Principles and Practice", section 5.5. Two errors that never happened stand in for a
  history that is still short, and lose their weight as it grows.

`bench/prediction.py` says how well this does on simulated histories, beside the last value and the mean.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

KEPT_RUNS = 50
_MIDDLE_HALF_LIFE = 4
_ERROR_HALF_LIFE = 30
"""In runs. Errors are remembered longer: how uncertain an action is changes less than how long it takes."""

_HIGH = 0.9
_SUPPOSED_ERRORS = ((0.2, 1.35), (0.4, 0.15))
"""(error, weight): before anything is known, nine times in ten less than a quarter above the middle."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """`runs` is how many it rests on, at most `KEPT_RUNS`."""

    p50_ms: int
    p90_ms: int
    runs: int


@dataclass(frozen=True, slots=True)
class Run:
    """One past duration, and by how much the prediction made before it had missed it: log(duration / predicted).

    `error` is None for the first, which nothing had predicted.
    """

    duration_ms: int
    error: float | None


class History:
    """The last runs of one action on one component, oldest first. Immutable: `after` is the history with one more."""

    def __init__(self, runs: Sequence[Run] = ()) -> None:
        self.runs = tuple(runs[-KEPT_RUNS:])

    def after(self, duration_ms: int) -> History:
        duration_ms = max(1, duration_ms)
        middle = self._middle()
        error = None if middle is None else math.log(duration_ms) - middle
        return History([*self.runs, Run(duration_ms, error)])

    def predict(self) -> Prediction | None:
        """None without a history."""
        middle = self._middle()
        if middle is None:
            return None
        return Prediction(round(math.exp(middle)), round(math.exp(middle + self._margin())), len(self.runs))

    def _middle(self) -> float | None:
        if not self.runs:
            return None
        logs = [math.log(run.duration_ms) for run in self.runs]
        return _quantile(logs, _weights(len(logs), _MIDDLE_HALF_LIFE), 0.5)

    def _margin(self) -> float:
        errors = [run.error for run in self.runs if run.error is not None]
        weights = _weights(len(errors), _ERROR_HALF_LIFE)
        supposed, their_weights = zip(*_SUPPOSED_ERRORS, strict=True)
        return max(0.0, _quantile([*errors, *supposed], [*weights, *their_weights], _HIGH))


def _weights(count: int, half_life: float) -> list[float]:
    """1 for the newest, which is the last."""
    return [0.5 ** ((count - 1 - index) / half_life) for index in range(count)]


def _quantile(values: Sequence[float], weights: Sequence[float], share: float) -> float:
    """Each value stands in the middle of its own weight; between two of them the line."""
    total, before = math.fsum(weights), 0.0
    previous: tuple[float, float] | None = None
    for value, weight in sorted(zip(values, weights, strict=True)):
        place = (before + weight / 2) / total
        if place >= share:
            if previous is None:
                return value
            there, low = previous
            return low + (value - low) * (share - there) / (place - there)
        previous = (place, value)
        before += weight
    assert previous is not None, "a quantile of nothing"
    return previous[1]


def combine(path: Sequence[Prediction]) -> Prediction | None:
    """Of steps that follow one another: medians add up, margins as the roots of squares, as if they were independent.

    An approximation: medians of skewed durations add up to less than the median of the sum.
    """
    if not path:
        return None
    middle = sum(step.p50_ms for step in path)
    margin = math.sqrt(math.fsum((step.p90_ms - step.p50_ms) ** 2 for step in path))
    return Prediction(middle, round(middle + margin), min(step.runs for step in path))
