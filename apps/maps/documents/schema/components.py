"""The spec of a component (SPEC 3.1)."""

from __future__ import annotations

from apps.maps.documents.schema.parts import FREE_TEXT, GROUP_NAME, IDENTIFIER, NAME, STRING_MAP, TEXT, closed, key

COMPONENT_SPEC = closed(
    {
        "type": key({**TEXT, "maxLength": 60}, "What it is; known ones have an icon.", "service", "database", "cache"),
        "host": key({**TEXT, "maxLength": 253}, "Where it runs: a hostname or an agent's id.", "srv-trading-01"),
        "hostSelector": key(
            closed({"labels": {**STRING_MAP, "minProperties": 1}}, ("labels",)),
            "Instead of host: one of the agents that have all these labels.",
            {"labels": {"role": "broker"}},
        ),
        "group": key(GROUP_NAME, "The group it is shown in.", "databases"),
        "description": key(FREE_TEXT, "What it is for."),
        "technology": key(
            closed({"name": TEXT, "version": {"type": "string"}}, ("name",)),
            "What it is made with.",
            {"name": "postgresql", "version": "17"},
        ),
        "dependsOn": {
            "type": "array",
            "description": "The components that it needs.",
            "items": {"$ref": "#/$defs/dependency"},
            "maxItems": 10_000,
        },
        "commands": {
            **closed({name: {"$ref": "#/$defs/command"} for name in ("start", "stop", "restart", "status")}),
            "description": "How it is started, stopped, restarted and looked at.",
        },
        "actions": {
            "type": "object",
            "description": "What else can be done with it.",
            "propertyNames": IDENTIFIER,
            "maxProperties": 200,
            "additionalProperties": {"$ref": "#/$defs/action"},
        },
        "healthcheck": {"$ref": "#/$defs/healthcheck"},
    },
    ("type",),
)

DEPENDENCY = {
    "type": ["string", "object"],
    "description": "A component's name, or {component, kind}; a weak dependency orders and does not spread a failure.",
    "properties": {"component": NAME, "kind": {"enum": ["strong", "weak"]}},
    "required": ["component"],
    "additionalProperties": False,
}
