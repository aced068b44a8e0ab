"""Carries out a plan as the product does, on paper: a step begins the moment those it waits for have succeeded."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from apps.maps.planning.plans import Plan, StepAction

Key = tuple[str, StepAction]


@dataclass
class Outcome:
    """How each step ended, and when each that began did; `moments` are the components that run after each end."""

    succeeded: set[Key] = field(default_factory=set)
    failed: set[Key] = field(default_factory=set)
    begins: dict[Key, int] = field(default_factory=dict)
    ends: dict[Key, int] = field(default_factory=dict)
    moments: list[frozenset[str]] = field(default_factory=list)

    @property
    def began(self) -> set[Key]:
        return self.succeeded | self.failed


def carry_out(
    plan: Plan[str],
    durations: Mapping[Key, int],
    *,
    up: Collection[str] = (),
    failing: Collection[Key] = (),
    pauses: Collection[tuple[int, int]] = (),
    cancelled_at: int | None = None,
    max_parallel: int | None = None,
) -> Outcome:
    """`pauses` are spans in which nothing begins; from `cancelled_at` on nothing begins any more. What runs, ends."""
    outcome, running = Outcome(), set(up)
    waiting = {step.key: set(step.after) for step in plan.steps}
    ending: list[tuple[int, int, Key]] = []
    order = {step.key: number for number, step in enumerate(plan.steps)}
    now = 0
    while True:
        paused_until = max((end for begin, end in pauses if begin <= now < end), default=None)
        is_cancelled = cancelled_at is not None and now >= cancelled_at
        if paused_until is None and not is_cancelled:
            for key in [key for key, befores in waiting.items() if befores <= outcome.succeeded]:
                if max_parallel is None or len(ending) < max_parallel:
                    del waiting[key]
                    outcome.begins[key] = now
                    heapq.heappush(ending, (now + durations.get(key, 0), order[key], key))
        wakes = [ending[0][0]] if ending else []
        if paused_until is not None and not is_cancelled:
            wakes.append(paused_until)
        if not wakes:
            return outcome
        now = min(wakes)
        if ending and ending[0][0] == now:
            key = heapq.heappop(ending)[2]
            outcome.ends[key] = now
            _end(key, failing, outcome, running)


def _end(key: Key, failing: Collection[Key], outcome: Outcome, running: set[str]) -> None:
    node, action = key
    if key in failing:
        outcome.failed.add(key)
        return
    outcome.succeeded.add(key)
    if action is StepAction.STOP:
        running.discard(node)
    else:
        running.add(node)
    outcome.moments.append(frozenset(running))
