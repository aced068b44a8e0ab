"""Writes to Maps: identity and state kept by name, the row and the audit event together, nothing on faults."""

from __future__ import annotations

from typing import Any

import pytest
from django.apps import apps
from django.db import DataError

from apps.audit.actor import Actor
from apps.audit.models import AuditEvent
from apps.maps.actions import apply_documents, bump_version, create_map, delete_map
from apps.maps.documents.reading import SourceFile
from apps.maps.enums import ComponentState, DependencyKind, DesiredState
from apps.maps.exceptions import DocumentsError, MapBusyError, NameTakenError
from apps.maps.models import Component, ComponentGroup, Dependency, Map
from apps.maps.selectors import get_graph
from apps.maps.signals import map_structure_changed
from apps.maps.tests.factories import ACTOR, UNWRITABLE, as_body, component, folder, make_map, map_document, trading
from conftest import Cast


@pytest.fixture
def map(cast: Cast) -> Map:
    return make_map(cast.production, cast.owner)


def _rows() -> list[Any]:
    """Everything that documents write."""
    models = (Map, ComponentGroup, Component, Dependency, AuditEvent)
    return [list(model._default_manager.order_by("pk").values()) for model in models]


def _links(map: Map) -> set[tuple[str, str, str]]:
    return set(Dependency.objects.filter(map=map).values_list("component__name", "needs__name", "kind"))


def test_create_map_writes_the_whole_structure(cast: Cast, map: Map) -> None:
    map.refresh_from_db()
    assert (map.name, map.slug, map.description) == ("Trading Platform", "trading-platform", "Trades.")
    assert (map.organization, map.workspace, map.owner) == (cast.acme, cast.production, cast.owner)
    assert map.documents == as_body(trading())
    assert map.state == ComponentState.UNKNOWN
    groups = list(map.groups.order_by("position").values_list("name", "title"))
    assert groups == [("databases", ""), ("web", "Web"), ("caches", ""), ("services", "")]
    db = map.components.get(name="db")
    assert (db.type, db.host, db.organization, db.state) == ("database", "srv-1", cast.acme, ComponentState.UNKNOWN)
    assert db.group is not None
    assert db.group.name == "databases"
    assert _links(map) == {
        ("api", "db", DependencyKind.STRONG),
        ("api", "cache", DependencyKind.WEAK),
        ("web", "api", DependencyKind.STRONG),
    }


def test_create_map_is_audited_with_its_author(cast: Cast) -> None:
    made = create_map(
        workspace=cast.production, sources=trading(), owner=cast.owner, actor=Actor.person(cast.owner, ip="10.0.0.7")
    )

    event = AuditEvent.objects.get(action="map.created")
    assert event.organization_id == cast.acme.pk
    assert (event.actor["email"], event.actor["ip"]) == ("owner@acme.example", "10.0.0.7")
    assert event.target == {"type": "map", "mapId": str(made.pk)}
    assert event.details == {"name": "Trading Platform", "components": 4}


def test_component_keeps_labels_technology_and_its_spec(cast: Cast) -> None:
    api = make_map(cast.production, cast.owner, folder("spec-3.1")).components.get(name="trading-api")

    assert api.labels == {"team": "trading"}
    assert api.technology == {"name": "openjdk", "version": "17"}
    assert api.spec["commands"]["stop"] == {"command": "systemctl stop trading-api"}


def test_graph_of_a_map_costs_one_query(map: Map, django_assert_num_queries: Any) -> None:
    ids = {name: pk for pk, name in map.components.values_list("pk", "name")}
    with django_assert_num_queries(1):
        graph = get_graph(map)
    assert graph.required_by([ids["web"]]) == {ids["web"], ids["api"], ids["db"]}
    assert set(graph.needs_of(ids["api"])) == {(ids["db"], True), (ids["cache"], False)}


