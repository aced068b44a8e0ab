"""The JSON Schema of Map documents (2020-12). What editors complete and what the validator checks is this one object.

A union (`checks`, `healthcheck`, `parameters`) is written as `type` plus one `if/then` per type instead of `oneOf`, so
that an error can name the one wrong key instead of "matches none of nine schemas".

`description` and `examples` are for people at an editor. `expected`, a keyword of ours, is the end of the sentence
"found …, expected …" where a pattern alone would say nothing.
"""

from __future__ import annotations

from typing import Any

from apps.maps.documents.schema.checks import COMPLETION_CHECK, HEALTHCHECK
from apps.maps.documents.schema.commands import ACTION, COMMAND, COMMAND_KINDS, EXECUTION
from apps.maps.documents.schema.components import COMPONENT_SPEC, DEPENDENCY
from apps.maps.documents.schema.maps import MAP_SPEC, PERMISSIONS_SPEC
from apps.maps.documents.schema.parameters import PARAMETER
from apps.maps.documents.schema.parts import NAME, STRING_MAP, TEXT, closed, key

API_VERSION = "opsmap.io/v1"
SCHEMA_ID = "https://opsmap.io/schemas/v1/map-document.json"
"""The name of the schema. It is served by every installation at /api/v1/schemas/v1/map-document.json."""

KINDS = ("Map", "Component", "Permissions")

_METADATA = closed(
    {
        "name": key(NAME, "What other documents call it, unique in its Map.", "trading-api"),
        "labels": key(STRING_MAP, "Your own words to find it by.", {"team": "trading"}),
        "annotations": key(STRING_MAP, "Notes for other tools; OpsMap keeps and ignores them."),
    },
    ("name",),
)
_FREE_NAME = key({**TEXT, "maxLength": 120}, "As people read it.", "Trading Platform")
_MAP_METADATA = closed({**_METADATA["properties"], "name": _FREE_NAME}, ("name",))


def _document(kind: str, metadata: dict[str, Any], spec: dict[str, Any], required: tuple[str, ...]) -> dict[str, Any]:
    keys = {
        "apiVersion": {"const": API_VERSION, "description": "The version of this format."},
        "kind": {"const": kind},
        "metadata": metadata,
        "spec": spec,
    }
    return {
        "if": {"properties": {"kind": {"const": kind}}, "required": ["kind"]},
        "then": closed(keys, ("apiVersion", "kind", *required)),
    }


SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "$id": SCHEMA_ID,
    "title": "OpsMap document",
    "description": "A Map is a folder of such documents: at most one Map, one for each Component, and Permissions.",
    "type": "object",
    "properties": {
        "kind": {
            "enum": list(KINDS),
            "description": "Map: name and groups of the whole. Component: one part of it. Permissions: who may what.",
        }
    },
    "required": ["kind"],
    "allOf": [
        _document("Component", _METADATA, COMPONENT_SPEC, ("metadata", "spec")),
        _document("Map", _MAP_METADATA, MAP_SPEC, ("metadata",)),
        _document("Permissions", _MAP_METADATA, PERMISSIONS_SPEC, ("spec",)),
    ],
    "$defs": {
        "completionCheck": COMPLETION_CHECK,
        "execution": EXECUTION,
        "command": COMMAND,
        "action": ACTION,
        "parameter": PARAMETER,
        "healthcheck": HEALTHCHECK,
        "dependency": DEPENDENCY,
    },
}

__all__ = ["API_VERSION", "COMMAND_KINDS", "KINDS", "SCHEMA", "SCHEMA_ID"]
