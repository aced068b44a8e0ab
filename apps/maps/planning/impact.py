"""What a failure means for the others, and which failure explains which trouble."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Generic

from apps.maps.planning.graph import Graph, K, Spread
from apps.maps.planning.plans import Condition


@dataclass(frozen=True, slots=True)
class Impact(Generic[K]):
    """Of some components, as if they failed. Nearest first, the components themselves at the beginning."""

    would_fail: Spread[K]
    """Through strong dependencies: they and everything above them."""
    needed: Spread[K]
    """They and everything that must be running for them."""
    ordered: tuple[K, ...]
    """What waits for them, or for what would fail, when it starts, but lives without them."""


def find_impact(graph: Graph[K], components: Iterable[K]) -> Impact[K]:
    roots = list(components)
    would_fail = graph.spread_up(roots)
    return Impact(would_fail, graph.spread_down(roots), tuple(graph.weakly_above(would_fail)))


@dataclass(frozen=True, slots=True)
class Causes(Generic[K]):
    """Which components are in trouble by themselves, and what each of them explains."""

    roots: tuple[K, ...]
    """In the order of the Map. Each deserves one alert."""
    affected: Spread[K]
    """The roots and all above them. `path_to` leads from the nearest root to an affected one."""

    def explained(self, conditions: Mapping[K, Condition]) -> list[K]:
        """Those in trouble that are no root: shown as affected, not as failures of their own."""
        roots = set(self.roots)
        return [node for node in self.affected if node not in roots and _is_troubled(conditions.get(node))]


def find_causes(graph: Graph[K], conditions: Mapping[K, Condition]) -> Causes[K]:
    """The root causes of what is wrong now.

    A failure is explained by another one below it. What is merely impaired is also explained by something impaired
    below; but a failure never by that, as what still answers lets others live. What lies between need not be in
    trouble itself: it may have no check. (A repair begins with every failure, explained or not: `plans.find_roots`.)
    """
    failed = {node for node, condition in conditions.items() if condition is Condition.FAILED}
    impaired = {node for node, condition in conditions.items() if condition is Condition.IMPAIRED}
    by_failure = graph.above(failed)
    by_impairment = graph.above(impaired)
    roots = (failed - by_failure) | (impaired - by_failure - by_impairment)
    affected = graph.spread_up(roots)
    return Causes(tuple(node for node in affected if node in roots), affected)


def _is_troubled(condition: Condition | None) -> bool:
    return condition in {Condition.FAILED, Condition.IMPAIRED}
