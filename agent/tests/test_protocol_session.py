"""Which frame may come when, at each of the four ends, and how a session ends."""

from __future__ import annotations

import json
import typing
from pathlib import Path
from typing import Any

import pytest

from opsmap_protocol import MAX_AGENT_NESTING, MAX_FRAME_BYTES, MAX_NESTING, MIN_PROTOCOL_VERSION, PROTOCOL_VERSION
from opsmap_protocol.errors import CloseCode, FatalError, MalformedMessageError, ProtocolError, UnknownMessageError
from opsmap_protocol.messages import FROM_AGENT, FROM_GATEWAY, TO_AGENT, TO_GATEWAY
from opsmap_protocol.session import (
    AGENT_OF_GATEWAY,
    BACKEND_OF_GATEWAY,
    GATEWAY_OF_AGENT,
    GATEWAY_OF_BACKEND,
    MAX_BAD_FRAMES,
    MAX_GREETING_BYTES,
    End,
    Phase,
    Session,
    negotiate,
)

GOLDEN: dict[str, list[dict[str, Any]]] = json.loads(
    (Path(__file__).parent / "golden" / "messages.json").read_text(encoding="utf-8")
)
ENDS = {
    "agent of gateway": AGENT_OF_GATEWAY,
    "gateway of agent": GATEWAY_OF_AGENT,
    "gateway of backend": GATEWAY_OF_BACKEND,
    "backend of gateway": BACKEND_OF_GATEWAY,
}
each_end = pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
each_kind = pytest.mark.parametrize("kind", GOLDEN)


def frame(kind: str, **fields: Any) -> str:
    return json.dumps(GOLDEN[kind][0] | fields)


def accepted_by(end: End) -> set[str]:
    return {member.type for member in typing.get_args(end.accepts)}


def opened(end: End) -> Session:
    session = Session(end)
    session.read(frame(end.greeting.type))
    return session


def test_each_end_reads_what_the_other_may_say() -> None:
    assert {name: end.accepts for name, end in ENDS.items()} == {
        "agent of gateway": TO_AGENT,
        "gateway of agent": FROM_AGENT,
        "gateway of backend": TO_GATEWAY,
        "backend of gateway": FROM_GATEWAY,
    }


@each_kind
@each_end
def test_a_session_begins_with_its_greeting_and_nothing_else(end: End, kind: str) -> None:
    session = Session(end)
    if kind == end.greeting.type:
        assert session.read(frame(kind)) == GOLDEN[kind][0]
        assert session.phase is Phase.OPEN
        return
    with pytest.raises(FatalError) as caught:
        session.read(frame(kind))
    expected = CloseCode.REFUSED_BY_PEER if kind == "error" else CloseCode.UNAUTHENTICATED
    assert caught.value.close_code == expected
    assert session.phase is Phase.GREETING


@pytest.mark.parametrize("draining", [False, True], ids=["open", "draining"])
@each_kind
@each_end
def test_an_open_session_reads_what_belongs_to_it(end: End, kind: str, draining: bool) -> None:
    session = opened(end)
    if draining:
        session.drain()
    if kind in accepted_by(end) - {end.greeting.type}:
        data = session.read(frame(kind))
        assert session.understand(data).type == kind
        return
    with pytest.raises(ProtocolError) as caught:
        session.read(frame(kind))
    expected = MalformedMessageError if kind == end.greeting.type else UnknownMessageError
    assert type(caught.value) is expected


@each_kind
@each_end
def test_a_closed_session_reads_nothing(end: End, kind: str) -> None:
    for session in (Session(end), opened(end)):
        session.close()
        with pytest.raises(FatalError) as caught:
            session.read(frame(kind))
        assert caught.value.close_code == CloseCode.BAD_MESSAGE


def test_draining_is_for_open_sessions() -> None:
    session = Session(GATEWAY_OF_AGENT)
    session.drain()
    assert session.phase is Phase.GREETING
    session = opened(GATEWAY_OF_AGENT)
    session.drain()
    assert session.phase is Phase.DRAINING
    session.close()
    session.drain()
    assert session.phase is Phase.CLOSED


