"""Importing and exporting over REST: who may, what comes back, and that a dry run leaves nothing behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from apps.audit.models import AuditEvent
from apps.maps.documents.archives import from_zip, to_zip
from apps.maps.documents.reading import SourceFile
from apps.maps.models import Map
from apps.maps.tests.factories import as_body, component, make_map, trading
from conftest import Cast

IMPORT = "/api/v1/maps/import"
COMPOSE = (Path(__file__).parent / "importing" / "compose" / "monitoring.yml").read_text()


def _client(cast: Cast, person: str = "owner") -> Client:
    client = Client()
    client.force_login(getattr(cast, person))
    return client


def _post(client: Client, **body: Any) -> Any:
    return client.post(IMPORT, body, content_type="application/json")


def test_documents_and_report_without_a_workspace(cast: Cast) -> None:
    events = AuditEvent.objects.count()
    answer = _post(_client(cast, "viewer"), kind="compose", content=COMPOSE, options={"host": "srv-1"})

    assert answer.status_code == 200
    body = answer.json()
    assert [item["path"] for item in body["documents"]][:2] == ["map.yaml", "components/prometheus.yaml"]
    address = "http://testserver/api/v1/schemas/v1/map-document.json"
    assert body["documents"][0]["content"].startswith(f"# yaml-language-server: $schema={address}\n")
    assert body["errors"] == []
    assert body["report"]["isComplete"] is True
    assert set(body["report"]["counts"]) == {"taken", "guessed", "left_out"}
    assert body["report"]["items"][1] == {
        "outcome": "taken",
        "line": 2,
        "item": "",
        "key": "name",
        "text": "the project is monitoring",
    }
    assert not Map.objects.exists()
    assert AuditEvent.objects.count() == events


def test_workspace_gets_the_map(cast: Cast) -> None:
    body = {"kind": "compose", "content": COMPOSE, "workspaceId": str(cast.production.pk)}
    assert _post(_client(cast), **body, dryRun=True).status_code == 200
    assert not Map.objects.exists()

    answer = _post(_client(cast), **body, options={"host": "srv-1"})

    made = Map.objects.get()
    assert (answer.status_code, answer.json()["id"], answer.json()["slug"]) == (201, str(made.pk), "monitoring")
    assert made.components.get(name="grafana").technology == {"name": "grafana", "version": "12.0.2"}
    assert set(made.components.values_list("host", flat=True)) == {"srv-1"}
    assert AuditEvent.objects.filter(action="map.created").count() == 1
    assert _post(_client(cast), **body).json()["code"] == "name_taken"


@pytest.mark.parametrize(("person", "status"), [("operator", 201), ("viewer", 404), ("outsider", 404)])
def test_who_may_create(cast: Cast, person: str, status: int) -> None:
    for is_dry in (True, False):
        body = {"kind": "csv", "content": "name\ndb\n", "workspaceId": str(cast.production.pk), "dryRun": is_dry}
        assert _post(_client(cast, person), **body).status_code == (200 if is_dry and status == 201 else status)
    assert Map.objects.count() == (status == 201)


def test_units_come_as_a_list_or_as_its_text(cast: Cast) -> None:
    units = '[{"name": "nginx.service"}]'
    for content in (units, [{"name": "nginx.service"}]):
        answer = _post(_client(cast), kind="systemd", content=content, options={"host": "srv-1"})
        assert [item["path"] for item in answer.json()["documents"]] == ["map.yaml", "components/nginx.yaml"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            {"kind": "compose", "content": "a: [1"},
            "docker-compose.yml:2:1: found the end of the file, expected ',' or ']'",
        ),
        ({"kind": "compose", "content": 7}, "options:1:1: content: found 7, expected text"),
        ({"kind": "csv", "content": ["a"]}, 'options:1:1: content: found ["a"], expected text'),
        ({"kind": "systemd", "content": "["}, "units:1:2: found Expecting value"),
        ({"kind": "systemd", "content": {}}, "units:1:1: found {}, expected a list of at most 5000 units"),
        ({"kind": "systemd", "content": "[" * 100_000}, "units:1:1: found "),
        (
            {"kind": "csv", "content": "name\na\n", "options": {"hots": "x"}},
            "options:1:1: hots: found an unknown option, expected one of host, name, group (perhaps 'host')",
        ),
        (
            {"kind": "compose", "content": COMPOSE, "options": {"folder": "srv"}},
            'options:1:1: folder: found "srv", expected an absolute path on the host',
        ),
        (
            {"kind": "compose", "content": COMPOSE, "options": {"file": "--help"}},
            'options:1:1: file: found "--help", expected the file\'s name in its folder',
        ),
        (
            {"kind": "compose", "content": COMPOSE, "options": {"host": "a b"}},
            'options:1:1: host: found "a b", expected a hostname',
        ),
        (
            {"kind": "compose", "content": COMPOSE, "options": {"files": {"a.yml": 7}}},
            "options:1:1: files.a.yml: found 7, expected the file's text",
        ),
        (
            {"kind": "compose", "content": COMPOSE, "options": {"environment": 7}},
            "options:1:1: environment: found 7, expected a .env file's text, or its variables",
        ),
        (
            {"kind": "compose", "content": COMPOSE, "options": {"profiles": "x"}},
            'options:1:1: profiles: found "x", expected a list of at most 5000 names',
        ),
        (
            {"kind": "csv", "content": "name\na\n", "options": {"name": "x" * 121}},
            f'options:1:1: name: found "{"x" * 76}…, expected text of at most 120 characters',
        ),
    ],
)
def test_what_cannot_be_imported_is_named(cast: Cast, body: dict[str, Any], message: str) -> None:
    answer = _post(_client(cast), **body)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_import")
    assert answer.json()["detail"] == "What was sent has 1 fault."
    assert answer.json()["errors"][0]["message"].startswith(message)


@pytest.mark.parametrize("body", [{}, {"kind": "helm", "content": ""}, {"kind": "csv"}, {"kind": "csv", "options": []}])
def test_body_with_a_fault_is_refused(cast: Cast, body: dict[str, Any]) -> None:
    answer = _post(_client(cast), **body)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid")


def test_dry_run_tells_what_the_map_would_be_refused_for(cast: Cast) -> None:
    body = {"kind": "csv", "content": f"name,labels\na,k=v\n{'b' * 200},\n", "dryRun": True}
    assert _post(_client(cast), **body).json()["errors"] == []


def test_archive_is_the_documents_and_replaces_them(cast: Cast) -> None:
    map, client = make_map(cast.production, cast.owner), _client(cast)
    url = f"/api/v1/maps/{map.pk}/documents.zip"

    answer = client.get(url, headers={"Accept": "application/zip"})
    assert answer.headers["Content-Type"] == "application/zip"
    assert answer.headers["Content-Disposition"] == 'attachment; filename="trading-platform.zip"'
    assert answer.content == to_zip(trading())
    assert from_zip(answer.content) == (trading(), [])

    again = client.put(url, answer.content, content_type="application/zip")
    assert again.json() == {"hasChanged": False}
    changed = to_zip([component("db"), SourceFile("README.md", "# Trading\n")])
    assert client.put(url, changed, content_type="application/zip").json() == {"hasChanged": True}
    assert client.get(url).content == changed
    assert map.components.count() == 1


def test_documents_come_back_byte_for_byte_by_every_way(cast: Cast) -> None:
    text = "\ufeff# ours\r\n\r\napiVersion:   'opsmap.io/v1'\r\nkind: Component # é 😀\r\nmetadata: {name: db}\r\n"
    documents = [
        SourceFile("b.yml", text + "spec:\r\n    type: database  \r\n\r\n# the end, without a line break"),
        SourceFile("a/LICENSE", "\tfree\n\n\n"),
    ]
    map, client = make_map(cast.production, cast.owner), _client(cast)
    url = f"/api/v1/maps/{map.pk}/documents"
    body = {"documents": as_body(documents)}
    for kind, sent in (("application/json", body), ("application/zip", to_zip(documents))):
        client.put(url, {"documents": as_body(trading())}, content_type="application/json")
        suffix = ".zip" if kind == "application/zip" else ""
        assert client.put(url + suffix, sent, content_type=kind).json() == {"hasChanged": True}
        assert client.get(url).json() == body
        assert from_zip(client.get(f"{url}.zip").content)[0] == documents


def test_archive_with_faults_changes_nothing(cast: Cast) -> None:
    map, client = make_map(cast.production, cast.owner), _client(cast)
    url = f"/api/v1/maps/{map.pk}/documents.zip"
    for content, status, code in (
        (b"no archive", 422, "invalid_documents"),
        (to_zip([component("a", "b")]), 422, "invalid_documents"),
        (b"", 422, "invalid_documents"),
        (b"x" * (8 * 1024 * 1024 + 1), 413, "body_too_large"),
    ):
        answer = client.put(url, content, content_type="application/zip")
        assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert client.get(url).content == to_zip(trading())
    assert _client(cast, "viewer").put(url, b"", content_type="application/zip").status_code == 403
    assert _client(cast, "outsider").get(url).status_code == 404


def test_documents_of_a_map_have_paths_of_their_own(cast: Cast) -> None:
    client = _client(cast)
    for documents, text in (
        (as_body([component("db"), component("db")]), "appears twice"),
        ([{"path": "../db.yaml", "content": component("db").content}], "relative path"),
    ):
        body = {"workspaceId": str(cast.production.pk), "documents": documents}
        answer = client.post("/api/v1/maps", body, content_type="application/json")
        assert answer.status_code == 400
        assert text in answer.content.decode()


def test_schema_is_served_at_its_versioned_address(client: Client) -> None:
    answer = client.get("/api/v1/schemas/v1/map-document.json")
    assert answer.json() == client.get("/api/v1/schemas/map-document.json").json()
    assert answer.json()["$id"].endswith("/schemas/v1/map-document.json")
    assert answer.headers["Cache-Control"] == "public, max-age=3600"
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
