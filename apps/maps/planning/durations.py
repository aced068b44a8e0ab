"""How long a plan takes: the critical path through its steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from apps.maps.planning.graph import K
from apps.maps.planning.plans import PlannedStep, StepAction


def critical_path(
    steps: Sequence[PlannedStep[K]], durations_ms: Mapping[tuple[K, StepAction], int]
) -> tuple[list[tuple[K, StepAction]], int]:
    """The longest chain of steps that wait for each other, first to last, and its length in milliseconds.

    `steps` come in an order in which each follows those it waits for. A step without a duration counts as 0.
    """
    ends: dict[tuple[K, StepAction], int] = {}
    previous: dict[tuple[K, StepAction], tuple[K, StepAction] | None] = {}
    for step in steps:
        latest = max((key for key in step.after if key in ends), key=lambda key: ends[key], default=None)
        previous[step.key] = latest
        ends[step.key] = (ends[latest] if latest else 0) + durations_ms.get(step.key, 0)
    if not ends:
        return [], 0
    last: tuple[K, StepAction] | None = max(ends, key=lambda key: ends[key])
    length = ends[last] if last else 0
    path: list[tuple[K, StepAction]] = []
    while last is not None:
        path.append(last)
        last = previous[last]
    return path[::-1], length


def count_levels(steps: Sequence[PlannedStep[K]]) -> int:
    """How many steps must follow one another at most: the depth of the plan."""
    depths: dict[tuple[K, StepAction], int] = {}
    for step in steps:
        depths[step.key] = 1 + max((depths[key] for key in step.after if key in depths), default=0)
    return max(depths.values(), default=0)