@each_end
@pytest.mark.parametrize(
    "greeting",
    ["", "garbage", "[]", "{}", '{"type":7}', "[" * 5_000, b"\x00\xff", b"{}"],
    ids=lambda each: repr(each)[:9],
)
def test_garbage_is_no_greeting(end: End, greeting: str | bytes) -> None:
    with pytest.raises(FatalError) as caught:
        Session(end).read(greeting)
    assert caught.value.close_code == CloseCode.BAD_MESSAGE


@each_end
def test_a_greeting_is_text(end: End) -> None:
    with pytest.raises(FatalError, match="text, not binary"):
        Session(end).read(frame(end.greeting.type).encode())


@each_end
def test_a_greeting_without_its_fields_is_refused(end: End) -> None:
    with pytest.raises(FatalError, match="expected a value") as caught:
        Session(end).read(json.dumps({"type": end.greeting.type}))
    assert caught.value.close_code == CloseCode.BAD_MESSAGE
    assert caught.value.code == "malformed_message"


@each_end
def test_greetings_are_small(end: End) -> None:
    empty = frame(end.greeting.type, since="")
    session = Session(end)
    session.read(frame(end.greeting.type, since="x" * (MAX_GREETING_BYTES - len(empty))))
    assert session.phase is Phase.OPEN
    with pytest.raises(FatalError) as caught:
        Session(end).read(frame(end.greeting.type, since="x" * (MAX_GREETING_BYTES - len(empty) + 1)))
    assert (caught.value.close_code, caught.value.code) == (CloseCode.BAD_MESSAGE, "frame_too_large")


def test_refusal_instead_of_a_greeting_is_told_with_its_reason() -> None:
    with pytest.raises(FatalError) as caught:
        Session(AGENT_OF_GATEWAY).read('{"type":"error","code":"draining","reason":"ask another"}')
    assert (caught.value.code, str(caught.value)) == ("draining", "ask another")
    assert caught.value.close_code == CloseCode.REFUSED_BY_PEER


def test_refusal_that_is_malformed_is_a_bad_greeting() -> None:
    with pytest.raises(FatalError) as caught:
        Session(AGENT_OF_GATEWAY).read('{"type":"error","code":7}')
    assert caught.value.close_code == CloseCode.BAD_MESSAGE


OURS, OLDEST = PROTOCOL_VERSION, MIN_PROTOCOL_VERSION


@pytest.mark.parametrize(
    ("newest", "oldest", "agreed"),
    [
        (OURS, OLDEST, OURS),
        (OURS, OURS, OURS),
        (OURS + 5, OLDEST, OURS),
        (OURS + 5, OURS, OURS),
        (OURS + 5, 0, OURS),
        (OURS, None, OURS),
        (None, None, OURS),
        (None, OLDEST, OURS),
        # None of both sides
        (OURS + 1, OURS + 1, None),
        (OURS + 1, None, None),
        (OLDEST - 1, OLDEST - 1, None),
        (OLDEST - 1, None, None),
        # Nonsense
        (OLDEST, OLDEST + 1, None),
        (True, True, None),
        (float(OURS), OLDEST, None),
        (str(OURS), OLDEST, None),
        (OURS, [OLDEST], None),
        ({}, {}, None),
    ],
)
def test_versions_are_negotiated(newest: Any, oldest: Any, agreed: int | None) -> None:
    stated = {"protocol_version": newest, "protocol_min": oldest}
    # Null and absent mean the same, as everywhere.
    for greeting in (stated, {name: value for name, value in stated.items() if value is not None}):
        if agreed is not None:
            assert negotiate(greeting) == agreed
            continue
        with pytest.raises(FatalError, match="speaks protocol versions") as caught:
            negotiate(greeting)
        assert caught.value.close_code == CloseCode.VERSION_UNSUPPORTED
        assert len(str(caught.value)) < 200


@each_end
def test_another_version_hears_so_whatever_else_its_greeting_says(end: End) -> None:
    session = Session(end)
    with pytest.raises(FatalError) as caught:
        session.read(json.dumps({"type": end.greeting.type, "protocol_version": 99, "protocol_min": 98}))
    assert (caught.value.close_code, caught.value.code) == (CloseCode.VERSION_UNSUPPORTED, "version_unsupported")
    assert "98 to 99" in str(caught.value)


