"""Keys as files, and what is no key."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa

from opsmap_trust.keys import KeyUnusableError, SealingKey, VerifyingKey

PEM = serialization.Encoding.PEM
PKCS8 = serialization.PrivateFormat.PKCS8
OPEN = serialization.NoEncryption()
KEY = ed25519.Ed25519PrivateKey.generate()


def write(folder: Path, content: bytes) -> Path:
    path = folder / "own.key"
    path.write_bytes(content)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(KeyUnusableError) as caught:
        SealingKey.read(path, "agent")
    reason = str(caught.value)
    assert "\n" not in reason
    assert reason.startswith(f"{path}: ")
    return reason.removeprefix(f"{path}: ")


def test_key_of_a_file_signs(tmp_path: Path) -> None:
    key = SealingKey.read(write(tmp_path, KEY.private_bytes(PEM, PKCS8, OPEN)), "agent")
    assert key.public_bytes == KEY.public_key().public_bytes_raw()
    assert VerifyingKey(key.public_bytes, "agent").is_signature(key.sign(b"text"), b"text")
    assert not VerifyingKey(key.public_bytes, "backend", "o-1").is_signature(key.sign(b"text"), b"text")


def test_line_ends_of_another_system_do_no_harm(tmp_path: Path) -> None:
    pem = KEY.private_bytes(PEM, PKCS8, OPEN).replace(b"\n", b"\r\n") + b"\r\n\r\n"
    assert SealingKey.read(write(tmp_path, pem), "agent").public_bytes == KEY.public_key().public_bytes_raw()


def test_file_that_is_missing_or_a_folder(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none.key") == "cannot be read: No such file or directory"
    assert refusal(tmp_path) == "cannot be read: Is a directory"


@pytest.mark.parametrize(
    "content", [b"", b"garbage", b"\xff\xfe", b"-----BEGIN PRIVATE KEY-----\nA\n-----END PRIVATE KEY-----"]
)
def test_file_that_holds_no_key(tmp_path: Path, content: bytes) -> None:
    assert refusal(write(tmp_path, content))


@pytest.mark.parametrize(
    "other",
    [
        ec.generate_private_key(ec.SECP256R1()),
        rsa.generate_private_key(65537, 2048),
        ed448.Ed448PrivateKey.generate(),
    ],
    ids=["EC", "RSA", "Ed448"],
)
def test_key_of_another_kind(tmp_path: Path, other: ec.EllipticCurvePrivateKey) -> None:
    assert refusal(write(tmp_path, other.private_bytes(PEM, PKCS8, OPEN))) == "not an Ed25519 key; seals need one"


def test_encrypted_key(tmp_path: Path) -> None:
    pem = KEY.private_bytes(PEM, PKCS8, serialization.BestAvailableEncryption(b"secret"))
    assert refusal(write(tmp_path, pem)) == "not an unencrypted private key (PKCS #8, PEM)"


def test_refusal_shows_nothing_of_the_key(tmp_path: Path) -> None:
    pem = KEY.private_bytes(PEM, PKCS8, OPEN)
    secret = pem.splitlines()[1][30:60].decode()
    assert secret not in refusal(write(tmp_path, pem + b"trailing"))


@pytest.mark.parametrize("signature", [b"", b"x", bytes(63), bytes(64), bytes(65), bytes(1_000)])
def test_signature_of_a_wrong_length_or_none_is_none(signature: bytes) -> None:
    assert not VerifyingKey(KEY.public_key().public_bytes_raw(), "agent").is_signature(signature, b"text")


def test_signature_with_a_second_form_is_none() -> None:
    """Ed25519's S may be written as S + L in a careless verifier (RFC 8032, 5.1.7)."""
    order = 2**252 + 27742317777372353535851937790883648493
    key = SealingKey(bytes(32), "agent")
    good = key.sign(b"text")
    other = good[:32] + (int.from_bytes(good[32:], "little") + order).to_bytes(32, "little")
    assert not VerifyingKey(key.public_bytes, "agent").is_signature(other, b"text")


def test_weak_public_key_accepts_nothing() -> None:
    """The neutral point as key makes a careless verifier accept one signature for every text."""
    neutral = b"\1" + bytes(31)
    assert not VerifyingKey(neutral, "agent").is_signature(neutral + bytes(32), b"text")


def test_backend_seals_for_one_organization() -> None:
    key = SealingKey(bytes(32), "backend")
    with pytest.raises(ValueError, match="for one organization"):
        key.sign(b"text")
    with pytest.raises(ValueError, match="for one organization"):
        VerifyingKey(key.public_bytes, "backend")
    signature = key.sign(b"text", "o-1")
    assert VerifyingKey(key.public_bytes, "backend", "o-1").is_signature(signature, b"text")
    assert not VerifyingKey(key.public_bytes, "backend", "o-2").is_signature(signature, b"text")


def test_purposes_are_known() -> None:
    with pytest.raises(KeyError):
        SealingKey(bytes(32), "gateway").sign(b"text")
    with pytest.raises(KeyError):
        VerifyingKey(KEY.public_key().public_bytes_raw(), "gateway")
