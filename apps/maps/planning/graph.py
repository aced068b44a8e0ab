"""The dependency graph of a Map and the questions asked of it.

Plain arrays of positions and no library; docs/adr/0010 says what was compared, `bench/planning.py` how fast it is.
"""

from __future__ import annotations

from array import array
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from itertools import accumulate
from typing import Any, Generic, TypeVar

K = TypeVar("K", bound=Hashable)
Columns = tuple[Sequence[int], Sequence[int]]
"""Edges by the positions of their ends: the sources, and the targets."""


@dataclass(frozen=True, slots=True)
class _Links:
    """The neighbours of each position: those of the third are `ends[starts[3]:starts[4]]`.

    Two arrays and not a list for each: what lives as long as the process should not be walked through by each full
    collection of the interpreter.
    """

    starts: array[int]
    ends: array[int]

    @classmethod
    def of(cls, size: int, *columns: Columns) -> _Links:
        counts = [0] * (size + 1)
        for sources, _ in columns:
            for source in sources:
                counts[source + 1] += 1
        starts = array("i", accumulate(counts))
        ends = array("i", bytes(starts.itemsize * starts[-1]))
        free = list(starts)
        for sources, targets in columns:
            for source, target in zip(sources, targets, strict=True):
                ends[free[source]] = target
                free[source] += 1
        return cls(starts, ends)

    def __getitem__(self, position: int) -> array[int]:
        return self.ends[self.starts[position] : self.starts[position + 1]]


def find_cycle(needs: Mapping[K, Iterable[K]]) -> list[K] | None:
    """One cycle, each node needing the next and the last the first; None if there is none. O(nodes + edges)."""
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as error:
        # graphlib lists the cycle as predecessors, with the first node repeated at the end.
        return list(error.args[1])[:0:-1]
    return None


class CyclicError(ValueError):
    """Components that need each other in a circle have no order. `cycle`: each needs the next, the last the first."""

    def __init__(self, cycle: Sequence[Hashable]) -> None:
        super().__init__(" needs ".join(str(node) for node in [*cycle, cycle[0]]))
        self.cycle: list[Any] = list(cycle)


@dataclass(frozen=True, slots=True)
class Edge(Generic[K]):
    """`source` needs `target`. A strong edge lets a failure of the target spread to the source."""

    source: K
    target: K
    is_strong: bool = True


class Spread(Generic[K]):
    """What is reached from some roots, nearest first, and by which way.

    Held as numbers: of the tens of thousands of components that one failure can reach, a person looks at a few.
    """

    def __init__(self, nodes: Sequence[K], reached: Sequence[int], came_from: Mapping[int, int]) -> None:
        self._nodes = nodes
        self.positions = reached
        """In the graph that it is of."""
        self._came_from = came_from
        """The neighbour by which each was reached first; a root is not in it."""

    def __len__(self) -> int:
        return len(self.positions)

    def __iter__(self) -> Iterator[K]:
        """The roots, then their neighbours, and so on outwards."""
        return (self._nodes[position] for position in self.positions)

    @cached_property
    def _position(self) -> dict[K, int]:
        return {self._nodes[position]: position for position in self.positions}

    def __contains__(self, node: object) -> bool:
        return node in self._position

    def nearest(self, first: int, count: int) -> list[K]:
        """`count` of them, from number `first` on."""
        return [self._nodes[position] for position in self.positions[first : first + count]]

    def root_of(self, node: K) -> K:
        """The root that reached the node first. KeyError if none did."""
        return self.path_to(node)[0]

    def path_to(self, node: K) -> list[K]:
        """A shortest way from a root to the node, both included: why it is reached. KeyError if it is not."""
        position = self._position[node]
        path = [position]
        while (previous := self._came_from.get(position)) is not None:
            path.append(position := previous)
        return [self._nodes[position] for position in reversed(path)]

    def sizes(self) -> dict[K, int]:
        """Each root, and how many are reached from it first, itself included; they add up to the whole."""
        root_of: dict[int, int] = {}
        counts: dict[int, int] = {}
        for position in self.positions:
            previous = self._came_from.get(position)
            root = root_of[position] = position if previous is None else root_of[previous]
            counts[root] = counts.get(root, 0) + 1
        return {self._nodes[root]: count for root, count in counts.items()}


