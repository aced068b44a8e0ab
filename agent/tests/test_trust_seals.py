"""Seals: what they prove, and that nothing else does. The golden ones are for other implementations to check."""

from __future__ import annotations

import binascii
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st

from opsmap_protocol.codec import build, canonical, encode, parse, to_plain
from opsmap_protocol.errors import MalformedMessageError
from opsmap_protocol.messages import SEALED_BY_AGENT, SEALED_BY_BACKEND, BroadcastCommand, CommandReceived
from opsmap_trust.keys import SealingKey, VerifyingKey
from opsmap_trust.seals import SIGNATURE, SIGNED_BY, Sealer, SealError, check_seal, signer_of

FOLDER = Path(__file__).parent / "golden"
VECTORS: list[dict[str, Any]] = json.loads((FOLDER / "seals.json").read_text(encoding="utf-8"))
GOLDEN: dict[str, list[dict[str, Any]]] = json.loads((FOLDER / "messages.json").read_text(encoding="utf-8"))
SEALED = [(kind, example) for kind in sorted(SEALED_BY_BACKEND | SEALED_BY_AGENT) for example in GOLDEN[kind]]

ORGANIZATION = VECTORS[0]["organization"]
BACKEND_KEY = SealingKey(bytes(range(32)), "backend")
BACKEND = Sealer(BACKEND_KEY, VECTORS[0]["key_id"]).for_organization(ORGANIZATION)
VERIFIES = VerifyingKey(BACKEND_KEY.public_bytes, "backend", ORGANIZATION)

each_vector = pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])


def assert_no_seal(data: dict[str, Any], key: VerifyingKey = VERIFIES) -> None:
    with pytest.raises(SealError):
        check_seal(data, key)


@each_vector
def test_seal_is_the_golden_one_to_the_byte(vector: dict[str, Any]) -> None:
    key = SealingKey(bytes.fromhex(vector["seed"]), vector["purpose"])
    assert key.public_bytes.hex() == vector["public_key"]
    sealer = Sealer(key, vector["key_id"], vector["organization"])
    assert sealer.seal(vector["message"]) == vector["frame"]
    sealed = sealer.seal_object(vector["message"])
    assert sealed == parse(vector["frame"])
    assert canonical({name: value for name, value in sealed.items() if name != SIGNATURE}) == vector["canonical"]
    check_seal(parse(vector["frame"]), VerifyingKey(key.public_bytes, vector["purpose"], vector["organization"]))


@each_vector
def test_golden_seal_is_what_is_documented_by_another_library(vector: dict[str, Any]) -> None:
    """The signed bytes, put together as docs/protocol.md says, under OpenSSL's Ed25519 instead of libsodium's."""
    head = f"opsmap seal 1 {vector['purpose']}\0" + (f"{vector['organization']}\0" if vector["organization"] else "")
    signed = (head + vector["canonical"]).encode()
    key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(vector["public_key"]))
    key.verify(binascii.a2b_base64(vector["signature"]), signed)
    with pytest.raises(InvalidSignature):
        key.verify(binascii.a2b_base64(vector["signature"]), signed + b" ")


@pytest.mark.parametrize(("kind", "example"), SEALED, ids=[kind for kind, _ in SEALED])
def test_seal_holds_however_the_frame_is_written(kind: str, example: dict[str, Any]) -> None:
    frame = BACKEND.seal(example)
    data = parse(frame)
    backwards = dict(reversed(data.items()))
    for written in (frame, encode(data), json.dumps(backwards), json.dumps(backwards, indent=2, ensure_ascii=False)):
        check_seal(parse(written), VERIFIES)
    assert {name: value for name, value in data.items() if name not in (SIGNATURE, SIGNED_BY)} == example


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of everything in plain data, objects and lists included."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, item in items for place in places(item, (*path, key)))]


OTHER_VALUES = st.sampled_from([None, True, False, 0, 1, 0.0, 1.0, -1, "", " ", "srv-data-01", "é", "e\u0301", [], {}])


@settings(max_examples=300, deadline=None, database=None)
@given(sealed=st.sampled_from(SEALED), data=st.data())
def test_whatever_is_changed_the_seal_is_gone(sealed: tuple[str, dict[str, Any]], data: st.DataObject) -> None:
    frame = parse(BACKEND.seal(sealed[1]))
    *path, last = data.draw(st.sampled_from(places(frame)[1:]))
    holder: Any = frame
    for step in path:
        holder = holder[step]
    before = canonical(frame)
    match data.draw(st.sampled_from(["change", "remove", "add"])):
        case "change":
            holder[last] = data.draw(OTHER_VALUES)
        case "remove":
            del holder[last]
        case "add" if isinstance(holder, dict):
            holder[data.draw(st.text(max_size=3))] = data.draw(OTHER_VALUES)
        case "add":
            holder.insert(last, data.draw(OTHER_VALUES))
    if canonical(frame) == before:
        check_seal(frame, VERIFIES)
    else:
        assert_no_seal(frame)


