"""Reads that build the graph of a Map, and that choose components of it."""

from __future__ import annotations

import gc
import struct
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from django.db import connection

from apps.maps.models import Component, Map
from apps.maps.planning.graph import Graph
from apps.maps.planning.labels import LabelQuery
from opsmap.lib.weighted_cache import WeightedCache

_KEPT_NODES_AND_EDGES = 1_000_000
"""For each process, some 70 MB at most: five Maps of the largest size, or thousands of usual ones."""

_graphs: WeightedCache[tuple[uuid.UUID, int], Graph[uuid.UUID]] = WeightedCache(_KEPT_NODES_AND_EDGES)

# Ids travel as bytes, joined by the server: as rows of UUIDs the same takes ten times as long. One statement, so that
# version, components and dependencies are of the same moment. The order of dependencies decides which of several
# equally short ways is shown; sorted once below, and not by each of the four that put them together.
_STRUCTURE = """
SELECT map.structure_version,
       (SELECT string_agg(uuid_send(id), ''::bytea ORDER BY name) FROM maps_component WHERE map_id = map.id),
       edges.*
  FROM maps_map map,
       LATERAL (
           SELECT string_agg(source, ''::bytea) FILTER (WHERE is_strong),
                  string_agg(target, ''::bytea) FILTER (WHERE is_strong),
                  string_agg(source, ''::bytea) FILTER (WHERE NOT is_strong),
                  string_agg(target, ''::bytea) FILTER (WHERE NOT is_strong)
             FROM (
                 SELECT uuid_send(component_id) AS source, uuid_send(needs_id) AS target, kind = 'strong' AS is_strong
                   FROM maps_dependency
                  WHERE map_id = map.id
                  ORDER BY id
             ) edge
       ) edges
 WHERE map.id = %s
"""


def get_graph(map: Map, *, is_read_anew: bool = False) -> Graph[uuid.UUID]:
    """The graph of a Map, its components in the order of their names. At most one query; none if it is known already.

    Of a Map that is gone it is empty. What is kept is kept by `structure_version`. Within a transaction nothing is: it
    could be rolled back, and another one give the same version to another structure.
    """
    kept = None if is_read_anew else _graphs.get((map.pk, map.structure_version))
    if kept is not None:
        return kept
    version, graph = _load_graph(map.pk)
    if not connection.in_atomic_block:
        _graphs.put((map.pk, version), graph, len(graph) + graph.edge_count)
    return graph


def forget_graphs() -> None:
    """For measurements and tests: the next question reads anew."""
    _graphs.clear()


def _load_graph(map_id: uuid.UUID) -> tuple[int, Graph[uuid.UUID]]:
    with connection.cursor() as cursor:
        cursor.execute(_STRUCTURE, [map_id])
        version, *columns = cursor.fetchone() or (0, *[None] * 5)
    with _uncollected():
        return version, _graph_of(columns)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without garbage collections: of what is made here nearly all stays, and they would take a third of the time.

    For the whole process; of two threads at once the first that is done switches them on again, which does no harm.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _graph_of(columns: Sequence[bytes | None]) -> Graph[uuid.UUID]:
    nodes, *ends = (_ids(column) for column in columns)
    position = {node: index for index, node in enumerate(nodes)}
    strong_sources, strong_targets, weak_sources, weak_targets = (_positions(position, ids) for ids in ends)
    return Graph.of_columns(
        [uuid.UUID(bytes=node) for node in nodes], (strong_sources, strong_targets), (weak_sources, weak_targets)
    )


def _ids(joined: bytes | None) -> list[bytes]:
    return [node for (node,) in struct.iter_unpack("16s", joined or b"")]


def _positions(position: Mapping[bytes, int], ids: Sequence[bytes]) -> list[int]:
    return [position[node] for node in ids]


def select_components(map: Map, *, group: str | None = None, labels: LabelQuery | None = None) -> list[uuid.UUID]:
    """The components of a group, or those that a label query fits, or those of the group that it fits; by name."""
    found = Component.objects.filter(map=map).order_by("name")
    if group is not None:
        found = found.filter(group__name=group)
    rows = found.values_list("pk", "labels")
    return [pk for pk, carried in rows if labels is None or labels.fits(carried)]