def test_version_of_the_session_is_what_both_speak() -> None:
    session = Session(GATEWAY_OF_AGENT)
    session.read(frame("register", protocol_version=PROTOCOL_VERSION + 3))
    assert session.version == PROTOCOL_VERSION


@each_end
@pytest.mark.parametrize("bad", ["garbage", '{"type":"teleport"}', b"{}"], ids=["text", "type", "bytes"])
def test_a_session_stands_some_bad_frames_and_not_without_end(end: End, bad: str | bytes) -> None:
    session = opened(end)

    def read() -> None:
        session.understand(session.read(bad))

    for _ in range(MAX_BAD_FRAMES - 1):
        with pytest.raises(ProtocolError) as caught:
            read()
        assert not isinstance(caught.value, FatalError)
    session.understand(session.read(frame("error")))
    with pytest.raises(FatalError) as last:
        read()
    assert last.value.close_code == CloseCode.BAD_MESSAGE
    assert f"{MAX_BAD_FRAMES} frames" in str(last.value)


@pytest.mark.parametrize(
    ("end", "kind"),
    [
        (AGENT_OF_GATEWAY, "command"),
        (GATEWAY_OF_AGENT, "heartbeat"),
        (GATEWAY_OF_BACKEND, "broadcast_command"),
        (BACKEND_OF_GATEWAY, "agent_online"),
    ],
)
def test_frames_with_bad_fields_count_too(end: End, kind: str) -> None:
    session = opened(end)
    data = session.read(json.dumps({"type": kind}))
    for _ in range(MAX_BAD_FRAMES - 1):
        with pytest.raises(MalformedMessageError):
            session.understand(data)
    with pytest.raises(FatalError):
        session.understand(data)


@each_end
def test_frames_too_large_are_refused_one_by_one(end: End) -> None:
    session = opened(end)
    with pytest.raises(ProtocolError) as caught:
        session.read(frame("error", reason="x" * MAX_FRAME_BYTES))
    assert caught.value.code == "frame_too_large"
    assert session.phase is Phase.OPEN


def test_an_agent_cannot_end_the_session_of_its_gateway() -> None:
    """Gateways pass most frames on without a look at their fields: what is wrong with them is not their fault."""
    session = opened(BACKEND_OF_GATEWAY)
    for kind in ("presence", "command_received", "events", "job_statuses", "probe_result", "error"):
        for _ in range(2 * MAX_BAD_FRAMES):
            data = session.read(json.dumps({"type": kind, "agent_id": "srv-1"}))
            with pytest.raises(MalformedMessageError):
                session.understand(data)
    with pytest.raises(MalformedMessageError):
        session.understand(session.read('{"type":"agent_online"}'))


def nested(kind: str, levels: int) -> str:
    return frame(kind)[:-1] + ',"since":' + "[" * (levels - 1) + "]" * (levels - 1) + "}"


def test_what_a_gateway_takes_from_an_agent_the_backend_takes_from_the_gateway() -> None:
    """Or an agent could make its gateway say what ends the gateway's session, and with it everybody's."""
    registration = Session(GATEWAY_OF_AGENT).read(nested("register", MAX_AGENT_NESTING))
    opened(BACKEND_OF_GATEWAY).read(frame("agent_online", agent=registration))
    finding = opened(GATEWAY_OF_AGENT).read(nested("discovery_result", MAX_AGENT_NESTING))
    opened(BACKEND_OF_GATEWAY).read(frame("discovery_batch", discoveries=[finding]))
    for session, kind in ((Session(GATEWAY_OF_AGENT), "register"), (opened(GATEWAY_OF_AGENT), "events")):
        with pytest.raises(ProtocolError, match="nested too deeply"):
            session.read(nested(kind, MAX_AGENT_NESTING + 1))
    for end in (AGENT_OF_GATEWAY, GATEWAY_OF_BACKEND, BACKEND_OF_GATEWAY):
        opened(end).read(nested("error", MAX_NESTING))