@settings(max_examples=200, deadline=None, database=None)
@given(position=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_no_bit_of_a_frame_can_be_turned(position: int, bit: int) -> None:
    frame = bytearray(BACKEND.seal(GOLDEN["command"][0]).encode())
    frame[position % len(frame)] ^= 1 << bit
    try:
        data = parse(bytes(frame))
    except MalformedMessageError:
        return
    assert_no_seal(data)


@pytest.mark.parametrize(
    "signature",
    [None, 7, [], {}, "", "AAAA", "é" * 88, "=" * 88, "A" * 88, "A" * 86 + "==", "\n" * 88, "A" * 4_000_000],
    ids=lambda each: repr(each)[:12],
)
def test_signature_that_is_none_is_refused(signature: Any) -> None:
    frame = parse(BACKEND.seal(GOLDEN["challenge"][0]))
    assert_no_seal(frame | {SIGNATURE: signature})


def test_space_in_a_signature_is_refused() -> None:
    frame = parse(BACKEND.seal(GOLDEN["challenge"][0]))
    assert_no_seal(frame | {SIGNATURE: frame[SIGNATURE][:40] + "\n" + frame[SIGNATURE][40:]})


@pytest.mark.parametrize("missing", [SIGNED_BY, SIGNATURE])
def test_frame_without_a_seal_is_refused(missing: str) -> None:
    frame = parse(BACKEND.seal(GOLDEN["challenge"][0]))
    del frame[missing]
    with pytest.raises(SealError, match="challenge has no seal"):
        signer_of(frame)
    assert_no_seal(frame)


def test_key_id_is_sealed() -> None:
    frame = parse(BACKEND.seal(GOLDEN["challenge"][0]))
    assert signer_of(frame) == BACKEND.key_id
    assert_no_seal(frame | {SIGNED_BY: "0" * 64})


def test_another_key_proves_nothing() -> None:
    other = SealingKey(bytes(32), "backend")
    assert_no_seal(parse(Sealer(other, BACKEND.key_id, ORGANIZATION).seal(GOLDEN["command"][0])))


def test_seal_of_an_agent_is_none_of_the_backend_though_the_key_be_the_same() -> None:
    seed = bytes(range(32))
    as_agent = Sealer(SealingKey(seed, "agent"), BACKEND.key_id, ORGANIZATION)
    assert_no_seal(parse(as_agent.seal(GOLDEN["command"][0])))
    of_agent = VerifyingKey(SealingKey(seed, "agent").public_bytes, "agent", ORGANIZATION)
    assert_no_seal(parse(BACKEND.seal(GOLDEN["presence"][0])), of_agent)


def test_bare_signature_of_a_text_is_no_seal() -> None:
    """A key that also serves TLS must not be tricked into sealing by what it signs there."""
    from nacl.signing import SigningKey

    frame = parse(BACKEND.seal(GOLDEN["command"][0]))
    text = canonical({name: value for name, value in frame.items() if name != SIGNATURE}).encode()
    bare = SigningKey(bytes(range(32))).sign(text).signature
    assert_no_seal(frame | {SIGNATURE: binascii.b2a_base64(bare, newline=False).decode()})


@pytest.mark.parametrize("organization", ["22222222-2222-4222-8222-222222222222", ORGANIZATION.upper()])
def test_command_for_one_organization_is_none_for_another(organization: str) -> None:
    """Agent ids are unique in an organization only, and the backend has one key for all of them."""
    frame = parse(BACKEND.for_organization(organization).seal(GOLDEN["command"][0]))
    assert_no_seal(frame)
    check_seal(frame, VerifyingKey(BACKEND_KEY.public_bytes, "backend", organization))


def test_commands_of_a_broadcast_are_sealed_each() -> None:
    broadcast = build(BroadcastCommand, GOLDEN["broadcast_command"][0])
    for target in broadcast.targets:
        frame = {
            **broadcast.shared,
            "target_agent": target.target_agent,
            "request_id": target.request_id,
            **target.fields,
        }
        check_seal(parse(encode(frame)), VERIFIES)
        assert_no_seal(frame | {"target_agent": "srv-other-01"})


def test_registrations_and_findings_keep_their_seals_in_other_frames() -> None:
    agent = VerifyingKey(SealingKey(bytes(range(32, 64)), "agent").public_bytes, "agent")
    check_seal(GOLDEN["agent_online"][0]["agent"], agent)
    check_seal(GOLDEN["discovery_batch"][0]["discoveries"][0], agent)


def test_sealing_leaves_the_callers_object_alone() -> None:
    message = dict(GOLDEN["challenge"][0])
    BACKEND.seal(message)
    BACKEND.seal_object(message)
    assert message == GOLDEN["challenge"][0]


def test_names_that_are_no_text_are_sealed_as_they_travel() -> None:
    name = b"caf\xe9".decode("utf-8", "surrogateescape")
    message = CommandReceived("srv-1", "t-1", name)
    check_seal(parse(BACKEND.seal(message)), VERIFIES)
    check_seal(parse(encode({"type": "x", "inner": BACKEND.seal_object(message)}))["inner"], VERIFIES)
    assert to_plain(message)["request_id"] == "caf\ufffd"
