"""Accepting and dismissing: the documents that a person could have written, all or nothing, audited."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.db import transaction
from django.test import Client

from apps.audit.actor import Actor
from apps.audit.models import AuditEvent
from apps.gateways.models import Gateway
from apps.gateways.tests.factories import failing_audit, make_gateway
from apps.maps.actions import create_map
from apps.maps.documents.reading import SourceFile
from apps.maps.exceptions import DocumentsError
from apps.maps.models import Component, Dependency, Map
from apps.maps.tests.factories import component, make_map, map_document
from apps.proposals.actions.answers import accept_proposals
from apps.proposals.exceptions import NoSuchProposalError, NotAcceptableError
from apps.proposals.models import Look, Proposal
from apps.proposals.tests.factories import NGINX, POSTGRES, make_host, proposed, tell
from apps.proposals.tests.test_looking import DATABASE, WEB
from conftest import Cast

SYSTEM = Actor.system("test")
WRITTEN = """\
# Ours since 2019.
apiVersion: opsmap.io/v1
kind: Component
metadata: {name: db}
spec:
  type: database   # the main one
  host: srv-9
  technology: {name: postgresql, version: "16"}
"""


@pytest.fixture
def gateway(cast: Cast) -> Gateway:
    return make_gateway(cast.acme)


@pytest.fixture
def map(cast: Cast) -> Map:
    return make_map(cast.production, cast.owner, [component("mail", host="srv-7")])


def accept(map: Map, *names: str) -> list[str]:
    ids = Proposal.objects.filter(name__in=names).values_list("pk", flat=True)
    assert len(ids) == len(names)
    return accept_proposals(organization_id=map.organization_id, ids=set(ids), map=map, actor=SYSTEM)


def documents(map: Map) -> dict[str, str]:
    map.refresh_from_db()
    return {item["path"]: item["content"] for item in map.documents}


def test_components_and_their_dependency_become_documents(gateway: Gateway, map: Map) -> None:
    make_host(gateway, "srv-9", **DATABASE)
    make_host(gateway, "srv-1", **WEB)
    before = documents(map)
    dependency = "nginx-srv-1 → postgresql-srv-9"
    assert accept(map, "nginx-srv-1", "postgresql-srv-9", dependency) == ["postgresql-srv-9", "nginx-srv-1"]
    after = documents(map)
    assert {path: after[path] for path in before} == before
    assert after["components/nginx-srv-1.yaml"].endswith(
        """\
apiVersion: opsmap.io/v1
kind: Component
metadata: {name: nginx-srv-1}
spec:
  type: web
  host: srv-1
  group: frontends
  technology: {name: nginx, version: "1.26.3"}
  dependsOn: [postgresql-srv-9]
  commands:
    start:
      service: {name: nginx.service}
    stop:
      service: {name: nginx.service}
    restart:
      service: {name: nginx.service}
    status:
      service: {name: nginx.service}
  healthcheck: {type: tcp, port: 80}
