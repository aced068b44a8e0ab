"""Documents over REST: create, read, replace, validate, delete, and the schema for editors."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client
from jsonschema import Draft202012Validator

from apps.audit.models import AuditEvent
from apps.maps.documents.reading import MAX_DOCUMENT_BYTES, SourceFile
from apps.maps.models import Map
from apps.maps.tests.factories import as_body, component, folder, make_map, trading
from conftest import Cast

MAPS, VALIDATE = "/api/v1/maps", "/api/v1/maps/validate"


@pytest.fixture
def map(cast: Cast) -> Map:
    return make_map(cast.production, cast.owner)


def _client(cast: Cast, person: str) -> Client:
    client = Client()
    if person != "nobody":
        client.force_login(getattr(cast, person))
    return client


def _post(client: Client, url: str, body: dict[str, Any]) -> Any:
    return client.post(url, body, content_type="application/json")


def _documents(map: Map) -> str:
    return f"{MAPS}/{map.pk}/documents"


def _new(cast: Cast, *sources: SourceFile) -> dict[str, Any]:
    return {"workspaceId": str(cast.production.pk), "documents": as_body(sources or trading())}


@pytest.mark.parametrize(
    ("person", "create", "read", "write", "validate", "delete"),
    [
        ("owner", 201, 200, 200, 200, 204),
        ("operator", 201, 200, 200, 200, 204),
        # The workspace exists for a viewer, but not as a place to create in; the Map is seen and may not be edited.
        ("viewer", 404, 200, 403, 200, 403),
        ("outsider", 404, 404, 404, 200, 404),
        ("nobody", 401, 401, 401, 401, 401),
    ],
)
def test_who_may_what(
    cast: Cast, map: Map, person: str, create: int, read: int, write: int, validate: int, delete: int
) -> None:
    client, before = _client(cast, person), Map.objects.count()
    body = {"documents": as_body([component("db")])}

    assert _post(client, VALIDATE, body).status_code == validate
    assert client.get(_documents(map)).status_code == read
    assert client.get(f"{MAPS}/{map.pk}").status_code == read
    assert _post(client, MAPS, _new(cast, *folder("reference-4.5"))).status_code == create
    assert Map.objects.count() == before + (create == 201)
    assert client.put(_documents(map), body, content_type="application/json").status_code == write
    assert map.components.count() == (1 if write == 200 else 4)
    assert client.delete(f"{MAPS}/{map.pk}").status_code == delete
    assert Map.objects.filter(pk=map.pk).exists() is (delete != 204)


def test_refusals_are_problems(cast: Cast, map: Map) -> None:
    body = {"documents": as_body([component("db")])}
    refused = _client(cast, "viewer").put(_documents(map), body, content_type="application/json")
    hidden = _client(cast, "outsider").put(_documents(map), body, content_type="application/json")

    assert refused.json()["code"] == "permission_denied"
    assert refused.json()["detail"] == "You may not do this on Trading Platform (map:edit)."
    assert hidden.json()["code"] == "not_found"
    assert "Trading" not in hidden.content.decode()


def test_create_answers_with_the_id_and_the_slug(cast: Cast) -> None:
    answer = _post(_client(cast, "operator"), MAPS, _new(cast))

    made = Map.objects.get()
    assert answer.json() == {"id": str(made.pk), "slug": "trading-platform"}
    assert (made.owner, made.components.count()) == (cast.operator, 4)
    event = AuditEvent.objects.get(action="map.created")
    assert (event.actor["email"], event.actor["ip"]) == ("operator@acme.example", "127.0.0.1")


def test_create_in_a_workspace_that_is_not_there_gets_404(cast: Cast) -> None:
    body = _new(cast) | {"workspaceId": str(cast.acme.pk)}
    assert _post(_client(cast, "owner"), MAPS, body).status_code == 404


def test_create_with_a_name_that_is_taken_gets_409(cast: Cast, map: Map) -> None:
    answer = _post(_client(cast, "owner"), MAPS, _new(cast))

    assert (answer.status_code, answer.json()["code"]) == (409, "name_taken")
    assert answer.json()["detail"] == "This workspace already has a Map named 'Trading Platform'."


def test_create_with_faults_gets_all_of_them(cast: Cast) -> None:
    answer = _post(_client(cast, "owner"), MAPS, _new(cast, component("a", "b"), component("b", "c")))

    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_documents")
    assert [error["key"] for error in answer.json()["errors"]] == ["spec.dependsOn[0]"]
    assert answer.json()["detail"] == "The documents have 1 fault."
    assert not Map.objects.exists()


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"workspaceId": "production"}, "workspaceId"),
        ({"workspaceId": None}, "workspaceId"),
        ({"documents": []}, "documents"),
        ({"documents": "a: 1"}, "documents"),
        ({"documents": [{"path": "a.yaml"}]}, "documents"),
        ({"documents": [{"path": "", "content": "a: 1"}]}, "documents"),
        ({"documents": [{"path": "a.yaml", "content": "a\0"}]}, "documents"),
        ({"documents": [{"path": "a.yaml", "content": "\ud800"}]}, "documents"),
        ({"documents": [{"path": "a.yaml", "content": "x" * (MAX_DOCUMENT_BYTES + 1)}]}, "documents"),
    ],
)
def test_body_with_a_fault_names_its_field(cast: Cast, change: dict[str, Any], key: str) -> None:
    answer = _post(_client(cast, "owner"), MAPS, _new(cast) | change)
    assert (answer.status_code, answer.json()["code"], list(answer.json()["errors"])) == (400, "invalid", [key])


def test_text_that_cannot_be_stored_is_a_fault_and_no_crash(cast: Cast) -> None:
    documents = [
        SourceFile(
            "nul.yaml", 'apiVersion: opsmap.io/v1\nkind: Map\nmetadata: {name: m}\nspec: {description: "\\0"}\n'
        ),
        SourceFile(
            "half.yaml", 'apiVersion: opsmap.io/v1\nkind: Component\nmetadata: {name: a}\nspec: {type: "\\ud800"}\n'
        ),
    ]
    answer = _post(_client(cast, "owner"), MAPS, _new(cast, *documents))

    assert answer.status_code == 422
    assert [(error["file"], error["line"]) for error in answer.json()["errors"]] == [("nul.yaml", 4), ("half.yaml", 4)]


def test_numbers_that_json_lacks_are_stored_as_text(cast: Cast) -> None:
    text = "apiVersion: opsmap.io/v1\nkind: Component\nmetadata: {name: a}\nspec:\n  type: x\n"
    text += "  commands: {start: {native: {name: x, params: {a: 1e999, b: .nan, c: 1e3}}}}\n"
    answer = _post(_client(cast, "owner"), MAPS, _new(cast, SourceFile("a.yaml", text)))

    assert answer.status_code == 201
    [only] = Map.objects.get().components.all()
    assert only.spec["commands"]["start"]["native"]["params"] == {"a": "1e999", "b": ".nan", "c": 1000.0}


def test_documents_come_back_as_they_were_put(cast: Cast, map: Map) -> None:
    client = _client(cast, "owner")
    body = {"documents": as_body(folder("spec-3.1"))}

    assert client.put(_documents(map), body, content_type="application/json").json() == {"hasChanged": True}
    assert client.get(_documents(map)).json() == body
    assert client.put(_documents(map), body, content_type="application/json").json() == {"hasChanged": False}
    assert AuditEvent.objects.filter(action="map.documents_applied").count() == 1


def test_put_with_faults_leaves_the_map_as_it_was(cast: Cast, map: Map) -> None:
    client = _client(cast, "owner")
    body = {"documents": as_body([component("a", "a")])}

    answer = client.put(_documents(map), body, content_type="application/json")

    assert answer.status_code == 422
    assert client.get(_documents(map)).json() == {"documents": as_body(trading())}


def test_put_renews_the_etag_of_the_map(cast: Cast, map: Map) -> None:
    client = _client(cast, "owner")
    etag = client.get(f"{MAPS}/{map.pk}").headers["ETag"]
    assert client.get(f"{MAPS}/{map.pk}", headers={"If-None-Match": etag}).status_code == 304

    client.put(_documents(map), {"documents": as_body([component("db")])}, content_type="application/json")

    fresh = client.get(f"{MAPS}/{map.pk}", headers={"If-None-Match": etag})
    assert fresh.status_code == 200
    assert [item["name"] for item in fresh.json()["components"]] == ["db"]


def test_validate_says_yes_and_writes_nothing(cast: Cast) -> None:
    events = AuditEvent.objects.count()
    answer = _post(_client(cast, "viewer"), VALIDATE, {"documents": as_body(folder("reference-4.5"))})

    assert answer.json() == {"isValid": True, "errors": []}
    assert not Map.objects.exists()
    assert AuditEvent.objects.count() == events


def test_validate_tells_every_fault_with_its_place(cast: Cast) -> None:
    documents = [SourceFile("a.yaml", "a: [\n"), component("b", host=7)]
    answer = _post(_client(cast, "viewer"), VALIDATE, {"documents": as_body(documents)})

    assert (answer.status_code, answer.json()["isValid"]) == (200, False)
    first, second = answer.json()["errors"]
    assert (first["file"], first["line"]) == ("a.yaml", 2)
    assert second["key"] == "spec.host"
    assert second["message"].startswith("components/b.yaml:1:")
    assert second.keys() == {"file", "line", "column", "key", "found", "expected", "message"}


def test_validate_says_so_of_an_empty_document(cast: Cast) -> None:
    body = {"documents": [{"path": "a.yaml", "content": ""}]}
    [error] = _post(_client(cast, "viewer"), VALIDATE, body).json()["errors"]
    assert error["found"] == "no component"


def test_schema_is_public_and_a_valid_json_schema(client: Client) -> None:
    answer = client.get("/api/v1/schemas/map-document.json")

    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/schema+json"
    schema = answer.json()
    Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert not Draft202012Validator(schema).is_valid({"kind": "Component"})