def test_create_map_with_faults_writes_nothing(cast: Cast) -> None:
    before = _rows()

    with pytest.raises(DocumentsError, match=r"The documents have 2 faults\.") as caught:
        make_map(cast.production, cast.owner, [component("a", "x"), component("b", "b")])

    assert len(caught.value.faults) == len(caught.value.extra["errors"]) == 2
    assert _rows() == before


def test_name_is_taken_once_in_a_workspace(cast: Cast, map: Map) -> None:
    before = _rows()
    for name in ("Trading Platform", "trading platform"):
        with pytest.raises(NameTakenError) as caught:
            make_map(cast.production, cast.owner, [map_document(name), component("a")])
        assert (caught.value.status, caught.value.code) == (409, "name_taken")
    assert _rows() == before


def test_name_is_free_in_another_organization(cast: Cast, map: Map) -> None:
    from apps.orgs.actions import create_workspace

    elsewhere = create_workspace(organization=cast.umbrella, name="Production", slug="production", actor=ACTOR)
    assert make_map(elsewhere, cast.outsider).slug == map.slug


def test_name_without_a_latin_letter_has_an_address_too(cast: Cast) -> None:
    made = make_map(cast.production, cast.owner, [map_document("取引"), component("a")])
    assert (made.name, made.slug) == ("取引", "map")


def test_apply_keeps_identity_and_state_by_name(map: Map) -> None:
    before = dict(map.components.values_list("name", "pk"))
    map.components.filter(name="api").update(state=ComponentState.RUNNING, desired=DesiredState.UP, epoch=7)

    sources = [
        map_document("Trading Platform"),
        component("db", type="cache", host="srv-2"),
        component("api", "db", "queue", group="services"),
        component("queue"),
    ]
    assert apply_documents(map=map, sources=sources, actor=ACTOR) is True

    after = dict(map.components.values_list("name", "pk"))
    assert after.keys() == {"db", "api", "queue"}
    assert (after["db"], after["api"]) == (before["db"], before["api"])
    api, db = map.components.get(name="api"), map.components.get(name="db")
    assert (api.state, api.desired, api.epoch) == (ComponentState.RUNNING, DesiredState.UP, 7)
    assert (db.type, db.host, db.group) == ("cache", "srv-2", None)
    assert map.components.get(name="queue").state == ComponentState.UNKNOWN


def test_apply_removes_what_is_no_longer_written(map: Map) -> None:
    kept = [map_document("Trading Platform"), component("db"), component("api", "db")]
    apply_documents(map=map, sources=kept, actor=ACTOR)

    assert set(map.components.values_list("name", flat=True)) == {"db", "api"}
    assert _links(map) == {("api", "db", DependencyKind.STRONG)}
    assert not map.groups.exists()


def test_apply_changes_the_kind_of_a_dependency(map: Map) -> None:
    sources = [item for item in trading() if "/web" not in item.path]
    sources.append(component("web", {"component": "api", "kind": "weak"}))
    apply_documents(map=map, sources=sources, actor=ACTOR)
    assert ("web", "api", DependencyKind.WEAK) in _links(map)


def test_apply_is_audited(map: Map) -> None:
    apply_documents(map=map, sources=[component("db")], actor=Actor.system("git"))

    event = AuditEvent.objects.get(action="map.documents_applied")
    assert (event.actor["id"], event.organization_id) == ("git", map.organization_id)
    assert event.details == {"name": "Trading Platform", "components": 1}


def test_apply_without_a_map_document_keeps_the_name_and_may_change_it_with_one(map: Map) -> None:
    apply_documents(map=map, sources=[component("db")], actor=ACTOR)
    map.refresh_from_db()
    assert map.name == "Trading Platform"

    apply_documents(map=map, sources=[map_document("Trades"), component("db")], actor=ACTOR)
    map.refresh_from_db()
    assert (map.name, map.slug, map.description) == ("Trades", "trading-platform", "")


def test_same_documents_again_change_nothing(map: Map) -> None:
    before = _rows()
    assert apply_documents(map=map, sources=trading(), actor=ACTOR) is False
    assert _rows() == before


