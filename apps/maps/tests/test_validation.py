"""One document against the schema: each kind of fault in one clear line with its place."""

from __future__ import annotations

from typing import Any

import pytest
from jsonschema import Draft202012Validator

from apps.maps.documents.faults import DocumentFault
from apps.maps.documents.loading import load_map
from apps.maps.documents.reading import SourceFile
from apps.maps.documents.schema import SCHEMA
from apps.maps.tests.factories import component

HEADER = "apiVersion: opsmap.io/v1\nkind: Component\nmetadata: {name: api}\nspec:\n  type: service\n"


def _faults(text: str) -> list[DocumentFault]:
    return load_map([SourceFile("api.yaml", text)])[1]


def _messages(spec: str) -> list[str]:
    return [fault.message.removeprefix("api.yaml:") for fault in _faults(HEADER + spec)]


KINDS = "command, script, service, native"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        # unknown key
        (
            "  colour: red\n",
            "6:3: spec.colour: found an unknown key, expected one of actions, commands, dependsOn, description, group",
        ),
        (
            "  technology: {name: x, release: 1}\n",
            "6:25: spec.technology.release: found an unknown key, expected one of name, version",
        ),
        (
            "  commands:\n    launch: {command: x}\n",
            "7:5: spec.commands.launch: found an unknown key, expected one",
        ),
        (
            "  healthcheck: {type: tcp, port: 80, url: x}\n",
            "6:38: spec.healthcheck.url: found an unknown key, expected one of failure_threshold, host, interval_ms",
        ),
        # missing key
        ("  technology: {version: '1'}\n", "6:3: spec.technology: found no key 'name', expected the key 'name'"),
        ("  healthcheck: {type: tcp}\n", "6:3: spec.healthcheck: found no key 'port', expected the key 'port'"),
        ("  healthcheck: {port: 80}\n", "6:3: spec.healthcheck: found no key 'type', expected the key 'type'"),
        ("  hostSelector: {}\n", "6:3: spec.hostSelector: found no key 'labels', expected the key 'labels'"),
        # wrong type
        ("  host: 7\n", "6:3: spec.host: found 7, expected text"),
        ("  host:\n", "6:3: spec.host: found nothing, expected text"),
        ("  technology: {name: java, version: 17}\n", "6:28: spec.technology.version: found 17, expected text"),
        ("  dependsOn: db\n", '6:3: spec.dependsOn: found "db", expected a list'),
        ("  dependsOn: [[db]]\n", '6:15: spec.dependsOn[0]: found ["db"], expected text or a mapping'),
        ("  commands: [x]\n", '6:3: spec.commands: found ["x"], expected a mapping'),
        (
            "  healthcheck: {type: tcp, port: '80'}\n",
            '6:28: spec.healthcheck.port: found "80", expected a whole number',
        ),
        (
            "  actions: {purge: {command: x, confirm: yes}}\n",
            '6:33: spec.actions.purge.confirm: found "yes", expected true or false',
        ),
        # enum
        (
            "  dependsOn: [{component: db, kind: loose}]\n",
            '6:31: spec.dependsOn[0].kind: found "loose", expected one of strong, weak',
        ),
        (
            "  healthcheck: {type: snmp}\n",
            '6:17: spec.healthcheck.type: found "snmp", expected one of http, tcp, process, service, command, file',
        ),
        (
            "  commands: {start: {service: {name: x, action: reload}}}\n",
            '6:41: spec.commands.start.service.action: found "reload", expected one of start, stop, restart, status',
        ),
        # bounds and patterns
        (
            "  healthcheck: {type: tcp, port: 70000}\n",
            "6:28: spec.healthcheck.port: found 70000, expected at most 65535",
        ),
        ("  healthcheck: {type: tcp, port: 0}\n", "6:28: spec.healthcheck.port: found 0, expected at least 1"),
        (
            "  healthcheck: {type: tcp, port: 80, interval_ms: 10}\n",
            "6:38: spec.healthcheck.interval_ms: found 10, expected at least 250",
        ),
        (
            "  healthcheck: {type: http, url: ftp://x}\n",
            '6:29: spec.healthcheck.url: found "ftp://x", expected an address that begins with http:// or https://',
        ),
        ("  group: Front Ends\n", '6:3: spec.group: found "Front Ends", expected a name of a-z, 0-9'),
        ('  group: "web\\n"\n', '6:3: spec.group: found "web\\n", expected a name of a-z, 0-9'),
        ("  host: ''\n", '6:3: spec.host: found "", expected something not empty'),
        (
            "  actions: {Purge: {command: x}}\n",
            '6:13: spec.actions.Purge: found "Purge", expected a name of at most 60',
        ),
        (
            "  commands: {start: {command: x, execution: {mode: sync, timeout_ms: 60001}}}\n",
            "6:58: spec.commands.start.execution.timeout_ms: found 60001, expected at most 60000",
        ),
        (
            "  commands: {start: {command: x, execution: {mode: sync, max_wait_ms: 5}}}\n",
            "6:58: spec.commands.start.execution.max_wait_ms: found an unknown key, expected one of mode, timeout_ms",
        ),
        # commands
        (
            "  commands:\n    start: {command: x, script: y}\n",
            f"7:5: spec.commands.start: found command and script, expected exactly one of {KINDS}",
        ),
        (
            "  commands:\n    start: {args: [x]}\n",
            f"7:5: spec.commands.start: found none of them, expected exactly one of {KINDS}",
        ),
        (
            "  actions:\n    purge: {service: {name: x, action: stop}, native: {name: y}}\n",
            f"7:5: spec.actions.purge: found service and native, expected exactly one of {KINDS}",
        ),
        (
            "  commands:\n    start: {command: '  '}\n",
            '7:13: spec.commands.start.command: found "  ", expected a program and its arguments',
        ),
        (
            "  commands:\n    start: {command: run 'x}\n",
            '7:13: spec.commands.start.command: found "run \'x" (no closing quotation), expected a program and its',
        ),
        (
            "  commands:\n    start: {script: {path: a, content: b}}\n",
            "7:13: spec.commands.start.script: found both, expected either path or content",
        ),
        (
            "  commands:\n    start: {script: {interpreter: sh}}\n",
            "7:13: spec.commands.start.script: found neither of them, expected either path or content",
        ),
        (
            "  host: a\n  hostSelector: {labels: {role: db}}\n",
            "7:3: spec.hostSelector: found host and hostSelector, expected only one of the two",
        ),
    ],
)
def test_fault_names_line_column_key_found_and_expected(spec: str, message: str) -> None:
    [found] = _messages(spec)
    assert found.startswith(message)


