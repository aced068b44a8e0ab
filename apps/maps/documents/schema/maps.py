"""What a Map's document says of the whole, and who may what on it (SPEC 7.3)."""

from __future__ import annotations

from typing import Any

from apps.maps.documents.schema.parts import BOOL, FREE_TEXT, GROUP_NAME, NAME, TEXT, closed, key

MAX_GROUPS = 1_000
MAX_GRANTS = 5_000

MAP_SPEC = closed(
    {
        "description": key(FREE_TEXT, "What the Map is about."),
        "requireReason": key(
            BOOL, "Whether whoever starts or stops something has to say why; false if not given.", True
        ),
        "groups": {
            "type": "array",
            "description": "The groups in the order they are shown, as a name or as {name, title}.",
            "maxItems": MAX_GROUPS,
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

_VERBS: dict[str, Any] = {
    "type": "array",
    "minItems": 1,
    "uniqueItems": True,
    "items": {"enum": ["view", "start", "stop", "restart", "edit", "logs"]},
}

_OVERRIDE = closed(
    {
        "component": key(NAME, "The component that differs.", "postgresql"),
        "allow": key(_VERBS, "What is allowed besides the role.", ["view", "logs"]),
        "deny": key(_VERBS, "What is denied; it wins over everything that allows.", ["stop", "restart"]),
        "actions": key(
            {"type": "object", "minProperties": 1, "additionalProperties": {"enum": ["allow", "deny"]}},
            "Single actions of the component.",
            {"restore": "deny"},
        ),
    },
    ("component",),
)

_GRANT = closed(
    {
        "user": key({**TEXT, "maxLength": 254}, "A person's email.", "operator@example.com"),
        "group": key({**TEXT, "maxLength": 120}, "A group of the organization.", "trading-ops"),
        "role": {
            "type": "string",
            "pattern": r"^[a-z][a-z0-9_-]{0,59}$(?!\n)",
            "expected": "a role's name of at most 60 of a-z, 0-9, '_' and '-' that begins with a letter",
            "description": "One of the predefined roles or of the organization's own.",
            "examples": ["viewer", "operator", "editor", "admin", "restricted_operator"],
        },
        "expiresAt": key({"type": "string"}, "From this moment on it no longer counts.", "2027-01-31T18:00:00+01:00"),
        "overrides": {"type": "array", "maxItems": 10_000, "items": _OVERRIDE},
    },
    ("role",),
)

PERMISSIONS_SPEC = closed(
    {
        "permissions": {
            "type": "array",
            "description": "Who has which role on this Map, and where it differs.",
            "minItems": 1,
            "maxItems": MAX_GRANTS,
            "items": _GRANT,
        }
    },
    ("permissions",),
)
