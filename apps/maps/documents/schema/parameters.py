"""Typed parameters of an action: what a person is asked for before it runs."""

from __future__ import annotations

from typing import Any

from apps.maps.documents.schema.parts import BOOL, FREE_TEXT, TEXT, by_type, key

MAX_PARAMETERS = 50
MAX_VALUE_CHARACTERS = 1_000

_LENGTH = {"type": "integer", "minimum": 1, "maximum": MAX_VALUE_CHARACTERS}
_VALUE = {"type": "string", "maxLength": MAX_VALUE_CHARACTERS}
_CHOICES: dict[str, Any] = {
    "type": "array",
    "minItems": 1,
    "maxItems": 200,
    "uniqueItems": True,
    "items": {**TEXT, "maxLength": MAX_VALUE_CHARACTERS},
}


def _bounds(kind: str) -> dict[str, Any]:
    return {"keys": {"default": {"type": kind}, "minimum": {"type": kind}, "maximum": {"type": kind}}}


PARAMETER = by_type(
    {
        "string": {
            "keys": {
                "default": _VALUE,
                "pattern": key({**TEXT, "maxLength": 200}, "What the whole value must look like.", "[a-z0-9-]+"),
                "maxLength": key(_LENGTH, f"{MAX_VALUE_CHARACTERS} if not given."),
            }
        },
        "integer": _bounds("integer"),
        "number": _bounds("number"),
        "boolean": {"keys": {"default": BOOL}},
        "enum": {"keys": {"choices": _CHOICES, "default": _VALUE}, "required": ["choices"]},
        "host": {"keys": {"default": _VALUE}},
        # A default would be a secret in a document.
        "secret": {"keys": {"maxLength": _LENGTH}},
    },
    {
        "required": key(BOOL, "Whether a value must be given; false if not given."),
        "description": key(FREE_TEXT, "What the person who is asked reads."),
    },
    "A value that is asked for; `{name}` in `args`, `env` or `native.params` stands for it.",
)
