"""The dependency graph of a Map and the questions asked of it."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


def find_cycle(needs: Mapping[K, Iterable[K]]) -> list[K] | None:
    """One cycle, each node needing the next and the last the first; None if there is none. O(nodes + edges)."""
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as error:
        # graphlib lists the cycle as predecessors, with the first node repeated at the end.
        return list(error.args[1])[:0:-1]
    return None


@dataclass(frozen=True, slots=True)
class Edge(Generic[K]):
    """`source` needs `target`. A strong edge lets a failure of the target spread to the source."""

    source: K
    target: K
    is_strong: bool = True


class Graph(Generic[K]):
    """Components and who needs whom. Built once, asked often; nodes keep the order they were given in."""

    def __init__(self, nodes: Iterable[K], edges: Iterable[Edge[K]]) -> None:
        self.needs: dict[K, list[K]] = {node: [] for node in nodes}
        self._position = {node: position for position, node in enumerate(self.needs)}
        self.needed_by: dict[K, list[K]] = {node: [] for node in self.needs}
        self.strong_needs: dict[K, list[K]] = {node: [] for node in self.needs}
        self.strong_needed_by: dict[K, list[K]] = {node: [] for node in self.needs}
        for edge in edges:
            self.needs[edge.source].append(edge.target)
            self.needed_by[edge.target].append(edge.source)
            if edge.is_strong:
                self.strong_needs[edge.source].append(edge.target)
                self.strong_needed_by[edge.target].append(edge.source)

    def __contains__(self, node: object) -> bool:
        return node in self.needs

    @property
    def nodes(self) -> Sequence[K]:
        return list(self.needs)

    def impacted_by(self, roots: Iterable[K]) -> set[K]:
        """The roots and everything that a failure of theirs reaches, through strong dependencies."""
        return _closure(self.strong_needed_by, roots)

    def required_by(self, roots: Iterable[K]) -> set[K]:
        """The roots and everything that must be running for them, through strong dependencies."""
        return _closure(self.strong_needs, roots)

    def order_within(self, selected: set[K]) -> dict[K, set[K]]:
        """For each selected node the selected ones it must wait for, also where only unselected ones lie between.

        Without looking through the unselected, `a → b → c` with b left alone would let a and c run at the same time.
        """
        above = _closure(self.needed_by, selected)
        between = _closure(self.needs, selected, within=above)
        inner = {node: [needed for needed in self.needs[node] if needed in between] for node in between}
        nearest: dict[K, set[K]] = {}
        for node in TopologicalSorter(inner).static_order():
            waits: set[K] = set()
            for needed in inner[node]:
                waits |= {needed} if needed in selected else nearest[needed]
            nearest[node] = waits
        # In the order the nodes were given; a small selection of a large Map is not worth a walk through all of it.
        ordered = sorted(selected, key=self._position.__getitem__)
        return {node: nearest[node] for node in ordered}


def _closure(links: Mapping[K, Iterable[K]], roots: Iterable[K], within: set[K] | None = None) -> set[K]:
    """The roots and all that the links lead to, without leaving `within`."""
    seen = set(roots)
    frontier = list(seen)
    while frontier:
        for neighbour in links[frontier.pop()]:
            if neighbour not in seen and (within is None or neighbour in within):
                seen.add(neighbour)
                frontier.append(neighbour)
    return seen
