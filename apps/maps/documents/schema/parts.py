"""The small schemas that the others are made of."""

from __future__ import annotations

from typing import Any

# The lengths are those of the columns (apps.maps.models). `$` alone would let a line break through at the end.
NAME = {
    "type": "string",
    "pattern": r"^[a-z0-9]([a-z0-9._-]*[a-z0-9])?$(?!\n)",
    "maxLength": 120,
    "expected": "a name of a-z, 0-9, '.', '_' and '-' that begins and ends with a letter or digit",
}
GROUP_NAME = {**NAME, "maxLength": 80}
IDENTIFIER = {
    "pattern": r"^[a-z0-9_]{1,60}$(?!\n)",
    "expected": "a name of at most 60 of a-z, 0-9 and '_'",
}
TEXT = {"type": "string", "minLength": 1}
FREE_TEXT = {"type": "string", "maxLength": 10_000}
PORT = {"type": "integer", "minimum": 1, "maximum": 65535}
STRINGS = {"type": "array", "items": {"type": "string"}, "maxItems": 1_000}
STRING_MAP = {"type": "object", "additionalProperties": {"type": "string"}, "maxProperties": 1_000}
MILLISECONDS = {"type": "integer", "minimum": 1, "maximum": 86_400_000}
BOOL = {"type": "boolean"}


def key(schema: dict[str, Any], description: str, *examples: Any) -> dict[str, Any]:
    """A key's schema with what an editor shows beside it."""
    return {**schema, "description": description, **({"examples": list(examples)} if examples else {})}


def closed(properties: dict[str, Any], required: tuple[str, ...] = ()) -> dict[str, Any]:
    """An object that has these keys and no others."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


def by_type(variants: dict[str, dict[str, Any]], common: dict[str, Any], description: str) -> dict[str, Any]:
    """An object whose `type` decides which other keys it has."""
    cases = [
        {
            "if": {"properties": {"type": {"const": name}}, "required": ["type"]},
            "then": closed({"type": {}, **common, **variant["keys"]}, tuple(variant.get("required", ()))),
        }
        for name, variant in variants.items()
    ]
    return {
        "type": "object",
        "description": description,
        "properties": {"type": {"enum": list(variants)}},
        "required": ["type"],
        "allOf": cases,
    }