class Graph(Generic[K]):
    """Components and who needs whom. Built once, asked often, never changed; nodes keep the order they were given in.

    Inside, a node is its position in that order. What only some questions need is built when the first one comes.
    """

    def __init__(self, nodes: Iterable[K], edges: Iterable[Edge[K]]) -> None:
        given = tuple(nodes)
        position = {node: index for index, node in enumerate(given)}
        columns: dict[bool, tuple[list[int], list[int]]] = {True: ([], []), False: ([], [])}
        for edge in edges:
            sources, targets = columns[edge.is_strong]
            sources.append(position[edge.source])
            targets.append(position[edge.target])
        self._fill(given, columns[True], columns[False])

    @classmethod
    def of_columns(
        cls,
        nodes: Sequence[K],
        strong: Columns,
        weak: Columns,
    ) -> Graph[K]:
        """From columns of positions in `nodes`: the sources of the edges of a kind, and their targets."""
        graph = cls.__new__(cls)
        graph._fill(tuple(nodes), strong, weak)
        return graph

    def _fill(
        self,
        nodes: tuple[K, ...],
        strong: Columns,
        weak: Columns,
    ) -> None:
        self.nodes = nodes
        self._strong = _packed(strong)
        self._weak = _packed(weak)

    def __contains__(self, node: object) -> bool:
        return node in self._position

    def __len__(self) -> int:
        return len(self.nodes)

    @property
    def edge_count(self) -> int:
        return len(self._strong[0]) + len(self._weak[0])

    @cached_property
    def _position(self) -> dict[K, int]:
        return {node: index for index, node in enumerate(self.nodes)}

    @cached_property
    def _strong_needs(self) -> _Links:
        return _Links.of(len(self.nodes), self._strong)

    @cached_property
    def _strong_needed_by(self) -> _Links:
        sources, targets = self._strong
        return _Links.of(len(self.nodes), (targets, sources))

    @cached_property
    def _needs(self) -> _Links:
        return _Links.of(len(self.nodes), self._strong, self._weak)

    @cached_property
    def _needed_by(self) -> _Links:
        return _Links.of(len(self.nodes), self._strong[::-1], self._weak[::-1])

    def needs_of(self, node: K) -> list[tuple[K, bool]]:
        """What a node needs directly, and whether strongly."""
        return self._neighbours(node, self._needs, self._strong_needs)

    def needed_by_of(self, node: K) -> list[tuple[K, bool]]:
        """What needs a node directly, and whether strongly."""
        return self._neighbours(node, self._needed_by, self._strong_needed_by)

    def _neighbours(self, node: K, every: _Links, strong: _Links) -> list[tuple[K, bool]]:
        position = self._position[node]
        strongly = set(strong[position])
        return [(self.nodes[neighbour], neighbour in strongly) for neighbour in every[position]]

    def edges(self) -> Iterator[Edge[K]]:
        for is_strong, (sources, targets) in ((True, self._strong), (False, self._weak)):
            for source, target in zip(sources, targets, strict=True):
                yield Edge(self.nodes[source], self.nodes[target], is_strong)

    def impacted_by(self, roots: Iterable[K]) -> set[K]:
        """The roots and everything that a failure of theirs reaches, through strong dependencies."""
        return self._names(_closure(self._strong_needed_by, self._positions(roots)))

    def required_by(self, roots: Iterable[K]) -> set[K]:
        """The roots and everything that must be running for them, through strong dependencies."""
        return self._names(_closure(self._strong_needs, self._positions(roots)))

    def above(self, nodes: Iterable[K]) -> set[K]:
        """Everything that a failure of the nodes reaches: the nodes only where one of them is above another."""
        direct = {upper for lower in self._positions(nodes) for upper in self._strong_needed_by[lower]}
        return self._names(_closure(self._strong_needed_by, sorted(direct)))

    def weakly_above(self, spread: Spread[K]) -> list[K]:
        """What needs something of the spread directly, but only weakly, and is no part of it; in the order given."""
        is_part = bytearray(len(self.nodes))
        for position in spread.positions:
            is_part[position] = 1
        sources, targets = self._weak
        found = {upper for upper, lower in zip(sources, targets, strict=True) if is_part[lower] and not is_part[upper]}
        return [self.nodes[position] for position in sorted(found)]

    def spread_up(self, roots: Iterable[K]) -> Spread[K]:
        """`impacted_by`, nearest first, with the way."""
        return self._spread(self._strong_needed_by, roots)

    def spread_down(self, roots: Iterable[K]) -> Spread[K]:
        """`required_by`, nearest first, with the way."""
        return self._spread(self._strong_needs, roots)

    def find_way(self, upper: K, lower: K, *, max_visited: int = 1000) -> list[K] | None:
        """A shortest way from a node to one that it needs, both included; None if none is found near enough."""
        start, end = self._position[upper], self._position[lower]
        came_from = {start: start}
        for position in (queue := [start]):
            for needed in self._needs[position]:
                if needed not in came_from:
                    came_from[needed] = position
                    queue.append(needed)
            if end in came_from or len(came_from) > max_visited:
                break
        if end not in came_from:
            return None
        path = [end]
        while path[-1] != start:
            path.append(came_from[path[-1]])
        return [self.nodes[position] for position in reversed(path)]

    def start_order(self, selected: Iterable[K]) -> dict[K, set[K]]:
        """For each selected node the selected ones it must wait for when starting; each comes after those.

        It waits also where only unselected ones lie between: without looking through them, `a → b → c` with b left
        alone would let a and c start at the same time.

        Raises:
            CyclicError: the selected, and what lies between them, need each other in a circle.
        """
        return self._named(self._waits(self._positions(selected)))

    def stop_order(self, selected: Iterable[K]) -> dict[K, set[K]]:
        """The reverse of `start_order`: each waits for the selected ones that need it."""
        positions = self._positions(selected)
        waits: dict[int, set[int]] = {position: set() for position in sorted(positions)}
        for upper, lowers in self._waits(positions).items():
            for lower in lowers:
                waits[lower].add(upper)
        return self._named(waits)

    def _positions(self, nodes: Iterable[K]) -> list[int]:
        return [self._position[node] for node in nodes]

    def _names(self, positions: Iterable[int]) -> set[K]:
        return {self.nodes[position] for position in positions}

    def _spread(self, links: _Links, roots: Iterable[K]) -> Spread[K]:
        reached = sorted(set(self._positions(roots)))
        seen = bytearray(len(self.nodes))
        for position in reached:
            seen[position] = 1
        came_from: dict[int, int] = {}
        # The list grows while it is read, so that what is nearer comes first.
        for position in reached:
            for neighbour in links[position]:
                if not seen[neighbour]:
                    seen[neighbour] = 1
                    came_from[neighbour] = position
                    reached.append(neighbour)
        return Spread(self.nodes, reached, came_from)

    def _waits(self, selected: Sequence[int]) -> dict[int, set[int]]:
        """For each selected position, in the order given, the nearest selected ones below it."""
        is_selected = bytearray(len(self.nodes))
        for position in selected:
            is_selected[position] = 1
        is_above = bytearray(len(self.nodes))
        for position in _closure(self._needed_by, selected):
            is_above[position] = 1
        inner = {
            position: [needed for needed in self._needs[position] if is_above[needed]]
            for position in _closure(self._needs, selected, within=is_above)
        }
        waits: dict[int, set[int]] = {}
        for position in self._bottom_up(inner):
            below: set[int] = set()
            for needed in inner[position]:
                if is_selected[needed]:
                    below.add(needed)
                else:
                    below |= waits[needed]
            waits[position] = below
        return {position: waits[position] for position in sorted(set(selected))}

    def _bottom_up(self, needs: Mapping[int, Iterable[int]]) -> list[int]:
        try:
            return _bottom_up(needs)
        except CyclicError as error:
            raise CyclicError([self.nodes[position] for position in error.cycle]) from None

    def _named(self, waits: Mapping[int, set[int]]) -> dict[K, set[K]]:
        """In an order in which each comes after those it waits for, otherwise in the order given."""
        return {self.nodes[position]: self._names(waits[position]) for position in _bottom_up(waits)}


