"""The graph as it comes from the database, what is kept of it, and choosing components."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from django.db import transaction

from apps.maps import selectors
from apps.maps.actions import apply_documents, delete_map
from apps.maps.models import Component, Map
from apps.maps.planning.graph import Edge
from apps.maps.planning.labels import read_label_query
from apps.maps.selectors import forget_graphs, get_graph, select_components
from apps.maps.tests.factories import ACTOR, component, make_map, map_document, trading
from conftest import Cast
from opsmap.lib.weighted_cache import WeightedCache

STRUCTURE = {Edge("web", "api"), Edge("api", "db"), Edge("api", "cache", is_strong=False)}


@pytest.fixture(autouse=True)
def _nothing_is_known() -> None:
    forget_graphs()


def _fresh(map: Map) -> Map:
    return Map.objects.get(pk=map.pk)


def _named(map: Map) -> set[Edge[str]]:
    names = dict(Component.objects.filter(map=map).values_list("pk", "name"))
    return {Edge(names[edge.source], names[edge.target], edge.is_strong) for edge in get_graph(map).edges()}


@pytest.mark.django_db
def test_graph_has_all_components_by_name_and_all_dependencies(cast: Cast) -> None:
    make_map(cast.production, cast.owner, [map_document("Other"), component("db"), component("web", "db")])
    map = make_map(cast.production, cast.owner, trading(component("alone")))
    names = dict(Component.objects.filter(map=map).values_list("pk", "name"))

    assert [names[node] for node in get_graph(map).nodes] == ["alone", "api", "cache", "db", "web"]
    assert _named(map) == STRUCTURE


@pytest.mark.django_db
def test_map_without_components_has_an_empty_graph(cast: Cast) -> None:
    map = make_map(cast.production, cast.owner)
    Component.objects.filter(map=map).delete()
    graph = get_graph(map)
    assert (len(graph), graph.edge_count) == (0, 0)


@pytest.mark.django_db
def test_map_that_is_gone_has_an_empty_graph(cast: Cast) -> None:
    map = make_map(cast.production, cast.owner)
    key = map.pk
    delete_map(map=map, actor=ACTOR)
    assert len(get_graph(Map(pk=key))) == 0


@pytest.mark.django_db(transaction=True)
def test_graph_is_read_once_until_the_structure_changes(cast: Cast, django_assert_num_queries: Any) -> None:
    map = _fresh(make_map(cast.production, cast.owner))
    with django_assert_num_queries(1):
        first = get_graph(map)
    with django_assert_num_queries(0):
        assert get_graph(map) is first

    Component.objects.filter(map=map).update(state="failed")
    Map.objects.filter(pk=map.pk).update(version=map.version + 1)
    with django_assert_num_queries(1):
        assert get_graph(_fresh(map)) is first, "a state is no structure"

    apply_documents(map=map, sources=trading(component("more", "web")), actor=ACTOR)
    assert _named(_fresh(map)) == STRUCTURE | {Edge("more", "web")}
    with django_assert_num_queries(0):
        assert get_graph(map) is first, "who still has the old Map gets its graph"
    with django_assert_num_queries(1):
        assert len(get_graph(map, is_read_anew=True)) == 5


@pytest.mark.django_db(transaction=True)
def test_what_is_rolled_back_is_not_kept(cast: Cast) -> None:
    map = _fresh(make_map(cast.production, cast.owner))
    with transaction.atomic():
        apply_documents(map=map, sources=trading(component("wrong", "web")), actor=ACTOR)
        assert Edge("wrong", "web") in _named(_fresh(map))
        transaction.set_rollback(True)
    apply_documents(map=map, sources=trading(component("right", "web")), actor=ACTOR)

    assert _named(_fresh(map)) == STRUCTURE | {Edge("right", "web")}


@pytest.mark.django_db(transaction=True)
def test_stale_map_does_not_hide_a_newer_structure(cast: Cast) -> None:
    """The version is read in the statement of the graph: what is kept under it is of it."""
    stale = _fresh(make_map(cast.production, cast.owner))
    apply_documents(map=stale, sources=trading(component("more")), actor=ACTOR)
    graph = get_graph(stale)

    assert len(graph) == 5
    assert get_graph(_fresh(stale)) is graph


@pytest.mark.django_db(transaction=True)
def test_kept_graphs_are_bounded(cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    # Each weighs four components and three dependencies.
    monkeypatch.setattr(selectors, "_graphs", WeightedCache[tuple[uuid.UUID, int], Any](15))
    maps = [make_map(cast.production, cast.owner, [map_document(name), *trading()[1:]]) for name in "abc"]
    graphs = [get_graph(_fresh(map)) for map in maps]

    assert get_graph(_fresh(maps[2])) is graphs[2]
    assert get_graph(_fresh(maps[1])) is graphs[1]
    assert get_graph(_fresh(maps[0])) is not graphs[0]


@pytest.mark.django_db
def test_components_are_chosen_by_group_and_labels(cast: Cast) -> None:
    map = make_map(cast.production, cast.owner)
    Component.objects.filter(map=map, name__in=["api", "web"]).update(labels={"team": "trading"})
    other = make_map(cast.production, cast.owner, [map_document("Other"), component("api", group="services")])
    Component.objects.filter(map=other).update(labels={"team": "trading"})

    def chosen(**wanted: Any) -> list[str]:
        names = dict(Component.objects.values_list("pk", "name"))
        return [names[pk] for pk in select_components(map, **wanted)]

    assert chosen(group="services") == ["api"]
    assert chosen(labels=read_label_query("team=trading")) == ["api", "web"]
    assert chosen(labels=read_label_query("team!=trading")) == ["cache", "db"]
    assert chosen(group="web", labels=read_label_query("team")) == ["web"]
    assert chosen(group="nothing") == []
