"""How well durations are predicted, on simulated histories whose truth is known; no database, no services.

Six kinds of history: steady, drifting, shifted by a release, with outliers, with two humps, and with a daily rhythm.
After each run the next one is predicted, from the third on.

- `error`: mean absolute error over the mean duration, of the median that is shown; `error_last` and `error_mean` of
  who says the last duration again, or the mean of all.
- `p90_coverage`: the share of runs that were not longer than the p90 said before them.
- `by_kind`: the same for each kind. `us`: what one more run and its prediction cost.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from apps.maps.planning.prediction import History
from bench.measuring import report

RUNS = 60
FIRST_PREDICTED = 2
Shape = Callable[[random.Random, int], float]
"""A factor on the usual duration, by the number of the run."""


@dataclass
class Score:
    missed: float = 0.0
    missed_by_last: float = 0.0
    missed_by_mean: float = 0.0
    total: float = 0.0
    covered: int = 0
    count: int = 0

    def add(self, other: Score) -> None:
        for name in vars(self):
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def figures(self) -> dict[str, float]:
        return {
            "error": round(self.missed / self.total, 3),
            "error_last": round(self.missed_by_last / self.total, 3),
            "error_mean": round(self.missed_by_mean / self.total, 3),
            "p90_coverage": round(self.covered / self.count, 3),
        }


def main() -> None:
    options = _parser().parse_args()
    draw = random.Random(options.seed)
    whole, by_kind, spent_s = Score(), {}, 0.0
    for kind, make_shape in KINDS.items():
        score = Score()
        for _ in range(options.histories):
            durations = list(_simulate(draw, make_shape(draw)))
            began = time.perf_counter()
            score.add(_judge(durations))
            spent_s += time.perf_counter() - began
        by_kind[kind] = score.figures()
        whole.add(score)
    figures: dict[str, Any] = whole.figures()
    us = 1e6 * spent_s / (len(KINDS) * options.histories * RUNS)
    report({**figures, "by_kind": by_kind, "us": round(us), "seed": options.seed})


def _simulate(draw: random.Random, shape: Shape) -> Iterator[int]:
    usual_ms, noise = draw.lognormvariate(math.log(8000), 1), draw.choice([0.05, 0.1, 0.2, 0.35])
    for number in range(RUNS):
        yield max(1, round(usual_ms * math.exp(draw.gauss(0, noise)) * shape(draw, number)))


def _judge(durations: list[int]) -> Score:
    score, history = Score(), History()
    for number, actual in enumerate(durations):
        predicted = history.predict()
        if number >= FIRST_PREDICTED and predicted is not None:
            score.missed += abs(predicted.p50_ms - actual)
            score.missed_by_last += abs(durations[number - 1] - actual)
            score.missed_by_mean += abs(fmean(durations[:number]) - actual)
            score.total += actual
            score.covered += actual <= predicted.p90_ms
            score.count += 1
        history = history.after(actual)
    return score


def _steady(draw: random.Random) -> Shape:
    return lambda _, number: 1.0


def _drifting(draw: random.Random) -> Shape:
    slope = draw.choice([-0.01, 0.01, 0.02])
    return lambda _, number: math.exp(slope * number)


def _shifted(draw: random.Random) -> Shape:
    moment, factor = draw.randrange(15, 45), draw.choice([0.5, 2.2])
    return lambda _, number: factor if number >= moment else 1.0


def _with_outliers(draw: random.Random) -> Shape:
    return lambda draw, number: draw.uniform(3, 10) if draw.random() < 0.06 else 1.0


def _with_two_humps(draw: random.Random) -> Shape:
    return lambda draw, number: 3.0 if draw.random() < 0.3 else 1.0


def _daily(draw: random.Random) -> Shape:
    return lambda _, number: 1 + 0.4 * math.sin(number / 7 * 2 * math.pi)


KINDS: dict[str, Callable[[random.Random], Shape]] = {
    "steady": _steady,
    "drifting": _drifting,
    "shifted": _shifted,
    "with_outliers": _with_outliers,
    "with_two_humps": _with_two_humps,
    "daily": _daily,
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="How well durations are predicted.")
    parser.add_argument("--histories", type=int, default=200, help="of each kind (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    return parser


if __name__ == "__main__":
    main()
