"""The published schema: what editors show of it, and that the page and the files about it are right."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from apps.maps.documents.loading import load_map
from apps.maps.documents.reading import SourceFile, read_documents
from apps.maps.documents.schema import KINDS, SCHEMA, SCHEMA_ID
from apps.maps.documents.validation import validate_document
from apps.maps.tests.factories import component

DOCS = Path(__file__).resolve().parents[3] / "docs"
# The names of these say all there is to say.
SPEAKING = {"name", "title", "type", "mode", "kind", "action", "params", "path", "content", "interpreter", "component"}
SPEAKING |= {"labels", "listening_port", "expected_status", "should_be_open", "metadata", "spec", "checks", "default"}
SPEAKING |= {"minimum", "maximum", "choices", "maxLength", "version", "execution", "restart", "start", "stop", "status"}
SPEAKING |= {"healthcheck", "completion_check", "overrides"}


def _properties(schema: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(schema, dict):
        for name, inner in (schema.get("properties") or {}).items():
            yield f"{path}.{name}", inner
        for key, inner in schema.items():
            yield from _properties(inner, f"{path}.{key}")
    elif isinstance(schema, list):
        for item in schema:
            yield from _properties(item, path)


def test_keys_that_do_not_speak_for_themselves_are_described() -> None:
    silent = {
        path
        for path, schema in _properties(SCHEMA)
        if path.rpartition(".")[2] not in SPEAKING and "description" not in schema and "const" not in schema
    }
    assert silent == set()


def test_examples_are_such_as_the_schema_allows() -> None:
    described = [(path, schema) for path, schema in _properties(SCHEMA) if "examples" in schema]
    assert len(described) > 30
    for path, schema in described:
        validator = Draft202012Validator({**schema, "$defs": SCHEMA["$defs"]})
        assert [path for example in schema["examples"] if not validator.is_valid(example)] == []


def test_every_kind_is_published_with_its_name() -> None:
    assert {case["if"]["properties"]["kind"]["const"] for case in SCHEMA["allOf"]} == set(KINDS)
    assert SCHEMA["$id"] == SCHEMA_ID


def test_file_for_editors_is_the_schema() -> None:
    assert json.loads((DOCS / "schemas" / "v1" / "map-document.json").read_text()) == SCHEMA


def _examples() -> list[str]:
    return re.findall(r"```yaml\n(.*?)```", (DOCS / "documents.md").read_text(), re.DOTALL)


@pytest.mark.parametrize("text", _examples(), ids=range(len(_examples())))
def test_example_of_the_page_is_valid(text: str) -> None:
    if "apiVersion" not in text:
        body = "".join(f"  {line}\n" for line in text.splitlines())
        text = f"apiVersion: opsmap.io/v1\nkind: Component\nmetadata: {{name: a}}\nspec:\n  type: x\n{body}"
    documents, faults = read_documents(SourceFile("page.yaml", text))
    assert faults == []
    assert [fault.message for document in documents for fault in validate_document(document)] == []


def test_permissions_are_kept_as_they_are() -> None:
    grants = [
        {
            "user": "operator@example.com",
            "role": "operator",
            "expiresAt": "2027-01-31T18:00:00+01:00",
            "overrides": [
                {"component": "db", "deny": ["stop", "restart"], "actions": {"restore": "deny"}},
                {"component": "api", "allow": ["view", "logs"]},
            ],
        },
        {"group": "trading-ops", "role": "restricted_operator"},
    ]
    document = {"apiVersion": "opsmap.io/v1", "kind": "Permissions", "spec": {"permissions": grants}}
    sources = [
        SourceFile("permissions.yaml", json.dumps(document)),
        component("db", actions={"restore": {"command": "restore"}}),
        component("api"),
    ]
    parsed, faults = load_map(sources, default_name="M")
    assert faults == []
    assert parsed is not None
    assert parsed.permissions == tuple(grants)


def test_permissions_wait_until_all_components_are_readable() -> None:
    """An override may be about a component whose own document has a fault: that is told, and nothing that follows."""
    document = "apiVersion: opsmap.io/v1\nkind: Permissions\nspec:\n  permissions:\n"
    document += "    - {group: g, role: viewer, overrides: [{component: db, deny: [stop]}]}\n"
    faults = load_map([SourceFile("p.yaml", document), component("db", colour="red")])[1]
    assert [fault.key for fault in faults] == ["spec.colour"]
