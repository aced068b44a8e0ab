"""Reads that build the graph of a Map."""

from __future__ import annotations

import uuid
from collections.abc import Iterable

from apps.maps.enums import DependencyKind
from apps.maps.models import Dependency
from apps.maps.planning.graph import Edge, Graph


def load_graph(map_id: uuid.UUID, component_ids: Iterable[uuid.UUID]) -> Graph[uuid.UUID]:
    """The graph of these components of a Map; one query."""
    links = Dependency.objects.filter(map_id=map_id).values_list("component_id", "needs_id", "kind")
    edges = (Edge(source, target, kind == DependencyKind.STRONG) for source, target, kind in links)
    return Graph(component_ids, edges)