def test_fault_in_a_nested_check_points_at_its_key() -> None:
    spec = (
        "  commands:\n    start:\n      command: x\n      execution:\n        mode: async\n"
        "        completion_check:\n          type: all\n          checks:\n"
        "            - {type: port_open, port: 80}\n"
        "            - type: any\n              checks:\n"
        "                - type: http_healthy\n                  uri: http://x\n"
    )
    place = "spec.commands.start.execution.completion_check.checks[1].checks[0]"
    unknown = "found an unknown key, expected one of body_contains, expected_status, type, url (perhaps 'url')"
    assert _messages(spec) == [
        f"17:19: {place}: found no key 'url', expected the key 'url'",
        f"18:19: {place}.uri: {unknown}",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("just text\n", '1:1: found "just text", expected a mapping'),
        ("- a\n", '1:1: found ["a"], expected a mapping'),
        ("---\n---\n", "2:1: found nothing, expected a mapping"),
        ("{}\n", "1:1: found no key 'kind', expected the key 'kind'"),
        ("kind: Permision\n", '1:1: kind: found "Permision", expected one of Map, Component, Permissions (perhaps'),
        ("kind: Map\n", "1:1: found no key 'apiVersion', expected the key 'apiVersion'"),
        (HEADER.replace("/v1", "/v2"), "1:1: apiVersion: found \"opsmap.io/v2\", expected 'opsmap.io/v1'"),
        (HEADER.replace("api}", "Api}"), '3:12: metadata.name: found "Api", expected a name of a-z, 0-9'),
        (HEADER.replace("{name: api}", "{}"), "3:1: metadata: found no key 'name', expected the key 'name'"),
        (
            HEADER.replace("api}", "api, labels: {a: 1}}"),
            "3:32: metadata.labels.a: found 1, expected text",
        ),
        (HEADER.replace("  type: service\n", "  {}\n"), "4:1: spec: found no key 'type', expected the key 'type'"),
    ],
)
def test_fault_of_the_outer_form_is_named(text: str, message: str) -> None:
    assert _faults(text)[0].message.startswith(f"api.yaml:{message}")