def test_a_remark_alone_is_a_change_of_the_documents(map: Map) -> None:
    first, *rest = trading()
    sources = [SourceFile(first.path, f"# by hand\n{first.content}"), *rest]

    assert apply_documents(map=map, sources=sources, actor=ACTOR) is True
    assert apply_documents(map=map, sources=sources, actor=ACTOR) is False
    map.refresh_from_db()
    assert map.documents[0]["content"].startswith("# by hand")


def test_version_grows_with_each_change(map: Map) -> None:
    map.refresh_from_db()
    first = map.version
    assert map.structure_version == first
    assert set(map.components.values_list("version", flat=True)) == {first}

    apply_documents(map=map, sources=trading(component("new")), actor=ACTOR)
    map.refresh_from_db()
    assert map.version == map.structure_version == first + 1
    assert set(map.components.values_list("version", flat=True)) == {first + 1}

    assert bump_version(map.pk) == first + 2
    map.refresh_from_db()
    assert (map.version, map.structure_version) == (first + 2, first + 1)


def test_apply_with_faults_writes_nothing(map: Map) -> None:
    before = _rows()
    for sources in ([component("a", "b"), component("b", "a")], [], [SourceFile("a.yaml", "a: [")]):
        with pytest.raises(DocumentsError):
            apply_documents(map=map, sources=sources, actor=ACTOR)
    assert _rows() == before


def test_apps_above_hear_of_every_change_of_the_structure(cast: Cast, map: Map) -> None:
    heard: list[Any] = []

    def hear(sender: type, **news: Any) -> None:
        heard.append((news["map_id"], news["organization_id"]))

    map_structure_changed.connect(hear)
    try:
        apply_documents(map=map, sources=[component("db")], actor=ACTOR)
        apply_documents(map=map, sources=[component("db")], actor=ACTOR)
        map_id = map.pk
        delete_map(map=map, actor=ACTOR)
    finally:
        map_structure_changed.disconnect(hear)

    assert heard == [(map_id, cast.acme.pk)] * 2


def test_delete_map_takes_everything_on_it_and_is_audited(map: Map) -> None:
    map_id = str(map.pk)
    delete_map(map=map, actor=ACTOR)

    assert not Map.objects.exists()
    assert not Component.objects.exists()
    assert not Dependency.objects.exists()
    event = AuditEvent.objects.get(action="map.deleted")
    assert (event.target["mapId"], event.details) == (map_id, {"name": "Trading Platform"})


@pytest.fixture
def held(map: Map) -> Component:
    """A component in the hands of a running operation."""
    operation = apps.get_model("operations", "Operation").objects.create(
        organization=map.organization, map=map, kind="start", target="db"
    )
    db = map.components.get(name="db")
    apps.get_model("operations", "ComponentHold").objects.create(component=db, operation=operation)
    return db


def test_held_component_cannot_go(map: Map, held: Component) -> None:
    before = _rows()

    with pytest.raises(MapBusyError) as caught:
        apply_documents(map=map, sources=[component("api")], actor=ACTOR)
    with pytest.raises(MapBusyError):
        delete_map(map=map, actor=ACTOR)

    assert (caught.value.status, caught.value.code) == (409, "map_busy")
    assert _rows() == before


def test_held_component_may_change(map: Map, held: Component) -> None:
    assert apply_documents(map=map, sources=[component("db", host="srv-9")], actor=ACTOR)
    held.refresh_from_db()
    assert held.host == "srv-9"


def test_nothing_is_written_if_the_audit_fails(cast: Cast, map: Map) -> None:
    before = _rows()
    with pytest.raises(DataError):
        create_map(workspace=cast.production, sources=folder("reference-4.5"), owner=cast.owner, actor=UNWRITABLE)
    with pytest.raises(DataError):
        apply_documents(map=map, sources=[component("db")], actor=UNWRITABLE)
    with pytest.raises(DataError):
        delete_map(map=map, actor=UNWRITABLE)
    assert _rows() == before
