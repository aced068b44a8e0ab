"""A found component as the spec that a person could have written."""

from __future__ import annotations

import shlex
from typing import Any

from apps.maps.importing.drafts import GROUPS
from apps.proposals.drafting.catalogue import ANSWERS
from apps.proposals.drafting.host import DraftComponent

_KEYS = {
    name: place
    for place, name in enumerate(
        (
            *("type", "name", "version", "host", "group", "technology", "commands", "healthcheck"),
            *("start", "stop", "restart", "status", "service", "command"),
            *("port", "url", "expected_status", "service_name", "process_name"),
        )
    )
}
_STATUS = {"docker": ("container", "top"), "podman": ("container", "top")}


def spec_of(found: DraftComponent, *, host: str) -> dict[str, Any]:
    """Without dependencies. What nobody knows is left out: a component without commands is watched only."""
    spec: dict[str, Any] = {"type": found.type, "host": host, "group": GROUPS.get(found.type, "services")}
    if found.technology:
        spec["technology"] = {"name": found.technology, **({"version": found.version} if found.version else {})}
    commands = _commands(found)
    if commands:
        spec["commands"] = commands
    check = _health_check(found)
    if check:
        spec["healthcheck"] = check
    return spec


def in_order(value: Any) -> Any:
    """The keys of a spec as people write them. The database keeps what they say, and not their order."""
    if not isinstance(value, dict):
        return value
    return {key: in_order(value[key]) for key in sorted(value, key=lambda key: (_KEYS.get(key, len(_KEYS)), key))}


def _commands(found: DraftComponent) -> dict[str, Any]:
    if found.unit:
        return {name: {"service": {"name": found.unit}} for name in ("start", "stop", "restart", "status")}
    if found.container is not None:
        engine, name = found.container
        commands = {action: {"command": shlex.join([engine, action, name])} for action in ("start", "stop", "restart")}
        # Fails if it does not run, unlike `inspect`.
        return commands | {"status": {"command": shlex.join([engine, *_STATUS[engine], name])}}
    return {}


def _health_check(found: DraftComponent) -> dict[str, Any] | None:
    port, usual = found.main_port, ANSWERS.get(found.technology)
    if port is not None and usual is not None and usual.path and usual.port == port:
        return {"type": "http", "url": f"http://localhost:{port}{usual.path}", "expected_status": 200}
    if port is not None:
        return {"type": "tcp", "port": port}
    if found.unit:
        return {"type": "service", "service_name": found.unit}
    if len(found.processes) == 1:
        return {"type": "process", "process_name": next(iter(found.processes))}
    return None
