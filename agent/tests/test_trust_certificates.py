"""Certificates of signing keys: which are believed, in this process and in the child that agents ask."""

from __future__ import annotations

import asyncio
import binascii
import os
import random
import signal
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from opsmap_protocol.errors import InvalidIdentityError
from opsmap_protocol.identity import BACKEND_SIGNER_URI, BACKEND_URI
from opsmap_trust import apart
from opsmap_trust.certificates import MAX_CERTIFICATE_BYTES, encode_certificate, inspect_certificate, read_authorities
from opsmap_trust.inspection import CertifiedKey, inspect_apart
from testing_pki import Branch, Pki

NOW = datetime.now(UTC)
DAY = timedelta(days=1)


def issue(
    branch: Branch,
    key: Any = None,
    *,
    uris: tuple[str, ...] = (BACKEND_SIGNER_URI,),
    ca: bool = False,
    signs: bool = True,
    leave_out: type[x509.ExtensionType] | None = None,
    begin: datetime = NOW - DAY,
    end: datetime = NOW + DAY,
) -> str:
    """A certificate of that branch, right in everything but what is asked for otherwise."""
    usages = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "crl_sign"), False
    )
    extensions: list[x509.ExtensionType] = [
        x509.BasicConstraints(ca=ca, path_length=None),
        x509.KeyUsage(
            digital_signature=signs, key_cert_sign=not signs, encipher_only=False, decipher_only=False, **usages
        ),
        x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri) for uri in uris]),
    ]
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(branch.certificate.subject)
        .public_key((key or ed25519.Ed25519PrivateKey.generate()).public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
    )
    for extension in extensions:
        if not isinstance(extension, leave_out or ()):
            builder = builder.add_extension(extension, critical=False)
    return encode_certificate(builder.sign(branch.key, hashes.SHA256()))


@pytest.fixture
def authorities(pki: Pki) -> list[x509.Certificate]:
    return read_authorities(pki.backend_ca.ca)


def refusal(encoded: str, authorities: list[x509.Certificate]) -> str:
    with pytest.raises(InvalidIdentityError) as caught:
        inspect_certificate(encoded, authorities)
    return str(caught.value)


def test_certificate_says_whose_key_it_is(pki: Pki, authorities: list[x509.Certificate]) -> None:
    leaf = pki.signer()
    key = inspect_certificate(leaf.encoded(), authorities)
    sealer = leaf.sealer("backend")
    assert (key.uri, key.key_id) == (BACKEND_SIGNER_URI, sealer.key_id)
    assert key.public_bytes == leaf.certificate.public_key().public_bytes_raw()
    assert key.is_current(datetime.now(UTC))


def test_key_is_current_between_its_dates() -> None:
    key = CertifiedKey("", b"", "", NOW - DAY, NOW + DAY)
    assert [key.is_current(NOW + days * DAY) for days in (-2, -1, 0, 1, 2)] == [False, True, True, True, False]


def test_expired_key_is_known_and_not_current(pki: Pki, authorities: list[x509.Certificate]) -> None:
    key = inspect_certificate(issue(pki.backend_ca, begin=NOW - 2 * DAY, end=NOW - DAY), authorities)
    assert not key.is_current(NOW)


def test_key_is_not_valid_for_longer_than_its_authority(pki: Pki, authorities: list[x509.Certificate]) -> None:
    ages = timedelta(days=900)
    key = inspect_certificate(issue(pki.backend_ca, begin=NOW - ages, end=NOW + ages), authorities)
    authority = pki.backend_ca.certificate
    assert (key.not_before, key.not_after) == (authority.not_valid_before_utc, authority.not_valid_after_utc)


def test_tls_certificate_of_the_backend_says_so_in_its_uri(pki: Pki, authorities: list[x509.Certificate]) -> None:
    """Whoever has only the web server's key must not command hosts: agents compare the URI."""
    assert inspect_certificate(issue(pki.backend_ca, uris=(BACKEND_URI,)), authorities).uri != BACKEND_SIGNER_URI
    assert "not an Ed25519 key" in refusal(pki.backend().encoded(), authorities)


