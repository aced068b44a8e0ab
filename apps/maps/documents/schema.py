"""The JSON Schema of Map documents (2020-12). What editors complete and what the validator checks is this one object.

A union (`checks`, `healthcheck`) is written as `type` plus one `if/then` per type instead of `oneOf`, so that an error
can name the one wrong key instead of "matches none of nine schemas".
"""

from __future__ import annotations

from typing import Any

API_VERSION = "opsmap.io/v1"
SCHEMA_ID = "https://opsmap.io/schemas/v1/map-document.json"

# The lengths are those of the columns (apps.maps.models). `$` alone would let a line break through at the end.
NAME = {
    "type": "string",
    "pattern": r"^[a-z0-9]([a-z0-9._-]*[a-z0-9])?$(?!\n)",
    "maxLength": 120,
    "description": "a name of a-z, 0-9, '.', '_' and '-' that begins and ends with a letter or digit",
}
GROUP_NAME = {**NAME, "maxLength": 80}
_TEXT = {"type": "string", "minLength": 1}
_PORT = {"type": "integer", "minimum": 1, "maximum": 65535}
_STRINGS = {"type": "array", "items": {"type": "string"}}
_STRING_MAP = {"type": "object", "additionalProperties": {"type": "string"}}
_MILLISECONDS = {"type": "integer", "minimum": 1, "maximum": 86_400_000}
_BOOL = {"type": "boolean"}
_SERVICE_STATES = ["running", "stopped", "starting", "stopping", "failed", "unknown"]


def _closed(properties: dict[str, Any], required: tuple[str, ...] = ()) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


def _by_type(variants: dict[str, dict[str, Any]], common: dict[str, Any]) -> dict[str, Any]:
    """An object whose `type` decides which other keys it has."""
    cases = [
        {
            "if": {"properties": {"type": {"const": name}}, "required": ["type"]},
            "then": _closed({"type": {}, **common, **variant["keys"]}, tuple(variant.get("required", ()))),
        }
        for name, variant in variants.items()
    ]
    return {
        "type": "object",
        "properties": {"type": {"enum": list(variants)}},
        "required": ["type"],
        "allOf": cases,
    }


_CHECKS_LIST = {"type": "array", "minItems": 1, "maxItems": 50, "items": {"$ref": "#/$defs/completionCheck"}}

COMPLETION_CHECK = _by_type(
    {
        "process_running": {
            "keys": {"process_name": _TEXT, "listening_port": _PORT},
            "required": ["process_name"],
        },
        "process_stopped": {"keys": {"process_name": _TEXT}, "required": ["process_name"]},
        "service_status": {
            "keys": {"service_name": _TEXT, "expected_status": {"enum": _SERVICE_STATES}},
            "required": ["service_name", "expected_status"],
        },
        "http_healthy": {
            "keys": {
                "url": {"type": "string", "pattern": "^https?://"},
                "expected_status": {"type": "integer", "minimum": 100, "maximum": 599},
                "body_contains": _TEXT,
            },
            "required": ["url"],
        },
        "file_exists": {"keys": {"path": _TEXT, "should_exist": _BOOL}, "required": ["path"]},
        "port_open": {"keys": {"port": _PORT, "host": _TEXT, "should_be_open": _BOOL}, "required": ["port"]},
        "custom_command": {
            "keys": {"command": _TEXT, "args": _STRINGS, "expected_exit_code": {"type": "integer"}},
            "required": ["command"],
        },
        "all": {"keys": {"checks": _CHECKS_LIST}, "required": ["checks"]},
        "any": {"keys": {"checks": _CHECKS_LIST}, "required": ["checks"]},
    },
    {},
)

HEALTHCHECK = _by_type(
    {
        "http": {
            "keys": {
                "url": {"type": "string", "pattern": "^https?://"},
                "expected_status": {"type": "integer", "minimum": 100, "maximum": 599},
                "body_contains": _TEXT,
            },
            "required": ["url"],
        },
        "tcp": {"keys": {"port": _PORT, "host": _TEXT}, "required": ["port"]},
        "process": {"keys": {"process_name": _TEXT}, "required": ["process_name"]},
        "service": {"keys": {"service_name": _TEXT}, "required": ["service_name"]},
        "command": {
            "keys": {"command": _TEXT, "args": _STRINGS, "expected_exit_code": {"type": "integer"}},
            "required": ["command"],
        },
        "file": {"keys": {"path": _TEXT, "should_exist": _BOOL}, "required": ["path"]},
    },
    {
        "interval_ms": {**_MILLISECONDS, "minimum": 250},
        "timeout_ms": _MILLISECONDS,
        "failure_threshold": {"type": "integer", "minimum": 1, "maximum": 100},
    },
)