def test_missing_spec_of_a_component_is_a_fault() -> None:
    text = HEADER.partition("spec:")[0]
    assert [fault.found for fault in _faults(text)] == ["no key 'spec'"]


def test_all_faults_of_a_document_come_in_the_order_of_its_lines() -> None:
    spec = (
        "  host: 1\n  colour: red\n  group: 2\n  commands:\n    stop: {}\n  healthcheck: {type: tcp, timeout_ms: x}\n"
    )
    lines = [(fault.line, fault.key) for fault in _faults(HEADER + spec)]

    assert lines == [
        (6, "spec.host"),
        (7, "spec.colour"),
        (8, "spec.group"),
        (10, "spec.commands.stop"),
        (11, "spec.healthcheck"),
        (11, "spec.healthcheck.timeout_ms"),
    ]


@pytest.mark.parametrize(
    ("key", "length", "value"),
    [("type", 60, "x"), ("host", 253, "x"), ("group", 80, "x")],
)
def test_text_is_no_longer_than_its_column(key: str, length: int, value: str) -> None:
    def faults(text: str) -> list[str]:
        return [fault.expected for fault in load_map([component("db", **{key: text})])[1]]

    assert faults(value * length) == []
    assert faults(value * (length + 1)) == [f"at most {length} characters"]


@pytest.mark.parametrize(
    ("document", "key"),
    [
        ("metadata: {name: %s}\n", "metadata.name"),
        ("metadata: {name: m}\nspec: {groups: [{name: a, title: %s}]}\n", "spec.groups[0].title"),
    ],
)
def test_names_of_maps_and_titles_of_groups_are_bounded(document: str, key: str) -> None:
    text = "apiVersion: opsmap.io/v1\nkind: Map\n" + document % ("x" * 121)
    [fault] = _faults(text)
    assert (fault.key, fault.expected) == (key, "at most 120 characters")


@pytest.mark.parametrize("group", ["Web Tier", "", "x" * 81])
def test_group_given_as_text_is_a_name_too(group: str) -> None:
    text = f"apiVersion: opsmap.io/v1\nkind: Map\nmetadata: {{name: m}}\nspec:\n  groups: ['{group}']\n"
    [fault] = _faults(text)
    assert (fault.key, fault.line) == ("spec.groups[0]", 5)


def test_long_value_is_cut_in_the_message() -> None:
    [fault] = _faults(HEADER + f"  dependsOn: {'x' * 500}\n")
    assert len(fault.found) == 78
    assert fault.found.endswith("…")


def test_fault_as_json_has_everything_an_editor_needs() -> None:
    [fault] = _faults(HEADER + "  host: 7\n")
    assert fault.as_json() == {
        "file": "api.yaml",
        "line": 6,
        "column": 3,
        "key": "spec.host",
        "found": "7",
        "expected": "text",
        "message": "api.yaml:6:3: spec.host: found 7, expected text",
    }


def test_schema_is_a_valid_json_schema() -> None:
    Draft202012Validator.check_schema(SCHEMA)


def test_schema_alone_tells_good_documents_from_bad() -> None:
    """Editors have the schema and not our code."""
    good: dict[str, Any] = {
        "apiVersion": "opsmap.io/v1",
        "kind": "Component",
        "metadata": {"name": "db"},
        "spec": {"type": "database"},
    }
    validator = Draft202012Validator(SCHEMA)
    assert validator.is_valid(good)
    assert not validator.is_valid(good | {"kind": "Map"})
    assert not validator.is_valid(good | {"extra": 1})
