"""Every message as it looks on the wire: examples of each are kept in `golden/messages.json`.

A changed golden file is a changed protocol: other versions of agents, gateways and backends read the same bytes.
"""

from __future__ import annotations

import dataclasses
import json
import typing
from pathlib import Path
from typing import Any

import pytest

from opsmap_protocol import checks, messages, specs
from opsmap_protocol.codec import build, decode, encode, to_plain

GOLDEN: dict[str, list[dict[str, Any]]] = json.loads(
    (Path(__file__).parent / "golden" / "messages.json").read_text(encoding="utf-8")
)
DIRECTIONS = {
    "from agent": messages.FROM_AGENT,
    "to agent": messages.TO_AGENT,
    "from gateway": messages.FROM_GATEWAY,
    "to gateway": messages.TO_GATEWAY,
    "from enrolling": messages.FROM_ENROLLING,
    "to enrolling": messages.TO_ENROLLING,
}
ALL = {member.type: member for union in DIRECTIONS.values() for member in typing.get_args(union)}
EXAMPLES = [pytest.param(name, example, id=name) for name, examples in GOLDEN.items() for example in examples]
PARTS = [
    *typing.get_args(messages.EventBody),
    *typing.get_args(checks.CompletionCheck),
    *typing.get_args(checks.Probe),
    *typing.get_args(specs.CommandSpec),
    *typing.get_args(specs.ExecutionMode),
]


def test_every_message_has_an_example() -> None:
    assert sorted(GOLDEN) == sorted(ALL)


def test_every_kind_of_part_is_in_some_example() -> None:
    seen: set[str] = set()

    def collect(value: Any) -> None:
        if isinstance(value, dict):
            seen.add(str(value.get("type")))
            for item in value.values():
                collect(item)
        elif isinstance(value, list):
            for item in value:
                collect(item)

    collect(list(GOLDEN.values()))
    assert {part.type for part in PARTS} <= seen


@pytest.mark.parametrize(("name", "example"), EXAMPLES)
def test_example_becomes_the_message_and_back(name: str, example: dict[str, Any]) -> None:
    message = decode(json.dumps(example), ALL[name])
    assert type(message) is ALL[name]
    assert to_plain(message) == example
    assert json.loads(encode(message)) == example


@pytest.mark.parametrize(("name", "example"), EXAMPLES)
def test_every_field_of_a_message_is_in_its_example(name: str, example: dict[str, Any]) -> None:
    assert set(example) == {field.name for field in dataclasses.fields(ALL[name])} | {"type"}


@pytest.mark.parametrize(("name", "example"), EXAMPLES)
def test_optional_fields_may_be_left_out(name: str, example: dict[str, Any]) -> None:
    cls = ALL[name]
    required = {field.name for field in dataclasses.fields(cls) if _is_required(field)}
    message = build(cls, {key: value for key, value in example.items() if key in required})
    for field in dataclasses.fields(cls):
        if field.default is not dataclasses.MISSING:
            assert getattr(message, field.name) == field.default


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_message_is_found_by_its_type_in_each_direction(direction: str) -> None:
    union = DIRECTIONS[direction]
    for member in typing.get_args(union):
        assert type(decode(json.dumps(GOLDEN[member.type][0]), union)) is member


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