EXECUTION = {
    "type": "object",
    "properties": {"mode": {"enum": ["sync", "async"]}},
    "required": ["mode"],
    "allOf": [
        {
            "if": {"properties": {"mode": {"const": "sync"}}},
            "then": _closed({"mode": {}, "timeout_ms": {**_MILLISECONDS, "maximum": 60_000}}),
        },
        {
            "if": {"properties": {"mode": {"const": "async"}}},
            "then": _closed(
                {
                    "mode": {},
                    "completion_check": {"$ref": "#/$defs/completionCheck"},
                    "poll_interval_ms": _MILLISECONDS,
                    "max_wait_ms": _MILLISECONDS,
                }
            ),
        },
    ],
}

COMMAND_KINDS = ("command", "script", "service", "native")

_COMMAND_KEYS = {
    "command": _TEXT,
    "script": {
        "type": ["string", "object"],
        "minLength": 1,
        "properties": {"path": _TEXT, "content": _TEXT, "interpreter": _TEXT},
        "additionalProperties": False,
        "minProperties": 1,
    },
    "service": _closed({"name": _TEXT, "action": {"enum": ["start", "stop", "restart", "status"]}}, ("name",)),
    "native": _closed({"name": _TEXT, "params": {"type": "object"}}, ("name",)),
    "args": _STRINGS,
    "env": _STRING_MAP,
    "workingDir": _TEXT,
    "runAsUser": _TEXT,
    "description": {"type": "string"},
    "execution": {"$ref": "#/$defs/execution"},
}

COMMAND = _closed(_COMMAND_KEYS)
# A command named start means the action start; an action's own name says nothing about the service.
_ACTION_SERVICE = {**_COMMAND_KEYS["service"], "required": ["name", "action"]}
ACTION = _closed({**_COMMAND_KEYS, "service": _ACTION_SERVICE, "confirm": _BOOL, "parameters": {"type": "object"}})

COMPONENT_SPEC = _closed(
    {
        "type": {**_TEXT, "maxLength": 60},
        "host": {**_TEXT, "maxLength": 253},
        "hostSelector": _closed({"labels": {**_STRING_MAP, "minProperties": 1}}, ("labels",)),
        "group": GROUP_NAME,
        "description": {"type": "string"},
        "technology": _closed({"name": _TEXT, "version": {"type": "string"}}, ("name",)),
        "dependsOn": {"type": "array", "items": {"$ref": "#/$defs/dependency"}},
        "commands": _closed({name: {"$ref": "#/$defs/command"} for name in ("start", "stop", "restart", "status")}),
        "actions": {
            "type": "object",
            "propertyNames": {
                "pattern": r"^[a-z0-9_]{1,60}$(?!\n)",
                "description": "a name of at most 60 of a-z, 0-9 and '_'",
            },
            "additionalProperties": {"$ref": "#/$defs/action"},
        },
        "healthcheck": {"$ref": "#/$defs/healthcheck"},
    },
    ("type",),
)

DEPENDENCY = {
    "type": ["string", "object"],
    "properties": {"component": NAME, "kind": {"enum": ["strong", "weak"]}},
    "required": ["component"],
    "additionalProperties": False,
}

MAP_SPEC = _closed(
    {
        "description": {"type": "string"},
        "groups": {
            "type": "array",
            "items": {
                **GROUP_NAME,
                "type": ["string", "object"],
                "properties": {"name": GROUP_NAME, "title": {"type": "string", "maxLength": 120}},
                "required": ["name"],
                "additionalProperties": False,
            },
        },
    }
)

_METADATA = _closed({"name": NAME, "labels": _STRING_MAP, "annotations": _STRING_MAP}, ("name",))
_MAP_METADATA = _closed({**_METADATA["properties"], "name": {**_TEXT, "maxLength": 120}}, ("name",))


def _document(kind: str, metadata: dict[str, Any], spec: dict[str, Any], *, needs_spec: bool) -> dict[str, Any]:
    keys = {"apiVersion": {"const": API_VERSION}, "kind": {"const": kind}, "metadata": metadata, "spec": spec}
    return _closed(keys, ("apiVersion", "kind", "metadata", *(("spec",) if needs_spec else ())))


SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "$id": SCHEMA_ID,
    "title": "OpsMap document",
    "type": "object",
    "properties": {"kind": {"enum": ["Map", "Component"]}},
    "required": ["kind"],
    "allOf": [
        {
            "if": {"properties": {"kind": {"const": "Component"}}, "required": ["kind"]},
            "then": _document("Component", _METADATA, COMPONENT_SPEC, needs_spec=True),
        },
        {
            "if": {"properties": {"kind": {"const": "Map"}}, "required": ["kind"]},
            "then": _document("Map", _MAP_METADATA, MAP_SPEC, needs_spec=False),
        },
    ],
    "$defs": {
        "completionCheck": COMPLETION_CHECK,
        "execution": EXECUTION,
        "command": COMMAND,
        "action": ACTION,
        "healthcheck": HEALTHCHECK,
        "dependency": DEPENDENCY,
    },
}