def _packed(columns: Columns) -> Columns:
    sources, targets = columns
    return array("i", sources), array("i", targets)


def _closure(links: _Links, roots: Iterable[int], within: bytearray | None = None) -> list[int]:
    """The roots and all that the links lead to, each once, without leaving `within`."""
    # One byte for each position: 1 where it may still be entered.
    starts, ends = links.starts, links.ends
    is_open = bytearray(b"\1") * (len(starts) - 1) if within is None else bytearray(within)
    reached = []
    for root in roots:
        if is_open[root]:
            is_open[root] = 0
            reached.append(root)
    # The list grows while it is read.
    for position in reached:
        for neighbour in ends[starts[position] : starts[position + 1]]:
            if is_open[neighbour]:
                is_open[neighbour] = 0
                reached.append(neighbour)
    return reached


def _bottom_up(needs: Mapping[int, Iterable[int]]) -> list[int]:
    """Each after those it needs, otherwise in ascending order.

    Raises:
        CyclicError: with the positions of one cycle.
    """
    order: list[int] = []
    is_done: set[int] = set()
    is_begun: set[int] = set()
    for first in sorted(needs):
        stack = [first]
        while stack:
            position = stack[-1]
            if position in is_done:
                stack.pop()
                continue
            missing = [needed for needed in needs[position] if needed not in is_done]
            if not missing:
                order.append(stack.pop())
                is_done.add(position)
            elif position in is_begun:
                # Met again while what it needs is still being looked at.
                cycle: list[int] | None = find_cycle(needs)
                raise CyclicError(cycle or [position])
            else:
                is_begun.add(position)
                stack += sorted(missing, reverse=True)
    return order
