"""Typed parameters of actions: what is taken, what is refused, and where a value may end up."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.maps.documents.loading import load_map
from apps.maps.documents.parameters import build_action, check_values
from apps.maps.documents.patterns import matches, pattern_fault
from apps.maps.tests.factories import component


def _spec(action: dict[str, Any], **spec: Any) -> dict[str, Any]:
    """The spec of a component with the action `purge`, through the validator as a stored one is."""
    parsed, faults = load_map([component("api", actions={"purge": action}, **spec)])
    assert faults == []
    assert parsed is not None
    return parsed.components[0].spec


def _faults(declared: dict[str, Any], value: Any, **options: Any) -> list[str]:
    return [fault.message for fault in check_values({"p": declared}, {"p": value}, **options)[1]]


LEVELS = {"type": "enum", "choices": ["low", "high"]}


@pytest.mark.parametrize(
    ("declared", "value"),
    [
        ({"type": "string"}, "any text; $(rm -rf /) | 'quoted'"),
        ({"type": "string"}, ""),
        ({"type": "string", "pattern": "v[0-9]+"}, "v12"),
        ({"type": "integer", "minimum": 1, "maximum": 5}, 5),
        ({"type": "number"}, 0.5),
        ({"type": "number"}, 3),
        ({"type": "boolean"}, False),
        (LEVELS, "low"),
        ({"type": "host"}, "srv-1.example.com"),
        ({"type": "secret"}, "p|$w"),
    ],
)
def test_value_of_the_type_is_taken(declared: dict[str, Any], value: Any) -> None:
    values, faults = check_values({"p": declared}, {"p": value})
    assert (values, faults) == ({"p": value}, [])


@pytest.mark.parametrize(
    ("declared", "value", "message"),
    [
        ({"type": "string"}, 7, "p: found 7, expected text"),
        ({"type": "string"}, "a\nb", 'p: found "a\\nb", expected text of one line without control characters'),
        ({"type": "string"}, "a\0", 'p: found "a\\u0000", expected text of one line without control characters'),
        ({"type": "string"}, "\ud800", 'p: found "\ud800", expected text of one line without control characters'),
        ({"type": "string", "maxLength": 3}, "abcd", 'p: found "abcd", expected at most 3 characters'),
        ({"type": "string", "pattern": "v[0-9]+"}, "v1 ", 'p: found "v1 ", expected text like v[0-9]+'),
        ({"type": "string", "pattern": "a*"}, "a" * 257, f'p: found "{"a" * 76}…, expected at most 256 characters'),
        ({"type": "string", "required": True}, "", 'p: found "", expected something not empty'),
        ({"type": "integer"}, 1.0, "p: found 1.0, expected a whole number"),
        ({"type": "integer"}, True, "p: found true, expected a whole number"),
        ({"type": "integer"}, "1", 'p: found "1", expected a whole number'),
        ({"type": "integer", "minimum": 1}, 0, "p: found 0, expected at least 1"),
        ({"type": "number", "maximum": 0.5}, 0.6, "p: found 0.6, expected at most 0.5"),
        ({"type": "number"}, float("inf"), "p: found Infinity, expected a number"),
        ({"type": "number"}, float("nan"), "p: found NaN, expected a number"),
        ({"type": "boolean"}, 1, "p: found 1, expected true or false"),
        (LEVELS, "hihg", "p: found \"hihg\", expected one of low, high (perhaps 'high')"),
        ({"type": "host"}, "srv 1", 'p: found "srv 1", expected a hostname or an agent\'s id'),
        ({"type": "host"}, "-oProxyCommand=x", 'p: found "-oProxyCommand=x", expected a hostname or an agent\'s id'),
        (
            {"type": "secret", "maxLength": 3},
            "hunter2",
            "p: found a value that is not shown, expected at most 3 characters",
        ),
    ],
)
def test_other_value_is_refused(declared: dict[str, Any], value: Any, message: str) -> None:
    assert _faults(declared, value) == [message]


def test_number_of_thousands_of_digits_is_refused_without_being_read() -> None:
    declared = {"type": "integer"}
    assert check_values({"p": declared}, {"p": 10**400})[1][0].expected == "a number of at most 300 digits"


def test_host_must_be_known_where_hosts_are() -> None:
    message = "p: found \"srv-2\", expected a host that has an agent (perhaps 'srv-1')"
    assert _faults({"type": "host"}, "srv-2", hosts=["srv-1"]) == [message]
    assert _faults({"type": "host"}, "srv-1", hosts=["srv-1"]) == []


def test_all_faults_come_at_once_and_unknown_parameters_are_faults() -> None:
    declared = {"level": LEVELS | {"required": True}, "count": {"type": "integer"}}
    values, faults = check_values(declared, {"levle": "low", "count": "x"})
    assert values == {}
    assert [fault.message for fault in faults] == [
        "levle: found an unknown parameter, expected one of level, count (perhaps 'level')",
        "level: found nothing, expected a value",
        'count: found "x", expected a whole number',
    ]


def test_defaults_fill_in_and_what_has_no_value_is_left_out() -> None:
    action = {
        "command": "/opt/purge --fast",
        "args": ["{level}", "--count={count}", "--note={note}", "{note}"],
        "env": {"NOTE": "{note}", "LANG": "C", "LEVEL": "{level}"},
        "parameters": {
            "level": LEVELS | {"default": "low"},
            "count": {"type": "integer", "default": 3},
            "note": {"type": "string"},
        },
    }
    prepared, faults = build_action(_spec(action), "purge", {})
    assert faults == []
    assert prepared is not None
    assert (prepared.spec["path"], prepared.spec["args"]) == ("/opt/purge", ["--fast", "low", "--count=3"])
    assert prepared.spec["env"] == {"LANG": "C", "LEVEL": "low"}
    assert prepared.summary == "/opt/purge --fast low --count=3"


TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=40)


@settings(max_examples=200)
@given(TEXTS)
def test_whatever_the_text_it_stays_one_argument(text: str) -> None:
    action = {
        "command": "/opt/purge",
        "args": ["--", "{note}", "--note={note}"],
        "env": {"NOTE": "{note}"},
        "parameters": {"note": {"type": "string"}},
    }
    prepared, faults = build_action(_spec(action), "purge", {"note": text})
    assert faults == []
    assert prepared is not None
    assert prepared.spec["args"] == ["--", text, f"--note={text}"]
    assert prepared.spec["env"] == {"NOTE": text}


def test_text_that_would_be_an_option_is_refused_unless_it_cannot_be_one() -> None:
    action = {"command": "/opt/purge", "args": ["{note}"], "parameters": {"note": {"type": "string"}}}
    prepared, [fault] = build_action(_spec(action), "purge", {"note": "--all"})
    assert prepared is None
    assert fault.message == "note: found \"--all\", expected text that does not begin with '-'"
    for safe in (
        action | {"args": ["--", "{note}"]},
        action | {"args": ["--note={note}"]},
        action | {"parameters": {"note": {"type": "string", "pattern": "--[a-z]+"}}},
        action | {"parameters": {"note": {"type": "enum", "choices": ["--all"]}}},
    ):
        assert build_action(_spec(safe), "purge", {"note": "--all"})[1] == []


def test_native_command_gets_typed_values() -> None:
    action = {
        "native": {"name": "file_read", "params": {"path": "{path}", "offset": "{offset}", "limit": 100}},
        "parameters": {"path": {"type": "string"}, "offset": {"type": "integer"}},
    }
    prepared, _ = build_action(_spec(action), "purge", {"path": "/var/log/api.log", "offset": 7})
    assert prepared is not None
    assert prepared.spec["params"] == {"path": "/var/log/api.log", "offset": 7, "limit": 100}
    prepared, _ = build_action(_spec(action), "purge", {"path": "/x"})
    assert prepared is not None
    assert prepared.spec["params"] == {"path": "/x", "limit": 100}


def test_secret_reaches_the_program_and_no_summary() -> None:
    action = {
        "script": {"path": "/opt/login.sh"},
        "args": ["{user}"],
        "env": {"PASSWORD": "{password}"},
        "parameters": {"user": {"type": "string"}, "password": {"type": "secret", "required": True}},
    }
    prepared, _ = build_action(_spec(action), "purge", {"user": "alice", "password": "hunter2"})
    assert prepared is not None
    assert prepared.spec["env"] == {"PASSWORD": "hunter2"}
    assert prepared.summary == "/opt/login.sh alice"
    _, [fault] = build_action(_spec(action), "purge", {"user": "alice", "password": "hunter\n2"})
    assert "hunter" not in fault.message


def test_braces_of_an_action_without_parameters_are_plain_text() -> None:
    action = {"command": "awk", "args": ["{print}", "{{.Names}}", "${HOME}"]}
    prepared, _ = build_action(_spec(action), "purge", {})
    assert prepared is not None
    assert prepared.spec["args"] == ["{print}", "{{.Names}}", "${HOME}"]


def test_shell_may_get_a_value_behind_its_text() -> None:
    action = {
        "command": "sh -c 'echo \"$1\"' _",
        "args": ["{note}"],
        "parameters": {"note": {"type": "string"}},
    }
    prepared, faults = build_action(_spec(action), "purge", {"note": "; reboot"})
    assert faults == []
    assert prepared is not None
    assert prepared.spec["args"] == ["-c", 'echo "$1"', "_", "; reboot"]


def test_unknown_action_and_values_for_an_action_without_parameters_are_faults() -> None:
    spec = _spec({"command": "x"})
    assert build_action(spec, "pruge", {})[1][0].found == "no action 'pruge'"
    [fault] = build_action(spec, "purge", {"a": 1})[1]
    assert fault.message == "a: found an unknown parameter, expected no parameter: the action has none"


def test_action_waits_for_its_own_check_and_not_for_the_health_of_the_component() -> None:
    prepared, _ = build_action(_spec({"command": "x"}, healthcheck={"type": "tcp", "port": 80}), "purge", {})
    assert prepared is not None
    assert (prepared.execution["type"], prepared.execution["completion_check"]) == ("async", None)
    prepared, _ = build_action(_spec({"service": {"name": "nginx", "action": "stop"}}), "purge", {})
    assert prepared is not None
    assert prepared.execution["completion_check"]["expected_status"] == "stopped"


@pytest.mark.parametrize(
    "pattern",
    ["[a-z0-9-]+", r"\d{4}-\d{2}-\d{2}", r"v\d+\.\d+\.\d+", "(?:start|stop)", "[]a]+", r"\(x\)+", "a+?b", "^x$", ""],
)
def test_simple_pattern_is_taken(pattern: str) -> None:
    assert pattern_fault(pattern) is None


@pytest.mark.parametrize(
    "pattern",
    [
        "(a+)+",
        "(a|a)*",
        "(a|aa){2,}",
        "(?=a)a",
        "(?i)a",
        r"(a)\1",
        "a*a*a*a*",
        "(?:a?){9}",
        "[",
        "a{99999999999}",
        "(?P<x>a)",
    ],
)
def test_pattern_that_may_take_for_ever_is_not(pattern: str) -> None:
    assert pattern_fault(pattern) is not None


@pytest.mark.parametrize("pattern", ["a*a*a*b", "[a-z]*[a-y]*[a-x]*!", "(?:.*.*.*)x"])
def test_worst_pattern_that_is_taken_ends_soon(pattern: str) -> None:
    assert pattern_fault(pattern) is None
    began = time.process_time()
    assert not matches(pattern, "a" * 256)
    assert time.process_time() - began < 5
