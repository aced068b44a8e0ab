"""What agents look at: completion checks of commands (SPEC 4.2) and health checks (SPEC 5.3)."""

from __future__ import annotations

from typing import Any

from apps.maps.documents.schema.parts import BOOL, MILLISECONDS, PORT, STRINGS, TEXT, by_type, key

_SERVICE_STATES = ["running", "stopped", "starting", "stopping", "failed", "unknown"]
_URL = {"type": "string", "pattern": "^https?://", "expected": "an address that begins with http:// or https://"}
_HTTP = {
    "url": key(_URL, "Asked for from the component's host.", "http://localhost:8080/health"),
    "expected_status": key({"type": "integer", "minimum": 100, "maximum": 599}, "The HTTP status that is well.", 200),
    "body_contains": key(TEXT, "Text that the answer must have in it.", '"status":"UP"'),
}
_PROGRAM = {
    "command": key(TEXT, "A program; it is run without a shell.", "pg_isready"),
    "args": key(STRINGS, "Its arguments, one each.", ["-q"]),
    "expected_exit_code": key({"type": "integer"}, "The exit code that is well; 0 if not given.", 0),
}
_FILE = {"path": key(TEXT, "A path on the host.", "/run/api.pid"), "should_exist": key(BOOL, "true if not given.")}
_PROCESS = {"process_name": key(TEXT, "The name of a process.", "java")}
_SERVICE = {"service_name": key(TEXT, "A unit of systemd.", "trading-api")}
_TCP = {"port": key(PORT, "A TCP port.", 5432), "host": key(TEXT, "localhost if not given.", "localhost")}
_CHECKS: dict[str, Any] = {
    "type": "array",
    "minItems": 1,
    "maxItems": 50,
    "items": {"$ref": "#/$defs/completionCheck"},
    "description": "Further checks; they may be nested.",
}

COMPLETION_CHECK = by_type(
    {
        "process_running": {"keys": {**_PROCESS, "listening_port": PORT}, "required": ["process_name"]},
        "process_stopped": {"keys": _PROCESS, "required": ["process_name"]},
        "service_status": {
            "keys": {**_SERVICE, "expected_status": {"enum": _SERVICE_STATES}},
            "required": ["service_name", "expected_status"],
        },
        "http_healthy": {"keys": _HTTP, "required": ["url"]},
        "file_exists": {"keys": _FILE, "required": ["path"]},
        "port_open": {"keys": {**_TCP, "should_be_open": BOOL}, "required": ["port"]},
        "custom_command": {"keys": _PROGRAM, "required": ["command"]},
        "all": {"keys": {"checks": _CHECKS}, "required": ["checks"]},
        "any": {"keys": {"checks": _CHECKS}, "required": ["checks"]},
    },
    {},
    "What must hold for a command to be done.",
)

HEALTHCHECK = by_type(
    {
        "http": {"keys": _HTTP, "required": ["url"]},
        "tcp": {"keys": _TCP, "required": ["port"]},
        "process": {"keys": _PROCESS, "required": ["process_name"]},
        "service": {"keys": _SERVICE, "required": ["service_name"]},
        "command": {"keys": _PROGRAM, "required": ["command"]},
        "file": {"keys": _FILE, "required": ["path"]},
    },
    {
        "interval_ms": key({**MILLISECONDS, "minimum": 250}, "From one check to the next.", 30_000),
        "timeout_ms": key(MILLISECONDS, "When an answer is too late.", 10_000),
        "failure_threshold": key(
            {"type": "integer", "minimum": 1, "maximum": 100}, "How many failures in a row make it unhealthy.", 3
        ),
    },
    "How the agent of the host sees whether the component is well.",
)
