"""From a component's document to commands ready for delivery: every kind, and the defaults of SPEC 4.1."""

from __future__ import annotations

from typing import Any

import pytest

from apps.maps.documents.commands import PreparedCommand, health_check, prepare_command
from apps.maps.documents.loading import load_map
from apps.maps.tests.factories import component, folder


def _prepared(name: str, command: dict[str, Any], **spec: Any) -> PreparedCommand:
    """As it is done to a stored spec: through the validator first."""
    parsed, faults = load_map([component("api", commands={name: command}, **spec)])
    assert faults == []
    assert parsed is not None
    prepared = prepare_command(parsed.components[0].spec, name)
    assert prepared is not None
    assert prepared.name == name
    return prepared


NOTHING = {"args": [], "env": {}, "working_dir": None, "run_as_user": None}
PROGRAM = {"command": "/opt/api/run"}


@pytest.mark.parametrize(
    ("command", "spec", "summary"),
    [
        (
            {"command": "systemctl start trading-api"},
            {"type": "execute", "path": "systemctl", **NOTHING, "args": ["start", "trading-api"]},
            "systemctl start trading-api",
        ),
        (
            {
                "command": "/opt/run --name 'two words'",
                "args": ["$HOME", "a b"],
                "env": {"LANG": "C"},
                "workingDir": "/srv",
                "runAsUser": "trading",
            },
            {
                "type": "execute",
                "path": "/opt/run",
                "args": ["--name", "two words", "$HOME", "a b"],
                "env": {"LANG": "C"},
                "working_dir": "/srv",
                "run_as_user": "trading",
            },
            "/opt/run --name 'two words' '$HOME' 'a b'",
        ),
        (
            {"command": "echo x; rm -rf / | cat > y"},
            {"type": "execute", "path": "echo", **NOTHING, "args": ["x;", "rm", "-rf", "/", "|", "cat", ">", "y"]},
            "echo 'x;' rm -rf / '|' cat '>' y",
        ),
        (
            {"script": "/opt/start.sh", "args": ["--fast"]},
            {"type": "script", "path": "/opt/start.sh", **NOTHING, "args": ["--fast"]},
            "/opt/start.sh --fast",
        ),
        (
            {"script": {"path": "/opt/start.py", "interpreter": "python3"}, "env": {"A": "1"}},
            {"type": "script", "path": "/opt/start.py", "interpreter": "python3", **NOTHING, "env": {"A": "1"}},
            "/opt/start.py",
        ),
        (
            {"script": {"content": "#!/bin/sh\necho hi\n"}, "args": ["a b"]},
            {"type": "script", "content": "#!/bin/sh\necho hi\n", **NOTHING, "args": ["a b"]},
            "(inline script) 'a b'",
        ),
        (
            {"service": {"name": "nginx"}},
            {"type": "service_control", "service_name": "nginx", "action": "start"},
            "service nginx: start",
        ),
        (
            {"service": {"name": "nginx", "action": "restart"}},
            {"type": "service_control", "service_name": "nginx", "action": "restart"},
            "service nginx: restart",
        ),
        (
            {"native": {"name": "process_kill", "params": {"pid": 7}}},
            {"type": "native", "name": "process_kill", "params": {"pid": 7}},
            "native process_kill",
        ),
        (
            {"native": {"name": "uptime"}},
            {"type": "native", "name": "uptime", "params": {}},
            "native uptime",
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_each_kind_becomes_its_form_on_the_wire(command: dict[str, Any], spec: dict[str, Any], summary: str) -> None:
    prepared = _prepared("start", command)
    assert (prepared.spec, prepared.summary) == (spec, summary)


def test_component_without_the_command_has_none() -> None:
    assert prepare_command({"type": "service"}, "start") is None
    assert prepare_command({"type": "service", "commands": {"start": PROGRAM}}, "stop") is None


def test_preparing_leaves_the_stored_spec_as_it_was() -> None:
    spec = {"type": "service", "commands": {"start": {"command": "run", "args": ["a"], "env": {"A": "1"}}}}
    prepared = prepare_command(spec, "start")
    assert prepared is not None
    prepared.spec["args"].append("b")
    prepared.spec["env"]["B"] = "2"
    assert spec["commands"] == {"start": {"command": "run", "args": ["a"], "env": {"A": "1"}}}


SERVICE = {"service": {"name": "nginx"}}


@pytest.mark.parametrize(
    ("name", "command", "mode"),
    [
        ("start", PROGRAM, "async"),
        ("stop", PROGRAM, "async"),
        ("restart", PROGRAM, "async"),
        ("status", PROGRAM, "sync"),
        ("start", {"script": "/x.sh"}, "async"),
        ("status", {"script": "/x.sh"}, "sync"),
        ("start", SERVICE, "async"),
        ("stop", SERVICE, "async"),
        ("restart", SERVICE, "async"),
        ("status", SERVICE, "sync"),
        ("start", {"service": {"name": "nginx", "action": "status"}}, "sync"),
        ("start", {"native": {"name": "uptime"}}, "sync"),
        ("stop", {"native": {"name": "process_kill"}}, "sync"),
    ],
)
def test_mode_without_a_declaration(name: str, command: dict[str, Any], mode: str) -> None:
    assert _prepared(name, command).execution["type"] == mode


@pytest.mark.parametrize(("name", "declared"), [("start", "sync"), ("status", "async")])
def test_declared_mode_wins(name: str, declared: str) -> None:
    assert _prepared(name, PROGRAM | {"execution": {"mode": declared}}).execution["type"] == declared


def test_times_without_a_declaration() -> None:
    assert _prepared("status", PROGRAM).execution == {"type": "sync", "timeout_ms": 30_000}
    assert _prepared("start", PROGRAM).execution == {
        "type": "async",
        "completion_check": None,
        "poll_interval_ms": 2_000,
        "max_wait_ms": 300_000,
    }


def test_declared_times_and_check_are_kept() -> None:
    check = {"type": "any", "checks": [{"type": "file_exists", "path": "/run/api.pid"}]}
    execution = {"mode": "async", "completion_check": check, "poll_interval_ms": 500, "max_wait_ms": 60_000}
    assert _prepared("start", PROGRAM | {"execution": execution}).execution == {
        "type": "async",
        "completion_check": check,
        "poll_interval_ms": 500,
        "max_wait_ms": 60_000,
    }


@pytest.mark.parametrize(
    ("execution", "timeout_ms"),
    [({"mode": "sync", "timeout_ms": 5_000}, 5_000), ({"mode": "async", "max_wait_ms": 7_000}, 7_000)],
)
def test_timeout_is_that_of_the_mode(execution: dict[str, Any], timeout_ms: int) -> None:
    assert _prepared("start", PROGRAM | {"execution": execution}).timeout_ms == timeout_ms
    assert _prepared("start", PROGRAM).timeout_ms == 300_000


TCP = {"type": "tcp", "port": 5432}
HTTP = {"type": "http", "url": "http://localhost:8080/health", "expected_status": 204, "body_contains": "UP"}
PROCESS = {"type": "process", "process_name": "java"}
HEALTH_SERVICE = {"type": "service", "service_name": "api"}
FILE = {"type": "file", "path": "/run/api.pid", "should_exist": True}
COMMAND = {"type": "command", "command": "pg_isready", "args": ["-q"], "expected_exit_code": 0}


def _after(name: str, health: dict[str, Any] | None, command: dict[str, Any] | None = None) -> Any:
    spec = {"healthcheck": health | {"interval_ms": 1000}} if health else {}
    return _prepared(name, command or PROGRAM, **spec).execution["completion_check"]


@pytest.mark.parametrize("health", [None, TCP, HTTP])
def test_service_is_done_when_it_has_the_status_asked_for(health: dict[str, Any] | None) -> None:
    for name, expected in [("start", "running"), ("restart", "running"), ("stop", "stopped")]:
        assert _after(name, health, SERVICE) == {
            "type": "service_status",
            "service_name": "nginx",
            "expected_status": expected,
        }


@pytest.mark.parametrize(
    ("health", "check"),
    [
        (TCP, {"type": "port_open", "port": 5432, "host": "localhost", "should_be_open": True}),
        (TCP | {"host": "::1"}, {"type": "port_open", "port": 5432, "host": "::1", "should_be_open": True}),
        (HTTP, HTTP | {"type": "http_healthy"}),
        ({"type": "http", "url": "http://x/"}, {"type": "http_healthy", "url": "http://x/"}),
        (PROCESS, {"type": "process_running", "process_name": "java"}),
        (HEALTH_SERVICE, {"type": "service_status", "service_name": "api", "expected_status": "running"}),
        (FILE, FILE | {"type": "file_exists"}),
        (COMMAND, COMMAND | {"type": "custom_command"}),
        (None, None),
    ],
)
@pytest.mark.parametrize("name", ["start", "restart"])
def test_program_is_up_when_its_health_check_passes(name: str, health: Any, check: Any) -> None:
    assert _after(name, health) == check


@pytest.mark.parametrize(
    ("health", "check"),
    [
        (TCP, {"type": "port_open", "port": 5432, "host": "localhost", "should_be_open": False}),
        (PROCESS, {"type": "process_stopped", "process_name": "java"}),
        (HEALTH_SERVICE, {"type": "service_status", "service_name": "api", "expected_status": "stopped"}),
        # Their failing has many meanings: the exit code of the stop decides.
        (HTTP, None),
        (FILE, None),
        (COMMAND, None),
        (None, None),
    ],
)
def test_program_is_down_when_the_opposite_of_its_health_check_holds(health: Any, check: Any) -> None:
    assert _after("stop", health) == check


def test_default_checks_are_such_as_a_document_could_declare() -> None:
    for health in (TCP, HTTP, PROCESS, HEALTH_SERVICE, FILE, COMMAND):
        for name in ("start", "stop"):
            check = _after(name, health)
            declared = {"execution": {"mode": "async", "completion_check": check}} if check else {}
            assert _after(name, None, PROGRAM | declared) == check


def test_example_of_the_reference_prepares_all_four_commands() -> None:
    parsed, _ = load_map(folder("reference-4.5"), default_name="M")
    assert parsed is not None
    spec = parsed.components[0].spec

    prepared = {name: prepare_command(spec, name) for name in ("start", "stop", "restart", "status")}

    assert {name: item.summary for name, item in prepared.items() if item} == {
        "start": "systemctl start trading-api",
        "stop": "systemctl stop trading-api",
        "restart": "systemctl restart trading-api",
        "status": "systemctl is-active trading-api",
    }
    assert [item.timeout_ms for item in prepared.values() if item] == [120_000, 60_000, 180_000, 5_000]
    assert [item.execution["type"] for item in prepared.values() if item] == ["async", "async", "async", "sync"]


def test_health_check_is_a_probe_with_its_timing() -> None:
    parsed, _ = load_map(folder("reference-4.5"), default_name="M")
    assert parsed is not None
    assert health_check(parsed.components[0].spec, "c-1") == {
        "check_id": "c-1",
        "probe": {"type": "http", "url": "http://localhost:8080/health", "expected_status": 200},
        "interval_ms": 30_000,
        "timeout_ms": 10_000,
        "failure_threshold": 3,
    }
    assert health_check({"type": "x", "healthcheck": TCP}, "c-2") == {"check_id": "c-2", "probe": TCP}
    assert health_check({"type": "x"}, "c-3") is None