def test_other_branches_are_not_believed(pki: Pki, authorities: list[x509.Certificate]) -> None:
    for branch in (pki.gateway_ca, pki.agent_ca, pki.root):
        assert refusal(issue(branch), authorities) == "the certificate was not issued by the expected authority"


def test_authority_of_the_same_name_is_another(pki: Pki, authorities: list[x509.Certificate], tmp_path: Path) -> None:
    namesake = Pki(tmp_path).backend_ca
    assert namesake.certificate.subject == pki.backend_ca.certificate.subject
    assert "not issued" in refusal(issue(namesake), authorities)
    assert inspect_certificate(issue(namesake), [*authorities, namesake.certificate])


def test_leaf_is_no_authority(pki: Pki, authorities: list[x509.Certificate]) -> None:
    """The chain has one link: a leaf that signs another, whatever it says of itself, is not asked."""
    key = ec.generate_private_key(ec.SECP256R1())
    encoded = issue(pki.backend_ca, key, ca=True)
    leaf = x509.load_der_x509_certificate(binascii.a2b_base64(encoded))
    assert "not issued" in refusal(issue(Branch("leaf", leaf, key, Path("/none"))), authorities)


def test_authority_is_no_signer(pki: Pki, authorities: list[x509.Certificate]) -> None:
    root = [pki.root.certificate]
    assert "not an Ed25519 key" in refusal(encode_certificate(pki.backend_ca.certificate), root)
    assert "not a certificate for signing" in refusal(issue(pki.backend_ca, ca=True), authorities)


@pytest.mark.parametrize(
    "fault",
    [
        {"uris": ()},
        {"uris": (BACKEND_SIGNER_URI, BACKEND_URI)},
        {"uris": (BACKEND_SIGNER_URI, BACKEND_SIGNER_URI)},
        {"signs": False},
        {"leave_out": x509.SubjectAlternativeName},
        {"leave_out": x509.KeyUsage},
        {"leave_out": x509.BasicConstraints},
    ],
    ids=str,
)
def test_certificate_lacks_something(pki: Pki, authorities: list[x509.Certificate], fault: dict[str, Any]) -> None:
    assert "sign" in refusal(issue(pki.backend_ca, **fault), authorities)


@pytest.mark.parametrize(
    "key",
    [rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP256R1())],
    ids=["RSA", "EC"],
)
def test_key_of_another_kind(pki: Pki, authorities: list[x509.Certificate], key: Any) -> None:
    assert refusal(issue(pki.backend_ca, key), authorities) == "the certificate's key is not an Ed25519 key"


GARBAGE = ["", "=", "garbage", "AAAA", "é", "A" * 4_000_000, "MIIB\n" * 9, "\0", "-----BEGIN CERTIFICATE-----"]


@pytest.mark.parametrize("garbage", GARBAGE, ids=lambda each: repr(each)[:12])
def test_garbage(authorities: list[x509.Certificate], garbage: str) -> None:
    assert len(refusal(garbage, authorities)) < 300


def test_certificate_and_more(pki: Pki, authorities: list[x509.Certificate]) -> None:
    der = binascii.a2b_base64(issue(pki.backend_ca))
    for padded in (der + b"\0", der * 2, der + bytes(2 * MAX_CERTIFICATE_BYTES)):
        assert refusal(binascii.b2a_base64(padded, newline=False).decode(), authorities)


def test_damaged_certificates_are_refused_and_nothing_else(pki: Pki, authorities: list[x509.Certificate]) -> None:
    """Each of these made the library raise something of its own: versions, serial numbers, algorithms, names."""
    der = binascii.a2b_base64(issue(pki.backend_ca))
    # How many bits of the signature's last byte count may be told in several ways, which change nothing.
    signature = x509.load_der_x509_certificate(der).signature
    places = [place for place in range(len(der)) if place != len(der) - len(signature) - 1]
    chance = random.Random(3)  # noqa: S311 - the same damage each time
    for _ in range(3_000):
        damaged = bytearray(der)
        for _ in range(chance.choice([1, 1, 1, 2, 4])):
            place = chance.choice(places)
            damaged[place] = (damaged[place] + chance.randrange(1, 256)) % 256
        assert bytes(damaged) != der or pytest.fail("the damage undid itself: take another seed")
        assert refusal(binascii.b2a_base64(bytes(damaged), newline=False).decode(), authorities)