"""
    )
    link = Dependency.objects.select_related("component", "needs").get()
    assert (link.component.name, link.needs.name, link.kind) == ("nginx-srv-1", "postgresql-srv-9", "strong")
    assert set(proposed().values()) == {"known"}
    [event] = AuditEvent.objects.filter(action="proposals.accepted")
    assert event.details["proposals"] == 3
    assert event.target["mapId"] == str(map.pk)


def test_a_newer_version_is_the_smallest_change_of_what_a_person_wrote(cast: Cast, gateway: Gateway) -> None:
    map = create_map(
        workspace=cast.production, sources=[SourceFile("db.yaml", WRITTEN)], owner=cast.owner, actor=SYSTEM
    )
    make_host(gateway, "srv-9", **DATABASE)
    assert proposed() == {"postgresql-srv-9": "changed"}
    assert accept(map, "postgresql-srv-9") == ["db"]
    assert documents(map) == {"db.yaml": WRITTEN.replace('"16"', '"17.2"')}
    assert proposed() == {"postgresql-srv-9": "known"}


def test_a_dependency_of_what_is_there_is_added_to_its_document(cast: Cast, gateway: Gateway) -> None:
    sources = [SourceFile("db.yaml", WRITTEN), component("web", host="srv-1", technology={"name": "nginx"})]
    map = create_map(workspace=cast.production, sources=sources, owner=cast.owner, actor=SYSTEM)
    make_host(gateway, "srv-9", **DATABASE)
    make_host(gateway, "srv-1", **WEB)
    accept(map, "nginx-srv-1 → postgresql-srv-9")
    assert documents(map)["db.yaml"] == WRITTEN
    assert json.loads(documents(map)["components/web.yaml"])["spec"]["dependsOn"] == ["db"]
    assert proposed()["nginx-srv-1 → postgresql-srv-9"] == "known"


def test_a_dependency_without_its_ends_is_refused(gateway: Gateway, map: Map) -> None:
    make_host(gateway, "srv-9", **DATABASE)
    make_host(gateway, "srv-1", **WEB)
    with pytest.raises(NotAcceptableError, match="postgresql-srv-9 is not on Map: accept it first"):
        accept(map, "nginx-srv-1", "nginx-srv-1 → postgresql-srv-9")
    assert not Component.objects.filter(name="nginx-srv-1").exists(), "all or nothing"
    accept(map, "nginx-srv-1")
    accept(map, "postgresql-srv-9")
    accept(map, "nginx-srv-1 → postgresql-srv-9")
    assert Dependency.objects.count() == 1


def test_a_cycle_is_refused_by_name_and_nothing_is_written(gateway: Gateway, cast: Cast) -> None:
    sources = [
        component("web", host="srv-1", technology={"name": "nginx"}),
        component("db", "web", host="srv-9", technology={"name": "postgresql"}),
    ]
    map = make_map(cast.production, cast.owner, sources)
    make_host(gateway, "srv-9", **DATABASE)
    make_host(gateway, "srv-1", **WEB)
    before = documents(map)
    with pytest.raises(DocumentsError) as refused, transaction.atomic():
        accept(map, "nginx-srv-1 → postgresql-srv-9")
    assert "cycle" in str([fault.as_json() for fault in refused.value.faults])
    assert documents(map) == before
    assert proposed()["nginx-srv-1 → postgresql-srv-9"] == "new"


def test_a_name_that_is_taken_gets_a_number_and_a_path_of_its_own(cast: Cast, gateway: Gateway) -> None:
    map = make_map(cast.production, cast.owner, [component("postgresql-srv-9", host="elsewhere")])
    make_host(gateway, "srv-9", **DATABASE)
    assert accept(map, "postgresql-srv-9") == ["postgresql-srv-9-2"]
    assert set(documents(map)) == {"components/postgresql-srv-9.yaml", "components/postgresql-srv-9-2.yaml"}
    assert Component.objects.filter(map=map).count() == 2


def test_what_is_missing_or_on_another_map_cannot_be_accepted(cast: Cast, gateway: Gateway, map: Map) -> None:
    other = create_map(
        workspace=cast.production,
        sources=[map_document("Other"), SourceFile("m.yaml", WRITTEN)],
        owner=cast.owner,
        actor=SYSTEM,
    )
    agent = make_host(gateway, "srv-9", **DATABASE)
    with pytest.raises(NotAcceptableError, match="on another Map"):
        accept(map, "postgresql-srv-9")
    tell(agent, services=[])
    with pytest.raises(NotAcceptableError, match="missing on srv-9"):
        accept(other, "postgresql-srv-9")


def test_without_its_audit_event_nothing_is_accepted(gateway: Gateway, map: Map) -> None:
    make_host(gateway, "srv-9", **DATABASE)
    before = documents(map)
    with failing_audit(), pytest.raises(Exception, match="no_more_events"), transaction.atomic():
        accept(map, "postgresql-srv-9")
    assert documents(map) == before
    assert proposed() == {"postgresql-srv-9": "new"}


def test_proposals_of_others_are_none(cast: Cast, gateway: Gateway, map: Map) -> None:
    make_host(make_gateway(cast.umbrella), "srv-9", **DATABASE)
    with pytest.raises(NoSuchProposalError):
        accept(map, "postgresql-srv-9")


def post(client: Client, address: str, **body: Any) -> Any:
    return client.post(f"/api/v1/proposals{address}", body, content_type="application/json")


def test_over_rest(client: Client, cast: Cast, gateway: Gateway, map: Map) -> None:
    make_host(gateway, "srv-9", **DATABASE)
    make_host(gateway, "srv-1", **WEB)
    client.force_login(cast.operator)
    inbox = client.get("/api/v1/proposals").json()
    assert inbox["counts"] == {"new": 3, "changed": 0, "missing": 0}
    assert [item["name"] for item in inbox["results"]] == [
        "nginx-srv-1 → postgresql-srv-9",
        "nginx-srv-1",
        "postgresql-srv-9",
    ]
    dependency, nginx, postgresql = inbox["results"]
    assert (dependency["dependencyKind"], dependency["client"]["id"]) == ("strong", nginx["id"])
    assert postgresql["technology"] == {"name": "postgresql", "version": "17.2"}
    assert (postgresql["agent"]["agentId"], postgresql["component"]) == ("srv-9", None)

    assert post(client, "/dismiss", ids=[nginx["id"]]).json() == {"dismissed": 1}
    assert [item["name"] for item in client.get("/api/v1/proposals", {"dismissed": True}).json()["results"]] == [
        "nginx-srv-1"
    ]
    assert post(client, "/accept", ids=[postgresql["id"]], mapId=str(map.pk)).json() == {
        "mapId": str(map.pk),
        "components": ["postgresql-srv-9"],
    }
    known = client.get("/api/v1/proposals", {"status": "known"}).json()["results"]
    assert [item["component"]["name"] for item in known] == ["postgresql-srv-9"]
    assert post(client, "/accept", ids=[], mapId=str(map.pk)).status_code == 400
    assert post(client, "/dismiss", ids=[str(map.pk)]).status_code == 404
    client.force_login(cast.viewer)
    assert client.get("/api/v1/proposals").status_code == 403
    assert post(client, "/accept", ids=[nginx["id"]], mapId=str(map.pk)).status_code == 403
    client.force_login(cast.outsider)
    assert client.get("/api/v1/proposals").json()["results"] == []
    assert post(client, "/accept", ids=[nginx["id"]], mapId=str(map.pk)).status_code == 404
    assert post(client, "/dismiss", ids=[nginx["id"]]).status_code == 404


def test_pages_and_filters(client: Client, cast: Cast, gateway: Gateway, django_assert_max_num_queries: Any) -> None:
    for number in range(7):
        make_host(gateway, f"srv-{number}", technologies=[POSTGRES if number % 2 else NGINX])
    client.force_login(cast.owner)
    names: list[str] = []
    before = None
    for size in (3, 3, 1):
        query = {"limit": 3} | ({"before": before} if before else {})
        with django_assert_max_num_queries(8):
            page = client.get("/api/v1/proposals", query).json()
        assert len(page["results"]) == size
        names += [item["name"] for item in page["results"]]
        before = page["next"]
    assert before is None
    assert len(set(names)) == 7

    def found(**query: Any) -> int:
        return len(client.get("/api/v1/proposals", query).json()["results"])

    assert found(technology="nginx") == 4
    assert found(type="database") == 3
    assert found(agent="srv-3") == 1
    assert found(text="SRV-3") == 1
    assert found(kind="dependency") == 0
    assert found(status=["changed", "missing"]) == 0
    for wrong in ({"limit": 501}, {"status": "x"}, {"before": "x"}, {"kind": "x"}):
        assert client.get("/api/v1/proposals", wrong).status_code == 400, wrong
    assert Look.objects.count() == 7
