"""Random Maps for Hypothesis, and a second opinion on them: slow, obvious, and written without looking at the code."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

from hypothesis import strategies as st

from apps.maps.planning.graph import Edge, Graph
from apps.maps.planning.plans import Condition, Plan, PlannedStep, StepAction

Key = tuple[str, StepAction]
NAMES = "abcdefg"


@dataclass(frozen=True)
class Case:
    """A Map at a moment: its graph, the conditions of its components, and some of them chosen."""

    edges: tuple[Edge[str], ...]
    conditions: dict[str, Condition]
    chosen: frozenset[str]

    @property
    def graph(self) -> Graph[str]:
        return Graph(self.conditions, self.edges)

    def needs(self, *, is_strong_only: bool = False) -> set[tuple[str, str]]:
        """Every pair (a, b) where a needs b, directly or through others."""
        return reachable({(edge.source, edge.target) for edge in self.edges if edge.is_strong or not is_strong_only})


def reachable(pairs: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """The transitive closure, after Warshall."""
    found = set(pairs)
    nodes = {node for pair in pairs for node in pair}
    for middle, first, last in product(sorted(nodes), repeat=3):
        if (first, middle) in found and (middle, last) in found:
            found.add((first, last))
    return found


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Any acyclic Map of up to seven components, its components given in any order."""
    names = NAMES[: draw(st.integers(1, len(NAMES)))]
    pairs = [(upper, lower) for index, upper in enumerate(names) for lower in names[:index]]
    kinds = draw(st.lists(st.sampled_from([None, None, True, False]), min_size=len(pairs), max_size=len(pairs)))
    edges = [Edge(*pair, kind) for pair, kind in zip(pairs, kinds, strict=True) if kind is not None]
    order = draw(st.permutations(names))
    return Case(
        edges=tuple(edges),
        conditions={name: draw(st.sampled_from(list(Condition))) for name in order},
        chosen=frozenset(draw(st.sets(st.sampled_from(names)))),
    )


def waits(plan: Plan[str]) -> set[tuple[Key, Key]]:
    """Every pair (later, earlier) where a step waits for another, directly or through others."""
    found = {(step.key, earlier) for step in plan.steps for earlier in step.after}
    keys = [step.key for step in plan.steps]
    for middle, first, last in product(keys, repeat=3):
        if (first, middle) in found and (middle, last) in found:
            found.add((first, last))
    return found


def nodes_with(plan: Plan[str], action: StepAction) -> set[str]:
    return {step.node for step in plan.steps if step.action is action}


def longest_chain_ms(steps: tuple[PlannedStep[str], ...], durations: dict[Key, int]) -> int:
    """By trying every chain."""
    by_key = {step.key: step for step in steps}

    def until(key: Key) -> int:
        return durations.get(key, 0) + max((until(earlier) for earlier in by_key[key].after), default=0)

    return max((until(key) for key in by_key), default=0)


def levels(steps: tuple[PlannedStep[str], ...]) -> list[list[Key]]:
    """The plan as a careful person would run it: whatever waits for nothing any more, together, level by level."""
    left = {step.key: set(step.after) for step in steps}
    found: list[list[Key]] = []
    while left:
        ready = [key for key, waiting in left.items() if not waiting & left.keys()]
        assert ready, "steps wait for each other in a circle"
        found.append(ready)
        for key in ready:
            del left[key]
    return found