# The child


async def test_child_says_what_the_function_says(pki: Pki, authorities: list[x509.Certificate]) -> None:
    asked = [
        pki.signer().encoded(),
        issue(pki.gateway_ca),
        "garbage",
        "",
        "a b\r\nc\x85d",
        "é\ud800",
        issue(pki.backend_ca),
    ]
    answers = await inspect_apart(asked, pki.backend_ca.ca)
    assert [type(answer) for answer in answers] == [CertifiedKey, *[InvalidIdentityError] * 5, CertifiedKey]
    assert answers[0] == inspect_certificate(asked[0], authorities)
    assert str(answers[1]) == refusal(asked[1], authorities)


async def test_child_looks_into_a_thousand_at_once(pki: Pki) -> None:
    answers = await inspect_apart([pki.signer().encoded(), "x" * 5_000] * 500, pki.backend_ca.ca)
    assert len(answers) == 1_000
    assert sum(isinstance(answer, CertifiedKey) for answer in answers) == 500


async def test_child_is_asked_about_nothing(pki: Pki) -> None:
    assert await inspect_apart([], pki.backend_ca.ca) == []


@pytest.mark.parametrize("content", [None, b"", b"garbage"])
async def test_authorities_that_cannot_be_read_are_a_fault(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "ca.crt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InvalidIdentityError, match=r"could not be looked into: .*ca\.crt"):
        await inspect_apart(["garbage"], path)


def child_that(monkeypatch: pytest.MonkeyPatch, folder: Path, script: str) -> Path:
    """Let the child be that shell script; gives the file where it writes its process id."""
    python = folder / "python"
    note = folder / "pid"
    python.write_text(f"#!/bin/sh\necho $$ > {note}\n{script}\n")
    python.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(python))
    return note


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_child_that_hangs_is_ended(pki: Pki, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    note = child_that(monkeypatch, tmp_path, "exec sleep 1000")
    monkeypatch.setattr(apart, "_TIMEOUT_S", 0.5)
    began = time.monotonic()
    with pytest.raises(InvalidIdentityError, match=r"more than 0\.5 s"):
        await inspect_apart(["x" * 100_000], pki.backend_ca.ca)
    assert time.monotonic() - began < 10
    assert not is_alive(int(note.read_text()))


async def test_child_is_ended_with_whoever_asks(pki: Pki, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    note = child_that(monkeypatch, tmp_path, "exec sleep 1000")
    asking = asyncio.create_task(inspect_apart(["x"], pki.backend_ca.ca))
    async with asyncio.timeout(10):
        while not (note.exists() and note.read_text()):  # noqa: ASYNC110 - another process writes it
            await asyncio.sleep(0.01)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert not is_alive(int(note.read_text()))


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo oops >&2; exit 3", "oops"),
        ("exit 3", "exit code 3"),
        (f"kill -{signal.SIGSEGV.value} $$", f"exit code -{signal.SIGSEGV.value}"),
        ("exit 0", "2 certificates were asked about, 0 answered"),
        ('echo \'{"error": "one"}\'', "2 certificates were asked about, 1 answered"),
    ],
)
async def test_child_that_fails(
    pki: Pki, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, reason: str
) -> None:
    child_that(monkeypatch, tmp_path, script)
    with pytest.raises(InvalidIdentityError, match=reason):
        await inspect_apart(["x", "y"], pki.backend_ca.ca)


async def test_child_that_cannot_be_started(pki: Pki, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "none"))
    with pytest.raises(OSError, match="none"):
        await inspect_apart(["x"], pki.backend_ca.ca)
