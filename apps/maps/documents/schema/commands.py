"""Commands and actions: what is run, how, and when it is done (SPEC 3.1, 4.1, 4.5)."""

from __future__ import annotations

from apps.maps.documents.schema.parameters import MAX_PARAMETERS
from apps.maps.documents.schema.parts import (
    BOOL,
    FREE_TEXT,
    IDENTIFIER,
    MILLISECONDS,
    STRING_MAP,
    STRINGS,
    TEXT,
    closed,
    key,
)

EXECUTION = {
    "type": "object",
    "description": "sync: the answer is the result. async: a detached process and a completion check.",
    "properties": {"mode": {"enum": ["sync", "async"]}},
    "required": ["mode"],
    "allOf": [
        {
            "if": {"properties": {"mode": {"const": "sync"}}, "required": ["mode"]},
            "then": closed(
                {"mode": {}, "timeout_ms": key({**MILLISECONDS, "maximum": 60_000}, "30,000 if not given.", 5_000)}
            ),
        },
        {
            "if": {"properties": {"mode": {"const": "async"}}, "required": ["mode"]},
            "then": closed(
                {
                    "mode": {},
                    "completion_check": {"$ref": "#/$defs/completionCheck"},
                    "poll_interval_ms": key(MILLISECONDS, "2,000 if not given.", 2_000),
                    "max_wait_ms": key(MILLISECONDS, "300,000 if not given.", 120_000),
                }
            ),
        },
    ],
}

COMMAND_KINDS = ("command", "script", "service", "native")

_SERVICE_ACTIONS = ["start", "stop", "restart", "status"]

_COMMAND_KEYS = {
    "command": key(
        TEXT, "A program and its arguments, split as a shell would but run without one.", "systemctl start trading-api"
    ),
    "script": {
        "type": ["string", "object"],
        "description": "A script on the host by its path, or its text as `content`.",
        "minLength": 1,
        "properties": {"path": TEXT, "content": TEXT, "interpreter": TEXT},
        "additionalProperties": False,
        "minProperties": 1,
    },
    "service": {
        **closed({"name": TEXT, "action": {"enum": _SERVICE_ACTIONS}}, ("name",)),
        "description": "A service of systemd; the action is the command's name unless given.",
    },
    "native": {
        **closed({"name": TEXT, "params": {"type": "object"}}, ("name",)),
        "description": "A command that is built into the agent.",
    },
    "args": key(STRINGS, "Arguments, one each; nothing in them is interpreted.", ["--level", "{level}"]),
    "env": key(STRING_MAP, "Environment variables.", {"LANG": "C"}),
    "workingDir": key(TEXT, "The folder it runs in.", "/srv/trading"),
    "runAsUser": key(TEXT, "The user it runs as; the agent must allow it.", "trading"),
    "description": key(FREE_TEXT, "What it does, for people."),
    "execution": {"$ref": "#/$defs/execution"},
}

COMMAND = closed(_COMMAND_KEYS)
# A command named start means the action start; an action's own name says nothing about the service.
_ACTION_SERVICE = {**_COMMAND_KEYS["service"], "required": ["name", "action"]}
ACTION = closed(
    {
        **_COMMAND_KEYS,
        "service": _ACTION_SERVICE,
        "confirm": key(BOOL, "Whether a person is asked first."),
        "parameters": {
            "type": "object",
            "description": "What the person is asked for; `{name}` stands for the value.",
            "maxProperties": MAX_PARAMETERS,
            "propertyNames": {
                **IDENTIFIER,
                "pattern": r"^[a-z][a-z0-9_]{0,59}$(?!\n)",
                "expected": "a name of at most 60 of a-z, 0-9 and '_' that begins with a letter",
            },
            "additionalProperties": {"$ref": "#/$defs/parameter"},
        },
    }
)
