"""How long planning takes: a 500-step plan, and impact and repair on 50,000 components with 150,000 dependencies.

Pure code, no database. Medians of `ROUNDS` runs in one process; the graph's construction is measured apart.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from apps.maps.planning.graph import Edge, Graph
from apps.maps.planning.plans import Condition, plan_repair, plan_start

ROUNDS = 5
LAYERS = 10


def layered_graph(nodes: int, edges: int, seed: int = 1) -> list[Edge[int]]:
    """Random dependencies from each layer to any layer below it; a tenth of them weak."""
    chance = random.Random(seed)
    size = nodes // LAYERS
    links: set[tuple[int, int]] = set()
    while len(links) < edges:
        source = chance.randrange(size, nodes)
        links.add((source, chance.randrange(source // size * size)))
    return [Edge(source, target, chance.random() > 0.1) for source, target in sorted(links)]


def median_ms(work: Callable[[], Any]) -> float:
    times = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        work()
        times.append((time.perf_counter() - began) * 1000)
    return round(median(times), 2)


def main() -> None:
    small_edges, large_edges = layered_graph(500, 1500), layered_graph(50_000, 150_000)
    small, large = Graph(range(500), small_edges), Graph(range(50_000), large_edges)
    down = dict.fromkeys(range(500), Condition.DOWN)
    failed = range(200)
    troubled = dict.fromkeys(range(50_000), Condition.UP) | dict.fromkeys(failed, Condition.FAILED)
    figures = {
        "plan_500_ms": median_ms(lambda: plan_start(small, down, range(500))),
        "build_50000_ms": median_ms(lambda: Graph(range(50_000), large_edges)),
        "impact_50000_ms": median_ms(lambda: large.impacted_by(failed)),
        "repair_50000_ms": median_ms(lambda: plan_repair(large, troubled)),
        "repair_steps": len(plan_repair(large, troubled).steps),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
