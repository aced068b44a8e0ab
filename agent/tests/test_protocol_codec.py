"""Frames to messages and back: what is accepted, and what each fault is called."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import types
import typing
from datetime import UTC, datetime, timedelta, timezone
from enum import Enum
from typing import Any, Union

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opsmap_protocol import MAX_FRAME_BYTES, MAX_NESTING
from opsmap_protocol.codec import build, canonical, decode, encode, from_plain, parse, to_plain
from opsmap_protocol.errors import (
    FrameTooLargeError,
    MalformedMessageError,
    ProtocolError,
    UnknownMessageError,
)
from opsmap_protocol.messages import (
    FROM_AGENT,
    FROM_GATEWAY,
    TO_AGENT,
    TO_GATEWAY,
    Command,
    CommandReceived,
    DiscoveryResult,
    Heartbeat,
    Ping,
    Resume,
)

MESSAGES = typing.get_args(FROM_AGENT | TO_AGENT | FROM_GATEWAY | TO_GATEWAY)
RESUME = {
    "type": "resume",
    "target_agent": "srv-1",
    "token": "t-1",
    "incarnation": "i-1",
    "acked_seq": 3,
    "in_use_since": "2026-03-01T03:00:00Z",
}
MAX_DRAWN_DEPTH = 4

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.booleans() | st.integers(-(10**38), 10**38) | NUMBERS | TEXT,
    lambda inner: st.lists(inner | st.none(), max_size=3) | st.dictionaries(TEXT, inner | st.none(), max_size=3),
    max_leaves=5,
)
SCALARS: dict[Any, st.SearchStrategy[Any]] = {
    str: TEXT,
    int: st.integers(-(2**63), 2**63 - 1),
    float: NUMBERS,
    bool: st.booleans(),
    datetime: st.datetimes(
        datetime(1970, 1, 2),  # noqa: DTZ001 - Hypothesis adds the zone
        datetime(9998, 12, 31),  # noqa: DTZ001
        timezones=st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30))]),
    ),
    type(None): st.none(),
    Any: JSON,
}


def values(hint: Any, depth: int = 0) -> st.SearchStrategy[Any]:
    """Anything a field of that type may hold."""
    if hint in SCALARS:
        return SCALARS[hint]
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return st.one_of([values(member, depth) for member in arguments])
    if origin is list:
        # Checks nest in checks without end; the drawn ones end here.
        return st.lists(values(arguments[0], depth + 1), max_size=3) if depth < MAX_DRAWN_DEPTH else st.builds(list)
    if origin is dict:
        return st.dictionaries(TEXT, values(arguments[1], depth + 1), max_size=3)
    if issubclass(hint, Enum):
        return st.sampled_from(hint)
    hints = typing.get_type_hints(hint)
    return st.builds(hint, **{each.name: values(hints[each.name], depth) for each in dataclasses.fields(hint)})


@pytest.mark.parametrize("cls", MESSAGES, ids=lambda cls: str(cls.type))
def test_every_message_survives_the_wire(cls: Any) -> None:
    @settings(max_examples=25, deadline=None, database=None)
    @given(message=values(cls))
    def survives(message: Any) -> None:
        frame = encode(message)
        assert decode(frame, cls) == message
        assert decode(frame.encode(), cls) == message

    survives()


@settings(max_examples=200, deadline=None, database=None)
@given(frame=st.text(max_size=200) | st.binary(max_size=200) | JSON.map(json.dumps))
def test_no_frame_raises_anything_but_a_protocol_error(frame: str | bytes) -> None:
    try:
        decode(frame, FROM_AGENT)
    except ProtocolError:
        return


@settings(max_examples=200, deadline=None, database=None)
@given(member=st.sampled_from(MESSAGES), fields=st.dictionaries(TEXT, JSON, max_size=3), data=st.data())
def test_no_field_raises_anything_but_a_protocol_error(member: Any, fields: Any, data: st.DataObject) -> None:
    plain = {each.name: data.draw(JSON) for each in dataclasses.fields(member)}
    try:
        build(member, plain | fields)
    except ProtocolError:
        return


@pytest.mark.parametrize(
    "frame",
    ["", "garbage", "[]", "null", "7", '"resume"', "{}", '{"type":null}', '{"type":7}', '{"type":["resume"]}', b"\xff"],
)
def test_frame_is_an_object_with_a_type(frame: str | bytes) -> None:
    with pytest.raises(MalformedMessageError):
        parse(frame)


def test_unknown_type_is_told_apart() -> None:
    with pytest.raises(UnknownMessageError) as caught:
        decode('{"type":"teleport"}', FROM_AGENT)
    assert caught.value.type_name == "teleport"
    assert caught.value.code == "unknown_message"


def test_type_of_another_direction_is_unknown() -> None:
    with pytest.raises(UnknownMessageError):
        decode(json.dumps(RESUME), FROM_AGENT)


def test_long_unknown_type_is_cut() -> None:
    with pytest.raises(UnknownMessageError) as caught:
        decode(json.dumps({"type": "x" * 10_000}), FROM_AGENT)
    assert len(str(caught.value)) < 200


def test_unknown_fields_are_ignored_at_every_depth() -> None:
    message = decode(json.dumps(RESUME | {"since": "version 2"}), TO_AGENT)
    assert message == Resume("srv-1", "t-1", "i-1", 3, datetime(2026, 3, 1, 3, tzinfo=UTC))
    nested = {"type": "register", "os": {"os_type": "linux", "flavour": "mint"}}
    with pytest.raises(MalformedMessageError, match=r"^agent_id: expected a value, found null$"):
        decode(json.dumps(nested), FROM_AGENT)


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("target_agent", 7, "target_agent: expected a string, found 7"),
        ("target_agent", None, "target_agent: expected a value, found null"),
        ("acked_seq", "3", 'acked_seq: expected an integer, found "3"'),
        ("acked_seq", 3.0, "acked_seq: expected an integer, found 3.0"),
        ("acked_seq", True, "acked_seq: expected an integer, found true"),
        ("acked_seq", [1], "acked_seq: expected an integer, found [1]"),
    ],
)
def test_wrong_field_is_named(field: str, value: Any, reason: str) -> None:
    with pytest.raises(MalformedMessageError) as caught:
        decode(json.dumps(RESUME | {field: value}), TO_AGENT)
    assert str(caught.value) == reason


def command(**fields: Any) -> str:
    base = {
        "type": "command",
        "request_id": "r-1",
        "target_agent": "srv-1",
        "command": {"type": "native", "name": "uptime"},
        "execution_mode": {"type": "sync"},
        "timeout_ms": 1_000,
        "issued_at": "2029-12-31T23:59:00Z",
        "not_after": "2030-01-01T00:00:00Z",
    }
    return json.dumps(base | fields)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"not_after": "soon"}, "not_after: expected an ISO 8601 time"),
        ({"not_after": 7}, "not_after: expected an ISO 8601 time"),
        ({"not_after": "2030-01-01T00:00:00"}, "not_after: expected a time with an offset"),
        ({"command": {"type": "magic"}}, "command.type: expected one of execute, native, script, service_control"),
        ({"command": "uptime"}, "command: expected an object"),
        ({"command": {"type": "native"}}, "command.name: expected a value"),
        (
            {"command": {"type": "execute", "path": "/x", "args": ["a", 1]}},
            "command.args[1]: expected a string, found 1",
        ),
        ({"command": {"type": "execute", "path": "/x", "env": {"A": 1}}}, "command.env.A: expected a string"),
        ({"command": {"type": "execute", "path": "/x", "env": []}}, "command.env: expected an object"),
        (
            {"command": {"type": "service_control", "service_name": "x", "action": "explode"}},
            "command.action: expected one of start, stop, restart, status",
        ),
    ],
)
def test_wrong_field_in_the_depth_is_named_by_its_path(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(MalformedMessageError) as caught:
        decode(command(**fields), TO_AGENT)
    assert str(caught.value).startswith(reason)


def test_reason_stays_short_whatever_was_sent() -> None:
    labels = {"x" * 100_000: 1}
    with pytest.raises(MalformedMessageError) as caught:
        decode(json.dumps({"type": "gateway_register", "gateway_id": "g", "zone": "z", "labels": labels}), FROM_GATEWAY)
    assert len(str(caught.value)) < 300


def test_times_travel_as_utc() -> None:
    moment = datetime(2026, 3, 1, 8, 30, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    assert to_plain(Ping(moment)) == {"type": "ping", "timestamp": "2026-03-01T03:00:00+00:00"}
    assert decode('{"type":"ping","timestamp":"2026-03-01T03:00:00Z"}', Ping).timestamp == moment


def test_null_means_absent() -> None:
    message = decode(command(subject=None, epoch=None), Command)
    assert (message.subject, message.epoch) == (None, 0)
    assert "subject" not in to_plain(message)


def test_whole_numbers_are_numbers() -> None:
    frame = '{"type":"heartbeat","agent_id":"a","uptime_secs":1,"load":[1,0.5],"memory_percent":9,"active_commands":0}'
    heartbeat = decode(frame, Heartbeat)
    assert heartbeat.load == [1.0, 0.5]
    assert isinstance(heartbeat.memory_percent, float)


def test_frame_of_the_greatest_size_is_accepted_and_no_greater_one() -> None:
    empty = encode(CommandReceived("srv-1", "t-1", ""))
    largest = encode(CommandReceived("srv-1", "t-1", "x" * (MAX_FRAME_BYTES - len(empty))))
    assert decode(largest, FROM_AGENT).agent_id == "srv-1"
    with pytest.raises(FrameTooLargeError):
        parse(largest + " ")


def test_names_that_are_no_text_keep_their_seal() -> None:
    names = [each.decode("utf-8", "surrogateescape") for each in (b"\xe9", b"\xff", "\ue000".encode())]
    plain = to_plain({"type": "x", "files": dict.fromkeys(names, names[0])})
    assert plain["files"] == {"\ufffd": "\ufffd", "\ue000": "\ufffd"}
    assert canonical(parse(encode(plain))) == canonical(plain)


def test_numbers_that_are_none_are_told_as_null() -> None:
    plain = to_plain({"type": "x", "load": [math.nan, math.inf, -math.inf, 0.5]})
    assert plain == {"type": "x", "load": [None, None, None, 0.5]}


@pytest.mark.parametrize("half", ["\\ud800", "\\uDC00", "\\udcff\\ud83d", "\\ud83dx"])
def test_half_a_surrogate_pair_is_malformed(half: str) -> None:
    frame = json.dumps(RESUME).replace("i-1", half)
    for each in (frame, frame.encode()):
        with pytest.raises(MalformedMessageError, match="surrogate"):
            parse(each)


@pytest.mark.parametrize("text", ["\\ud83d\\ude00", "\\u00e9", "\\\\ud800"])
def test_whole_pairs_and_other_escapes_are_text(text: str) -> None:
    message = decode(json.dumps(RESUME).replace("i-1", text), Resume)
    assert message.incarnation == json.loads(f'"{text}"')


def test_odd_file_names_can_be_told() -> None:
    name = b"caf\xe9".decode("utf-8", "surrogateescape")
    frame = encode(CommandReceived("srv-1", "t-1", name))
    assert decode(frame.encode(), CommandReceived).request_id == "caf\ufffd"


@pytest.mark.parametrize("frame", ['{"type":' + "[" * 100_000, '{"type":"x","a":' * 50_000])
def test_json_that_is_too_deep_is_malformed(frame: str) -> None:
    with pytest.raises(MalformedMessageError):
        parse(frame)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("NaN", "NaN is not JSON"),
        ("[Infinity]", "Infinity is not JSON"),
        ("-Infinity", "-Infinity is not JSON"),
        ("1e400", "beyond what a number can hold"),
        ("-1e999999", "beyond what a number can hold"),
        ("9" * 41, "an integer of more than 40 digits"),
        ("-" + "9" * 100_000, "an integer of more than 40 digits"),
        ('{"b":1,"b":1}', "an object has a name twice"),
        ('{"b":1,"\\u0062":2}', "an object has a name twice"),
    ],
)
def test_what_json_readers_disagree_about_is_malformed(value: str, reason: str) -> None:
    with pytest.raises(MalformedMessageError, match=re.escape(reason)):
        parse(f'{{"type":"x","a":{value}}}')


def test_type_twice_is_malformed() -> None:
    with pytest.raises(MalformedMessageError, match="twice"):
        parse('{"type":"command","type":"ping"}')


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-8-sig", "latin-1"])
def test_bytes_are_utf8_and_nothing_else(encoding: str) -> None:
    with pytest.raises(MalformedMessageError):
        parse('{"type":"é"}'.encode(encoding))


def test_counters_of_unsigned_64_bits_come_through_where_anything_may() -> None:
    counter = 2**64 - 1
    assert parse(encode({"type": "x", "a": counter})) == {"type": "x", "a": counter}


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, 10**39])
@pytest.mark.parametrize("field", ["uptime_secs", "memory_percent"])
def test_integers_of_fields_have_64_bits(field: str, value: int) -> None:
    plain = {"agent_id": "a", "uptime_secs": 1, "load": [], "memory_percent": 9, "active_commands": 0}
    with pytest.raises(MalformedMessageError, match=f"^{field}: expected .* of 64 bits"):
        build(Heartbeat, plain | {field: value})


def test_number_that_no_float_holds_is_malformed() -> None:
    with pytest.raises(MalformedMessageError, match=r"^load\[0\]: "):
        build(Heartbeat, {"agent_id": "a", "uptime_secs": 1, "load": [10**400]})


@pytest.mark.parametrize(
    "moment", ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "1969-12-31T23:59:59Z", "9999-01-01T00:00:00Z"]
)
def test_times_nobody_can_reckon_with_are_malformed(moment: str) -> None:
    with pytest.raises(MalformedMessageError, match=r"^timestamp: expected a time of our era"):
        build(Ping, {"timestamp": moment})


@pytest.mark.parametrize("kind", [["native"], {"native": 1}, 7, True, None])
def test_type_that_is_no_text_is_malformed_in_the_depth(kind: Any) -> None:
    with pytest.raises(MalformedMessageError, match=r"^command\.type: "):
        decode(command(command={"type": kind, "name": "uptime"}), TO_AGENT)
    with pytest.raises(UnknownMessageError):
        from_plain({"type": kind}, FROM_AGENT)


@pytest.mark.parametrize("brackets", ["[]", "{}"])
def test_json_nests_as_deeply_as_is_said_and_no_deeper(brackets: str) -> None:
    def frame(levels: int) -> str:
        opened = "[" if brackets == "[]" else '{"a":'
        return '{"type":"x","a":' + opened * (levels - 2) + brackets + brackets[1] * (levels - 2) + "}"

    data = parse(frame(MAX_NESTING))
    assert canonical(to_plain(data)) == canonical(data)
    with pytest.raises(MalformedMessageError, match=f"at most {MAX_NESTING} levels"):
        parse(frame(MAX_NESTING + 1))
    assert parse(frame(50), max_nesting=50)
    with pytest.raises(MalformedMessageError, match="at most 49 levels"):
        parse(frame(50), max_nesting=49)


def test_wide_is_not_deep() -> None:
    assert len(parse(json.dumps({"type": "x", "a": [[]] * 5_000}))["a"]) == 5_000


def test_long_names_are_not_copied_for_each_thing_below_them() -> None:
    # Paths name the field of a fault; built from a long name, once for each item, they took 500 GB of copying.
    findings = {"x" * 1_900_000: [{}] * 280_000}
    frame = {"agent_id": "a", "discovery_id": "d", "discovered_at": "2026-03-01T03:00:00Z", "findings": findings}
    assert len(build(DiscoveryResult, frame).findings["x" * 1_900_000]) == 280_000


@settings(max_examples=200, deadline=None, database=None)
@given(data=st.dictionaries(TEXT, JSON | st.none(), max_size=5))
def test_canonical_form_is_that_of_what_was_understood(data: dict[str, Any]) -> None:
    data["type"] = "x"
    for frame in (encode(data), json.dumps(data), json.dumps(data, indent=1, sort_keys=True, ensure_ascii=False)):
        understood = parse(frame)
        assert canonical(understood) == canonical(data)
        assert parse(canonical(understood)) == understood


@pytest.mark.parametrize(
    ("one", "other"),
    [(1, 1.0), (1, True), (0, False), (0.0, -0.0), ("é", "e\u0301"), ("", None), ({}, []), (1, "1"), ([], [[]])],
)
def test_things_that_differ_have_different_canonical_forms(one: Any, other: Any) -> None:
    assert canonical({"a": one}) != canonical({"a": other})


def test_absent_and_null_differ_in_what_is_sealed() -> None:
    assert canonical({}) != canonical({"subject": None})


def nested_checks(depth: int) -> dict[str, Any]:
    check: dict[str, Any] = {"type": "port_open", "port": 1}
    for _ in range(depth):
        check = {"type": "all", "checks": [check]}
    return {"type": "async", "completion_check": check}


def test_checks_nest_deeply_enough_and_not_without_end() -> None:
    message = decode(command(execution_mode=nested_checks(15)), Command)
    assert decode(encode(message), Command) == message
    for depth in (30, 150, 5_000):
        with pytest.raises(MalformedMessageError):
            build(Command, json.loads(command()) | {"execution_mode": nested_checks(depth)})
