"""What a component's document says of its commands, as the plain form that delivery takes.

The form is that of the wire (SPEC 4.5): `{type: execute, path, args, …}` and `{type: async, completion_check, …}`.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Any

DEFAULT_SYNC_TIMEOUT_MS = 30_000
DEFAULT_POLL_INTERVAL_MS = 2_000
DEFAULT_MAX_WAIT_MS = 300_000


@dataclass(frozen=True, slots=True)
class PreparedCommand:
    """A command ready to be queued. `summary` is what a person reads in a plan."""

    name: str
    spec: dict[str, Any]
    execution: dict[str, Any]
    summary: str

    @property
    def timeout_ms(self) -> int:
        return int(self.execution.get("max_wait_ms") or self.execution.get("timeout_ms") or DEFAULT_MAX_WAIT_MS)


def prepare_command(component_spec: dict[str, Any], name: str) -> PreparedCommand | None:
    """The command `name` of a validated component spec, or None if it has none of that name."""
    command = component_spec.get("commands", {}).get(name)
    if command is None:
        return None
    spec = _wire_spec(command, name)
    return PreparedCommand(name, spec, _execution(component_spec, command, spec, name), _summary(spec))


def prepare_action(
    component_spec: dict[str, Any], name: str, action: dict[str, Any], *, shown: dict[str, Any]
) -> PreparedCommand:
    """An action whose placeholders are filled in. The summary is made from `shown`, which has no secret in it.

    An action says nothing of the component's state, so without a completion check its exit code decides.
    """
    spec = _wire_spec(action, name)
    return PreparedCommand(name, spec, _execution({}, action, spec, name), _summary(_wire_spec(shown, name)))


def _wire_spec(command: dict[str, Any], name: str) -> dict[str, Any]:
    common = {
        "args": list(command.get("args", [])),
        "env": dict(command.get("env", {})),
        "working_dir": command.get("workingDir"),
        "run_as_user": command.get("runAsUser"),
    }
    if "command" in command:
        # Split as a shell would, run without one: no expansion, no pipe, nothing to inject.
        path, *arguments = shlex.split(command["command"])
        return {"type": "execute", "path": path, **common, "args": [*arguments, *command.get("args", [])]}
    if "script" in command:
        script = command["script"]
        return {"type": "script", **({"path": script} if isinstance(script, str) else script), **common}
    if "service" in command:
        service = command["service"]
        return {
            "type": "service_control",
            "service_name": service["name"],
            "action": service.get("action", name),
        }
    return {
        "type": "native",
        "name": command["native"]["name"],
        "params": command["native"].get("params", {}),
    }


def _execution(
    component_spec: dict[str, Any], command: dict[str, Any], spec: dict[str, Any], name: str
) -> dict[str, Any]:
    declared = command.get("execution", {})
    mode = declared.get("mode") or _default_mode(spec, name)
    if mode == "sync":
        return {"type": "sync", "timeout_ms": declared.get("timeout_ms", DEFAULT_SYNC_TIMEOUT_MS)}
    return {
        "type": "async",
        "completion_check": declared.get("completion_check") or _default_check(component_spec, spec, name),
        "poll_interval_ms": declared.get("poll_interval_ms", DEFAULT_POLL_INTERVAL_MS),
        "max_wait_ms": declared.get("max_wait_ms", DEFAULT_MAX_WAIT_MS),
    }


def _default_mode(spec: dict[str, Any], name: str) -> str:
    """SPEC 4.1: native and status are quick, everything else may take long."""
    is_quick = spec["type"] == "native" or spec.get("action") == "status" or name == "status"
    return "sync" if is_quick else "async"


def _default_check(component_spec: dict[str, Any], spec: dict[str, Any], name: str) -> dict[str, Any] | None:
    """The completion check when none is given (SPEC 4.1); None lets the exit code decide."""
    is_stop = spec.get("action", name) == "stop"
    if spec["type"] == "service_control":
        expected = "stopped" if is_stop else "running"
        return {"type": "service_status", "service_name": spec["service_name"], "expected_status": expected}
    health = component_spec.get("healthcheck")
    return _check_of_health(health, is_stop=is_stop) if health else None


def _check_of_health(health: dict[str, Any], *, is_stop: bool) -> dict[str, Any] | None:
    """What the health check asks, asked once. After a stop its opposite, where there is exactly one."""

    def given(*keys: str) -> dict[str, Any]:
        return {key: health[key] for key in keys if key in health}

    match health["type"]:
        case "tcp":
            where = {"port": health["port"], "host": health.get("host", "localhost")}
            return {"type": "port_open", **where, "should_be_open": not is_stop}
        case "process":
            return {"type": "process_stopped" if is_stop else "process_running", **given("process_name")}
        case "service":
            expected = "stopped" if is_stop else "running"
            return {"type": "service_status", **given("service_name"), "expected_status": expected}
        case "http" if not is_stop:
            return {"type": "http_healthy", **given("url", "expected_status", "body_contains")}
        case "file" if not is_stop:
            return {"type": "file_exists", **given("path", "should_exist")}
        case "command" if not is_stop:
            return {"type": "custom_command", **given("command", "args", "expected_exit_code")}
    return None


def _summary(spec: dict[str, Any]) -> str:
    match spec["type"]:
        case "execute":
            return shlex.join([spec["path"], *spec["args"]])
        case "script":
            what = shlex.quote(spec["path"]) if spec.get("path") else "(inline script)"
            return " ".join([what, *map(shlex.quote, spec["args"])])
        case "service_control":
            return f"service {spec['service_name']}: {spec['action']}"
    return f"native {spec['name']}"


def health_check(component_spec: dict[str, Any], check_id: str) -> dict[str, Any] | None:
    """The component's health check in the form an agent takes."""
    declared = component_spec.get("healthcheck")
    if declared is None:
        return None
    timing = {key: declared[key] for key in ("interval_ms", "timeout_ms", "failure_threshold") if key in declared}
    probe = {key: value for key, value in declared.items() if key not in timing}
    return {"check_id": check_id, "probe": probe, **timing}
