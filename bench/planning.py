"""How long planning takes, on a made-up installation in a real PostgreSQL (`--components`, 50,000; `--dependencies`).

Pure, medians of some rounds:
- `plan_500_ms`: the plan that starts all of a Map of 500 components; `plan_500_schedule_ms`: its prediction, too;
- `plan_500_text_ms`, `plan_500_mermaid_ms`: the same told and drawn.

Everything as a question of a person asks it, from the database, on the large Map; medians of some rounds:
- `impact_50000_cold_ms`: the graph is not known to this process. Its structure and states are read, then the impact of
  the most needed component is found and, of all that has failed, the causes and the perimeter of a repair;
- `impact_50000_warm_ms`: the same when the graph is known;
- `impact_50000_queries`: how many statements each takes, cold and warm;
- `repair_50000_ms`, `repair_steps`: the whole plan of that repair, with every step and whom it waits for.
`graph_50000_mb` is what the process keeps for it, and `generate_50000_s` how long the installation took to write.
"""

from __future__ import annotations

import argparse
import gc
import os
import random
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "opsmap.settings")

import django

django.setup()

from django.core.management import call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext

from apps.audit.actor import Actor
from apps.maps import selectors
from apps.maps.models import Map
from apps.maps.planning.diagrams import plan_as_mermaid
from apps.maps.planning.durations import predict_plan
from apps.maps.planning.graph import Edge, Graph
from apps.maps.planning.impact import find_causes, find_impact
from apps.maps.planning.plans import Condition, find_perimeter, find_roots, plan_repair, plan_start
from apps.maps.planning.prediction import Prediction
from apps.maps.planning.wording import plan_as_text
from apps.operations.demonstration.installation import Size, generate_installation
from apps.operations.demonstration.landscape import draw_landscape
from apps.operations.impact import get_troubled
from apps.orgs.models import User
from bench.measuring import milliseconds, report, say

ROUNDS = 15


def main() -> None:
    options = _parser().parse_args()
    plan_figures = _plan_figures()
    call_command("migrate", interactive=False, verbosity=0)
    owner, _ = User.objects.get_or_create(email="bench-planning@acme.example")
    say(f"Writing {options.components} components with {options.dependencies} dependencies…")
    size = Size(components=options.components, dependencies=options.dependencies, has_documents=False)
    began = time.monotonic()
    [map] = generate_installation(size=size, seed=options.seed, owner=owner, actor=Actor.system("bench"))
    spent_s = time.monotonic() - began
    with connection.cursor() as cursor:
        # As autovacuum does soon after so many rows.
        cursor.execute("VACUUM ANALYZE maps_component, maps_dependency")
    report(plan_figures | _impact_figures(map) | {"generate_50000_s": round(spent_s, 1), "seed": options.seed})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--components", type=int, default=50_000)
    parser.add_argument("--dependencies", type=int, default=150_000)
    parser.add_argument("--seed", type=int, default=1)
    return parser


def _plan_figures() -> dict[str, Any]:
    landscape = draw_landscape(random.Random(1), 500, 1500)
    graph = Graph(range(500), [Edge(*link) for link in landscape.dependencies])
    down = dict.fromkeys(range(500), Condition.DOWN)
    plan = plan_start(graph, down, range(500))
    predictions = {step.key: Prediction(1000 + step.node, 2000 + step.node, 10) for step in plan.steps}
    return {
        "plan_500_ms": _median_ms(lambda: plan_start(graph, down, range(500))),
        "plan_500_schedule_ms": _median_ms(lambda: predict_plan(plan.steps, predictions)),
        "plan_500_text_ms": _median_ms(lambda: plan_as_text(plan, graph, str)),
        "plan_500_mermaid_ms": _median_ms(lambda: plan_as_mermaid(plan.steps, str)),
    }


def _impact_figures(map: Map) -> dict[str, Any]:
    graph = selectors.get_graph(map)
    bottom = map.components.filter(group__name="foundation").values_list("pk", flat=True)[:200]
    busiest = max(bottom, key=lambda pk: len(graph.spread_up([pk])))
    troubled = get_troubled(map)

    def ask() -> None:
        known = selectors.get_graph(map)
        conditions = get_troubled(map)
        find_impact(known, [busiest])
        find_causes(known, conditions)
        find_perimeter(known, conditions, find_roots(known, conditions))

    def ask_cold() -> None:
        selectors.forget_graphs()
        ask()

    with CaptureQueriesContext(connection) as cold:
        ask_cold()
    with CaptureQueriesContext(connection) as warm:
        ask()
    repair = plan_repair(graph, troubled)
    return {
        "impact_50000_cold_ms": _median_ms(ask_cold),
        "impact_50000_warm_ms": _median_ms(ask),
        "impact_50000_queries": [len(cold), len(warm)],
        "impact_50000_affected": len(graph.spread_up([busiest])),
        "failed": len(troubled),
        "perimeter": len(repair.nodes),
        "repair_50000_ms": _median_ms(lambda: plan_repair(graph, troubled)),
        "repair_steps": len(repair.steps),
        "graph_50000_mb": _graph_mb(map),
    }


def _graph_mb(map: Map) -> float:
    """With everything that questions build."""
    selectors.forget_graphs()
    gc.collect()
    tracemalloc.start()
    graph = selectors.get_graph(map)
    graph.start_order(graph.nodes)
    graph.impacted_by(graph.nodes[:1])
    graph.required_by(graph.nodes[:1])
    gc.collect()
    kept_mb = tracemalloc.get_traced_memory()[0] / 1e6
    tracemalloc.stop()
    return round(kept_mb, 1)


def _median_ms(work: Callable[[], Any]) -> float:
    gc.collect()
    return round(median(milliseconds(work) for _ in range(ROUNDS)), 2)


if __name__ == "__main__":
    main()
