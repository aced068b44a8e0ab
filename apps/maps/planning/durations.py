"""How long a plan takes: when each step would begin and end, the chain of steps that decides it, and what is left.

A step begins the moment those it waits for have ended and, with a limit on parallelism, a running one has made room;
among those that could begin, the one before the longest chain goes first (list scheduling: never longer than twice the
best there is, R. L. Graham, "Bounds on Multiprocessing Timing Anomalies", 1969).
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Generic

from apps.maps.planning.graph import K
from apps.maps.planning.plans import PlannedStep, StepAction
from apps.maps.planning.prediction import Prediction, combine

_NORMAL = NormalDist()
_Z90 = _NORMAL.inv_cdf(0.9)
_LEAST_SPREAD = 0.05
"""Of the logarithm: who was always equally slow can still be late."""
_FAR = 5.0
"""Standard deviations."""


@dataclass(frozen=True, slots=True)
class TimedStep(Generic[K]):
    """When a step would begin and end, in milliseconds from now. `released_by` is the step whose end lets it begin."""

    begins_ms: int
    ends_ms: int
    released_by: tuple[K, StepAction] | None


@dataclass(frozen=True, slots=True)
class PlanPrediction(Generic[K]):
    """`path` are the steps that decide how long it takes, first to last."""

    path: tuple[tuple[K, StepAction], ...]
    p50_ms: int
    p90_ms: int


def schedule(
    steps: Sequence[PlannedStep[K]],
    durations_ms: Mapping[tuple[K, StepAction], int],
    *,
    max_parallel: int | None = None,
    begun: Collection[tuple[K, StepAction]] = (),
) -> dict[tuple[K, StepAction], TimedStep[K]]:
    """When each step begins and ends, in the order in which they end.

    `steps` come in an order in which each follows those it waits for; what they wait for and is not among them has
    ended. A step without a duration counts as 0. `begun` run already, whatever the limit: one that was lowered later
    stops nobody.
    """
    if max_parallel is not None and max_parallel < 1:
        raise ValueError("max_parallel is at least 1")
    work = _Work(steps, durations_ms)
    begins: dict[int, tuple[int, int | None]] = {}
    """When, and by whose end."""
    running: list[tuple[int, int]] = []
    """When each ends; a heap."""
    for key in begun:
        begins[work.place[key]] = (0, None)
        heapq.heappush(running, (work.lengths[work.place[key]], work.place[key]))
    ready = [work.rank(index) for index, count in enumerate(work.missing) if count == 0 and index not in begins]
    heapq.heapify(ready)
    now_ms, last_ended = 0, None
    timed: dict[tuple[K, StepAction], TimedStep[K]] = {}
    while ready or running:
        while ready and (max_parallel is None or len(running) < max_parallel):
            index = heapq.heappop(ready)[1]
            begins[index] = (now_ms, last_ended)
            heapq.heappush(running, (now_ms + work.lengths[index], index))
        now_ms, last_ended = heapq.heappop(running)
        began_ms, releaser = begins[last_ended]
        timed[work.keys[last_ended]] = TimedStep(began_ms, now_ms, None if releaser is None else work.keys[releaser])
        for index in work.released_by(last_ended):
            if index not in begins:
                heapq.heappush(ready, work.rank(index))
    return timed


class _Work(Generic[K]):
    """Steps by their places in the plan: how long they are, who follows whom, and how many each still waits for."""

    def __init__(self, steps: Sequence[PlannedStep[K]], durations_ms: Mapping[tuple[K, StepAction], int]) -> None:
        self.keys = [step.key for step in steps]
        self.place = {key: index for index, key in enumerate(self.keys)}
        self.lengths = [durations_ms.get(key, 0) for key in self.keys]
        self.missing = [0] * len(self.keys)
        self._followers: list[list[int]] = [[] for _ in self.keys]
        for index, step in enumerate(steps):
            for before in step.after:
                if before in self.place:
                    self._followers[self.place[before]].append(index)
                    self.missing[index] += 1
        # The longest chain that begins with each.
        self._rest = list(self.lengths)
        for index in reversed(range(len(self.keys))):
            self._rest[index] += max((self._rest[follower] for follower in self._followers[index]), default=0)

    def rank(self, index: int) -> tuple[int, int]:
        """Who should begin first is least."""
        return (-self._rest[index], index)

    def released_by(self, ended: int) -> Iterator[int]:
        for index in self._followers[ended]:
            self.missing[index] -= 1
            if self.missing[index] == 0:
                yield index


def deciding_path(timed: Mapping[tuple[K, StepAction], TimedStep[K]]) -> list[tuple[K, StepAction]]:
    """The chain of steps, each released by the one before it, that ends last."""
    last = max(timed, key=lambda key: timed[key].ends_ms, default=None)
    path: list[tuple[K, StepAction]] = []
    while last is not None:
        path.append(last)
        last = timed[last].released_by
    return path[::-1]


def critical_path(
    steps: Sequence[PlannedStep[K]],
    durations_ms: Mapping[tuple[K, StepAction], int],
    *,
    max_parallel: int | None = None,
) -> tuple[list[tuple[K, StepAction]], int]:
    """The steps that decide how long the plan takes, first to last, and how long that is in milliseconds."""
    timed = schedule(steps, durations_ms, max_parallel=max_parallel)
    return deciding_path(timed), max((step.ends_ms for step in timed.values()), default=0)


def predict_plan(
    steps: Sequence[PlannedStep[K]],
    predictions: Mapping[tuple[K, StepAction], Prediction],
    *,
    max_parallel: int | None = None,
    ended: Collection[tuple[K, StepAction]] = (),
    elapsed_ms: Mapping[tuple[K, StepAction], int] | None = None,
) -> PlanPrediction[K] | None:
    """How long the plan takes, or, with `ended` and how long the begun ones run already, how much longer.

    None if a step that is left has no prediction: the whole would be a guess. An approximation: of branches that are
    about equally long the last one ends later than any of them would alone, so that wide plans are predicted somewhat
    too short.
    """
    elapsed = {key: spent for key, spent in (elapsed_ms or {}).items() if key not in ended}
    left = [step for step in steps if step.key not in ended]
    if any(step.key not in predictions for step in left):
        return None
    rest = {
        step.key: predict_rest(predictions[step.key], elapsed[step.key])
        if step.key in elapsed
        else predictions[step.key]
        for step in left
    }
    begun = [step.key for step in left if step.key in elapsed]
    candidates = []
    # The chain that decides if all goes as usual, and the one that decides if all goes slowly.
    for lengths in ({k: p.p50_ms for k, p in rest.items()}, {k: p.p90_ms for k, p in rest.items()}):
        path = deciding_path(schedule(left, lengths, max_parallel=max_parallel, begun=begun))
        whole = combine([rest[key] for key in path])
        candidates.append((tuple(path), whole or Prediction(0, 0, 0)))
    usual, slow = candidates
    return PlanPrediction(usual[0], usual[1].p50_ms, max(usual[1].p90_ms, slow[1].p90_ms))


def predict_rest(prediction: Prediction, elapsed_ms: int) -> Prediction:
    """How much longer a step takes that has been running for `elapsed_ms`.

    Durations are taken as log-normal, with the predicted median and 90th percentile. So a step that is late is not
    "done any moment": the later it is, the longer it may still take.
    """
    if elapsed_ms <= 0:
        return prediction
    middle = math.log(max(1, prediction.p50_ms))
    spread = max(_LEAST_SPREAD, (math.log(max(1, prediction.p90_ms)) - middle) / _Z90)
    late = (math.log(elapsed_ms) - middle) / spread

    def rest_ms(chance: float) -> int:
        """The remaining time that is exceeded with this chance, given that it still runs."""
        if late < _FAR:
            later = -_NORMAL.inv_cdf(chance * _NORMAL.cdf(-late)) - late
        else:
            # So far out the normal distribution falls off like an exponential one.
            later = -math.log(chance) / late
        return max(0, round(elapsed_ms * math.expm1(spread * later)))

    return Prediction(rest_ms(0.5), rest_ms(0.1), prediction.runs)


def count_levels(steps: Sequence[PlannedStep[K]]) -> int:
    """How many steps must follow one another at most: the depth of the plan."""
    return max(find_levels(steps).values(), default=0)


def find_levels(steps: Sequence[PlannedStep[K]]) -> dict[tuple[K, StepAction], int]:
    """How many steps must have ended for each to end, itself included; 1 for those that begin at once."""
    depths: dict[tuple[K, StepAction], int] = {}
    for step in steps:
        depths[step.key] = 1 + max((depths[key] for key in step.after if key in depths), default=0)
    return depths
