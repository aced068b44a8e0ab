"""Ed25519 keys (RFC 8032), by libsodium: 55 µs to verify, and 1 MB of memory where OpenSSL's binding takes 9."""

from __future__ import annotations

import binascii
from pathlib import Path

from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey as _PrivateKey
from nacl.signing import VerifyKey as _PublicKey

_PEM_HEAD, _PEM_TAIL = "-----BEGIN PRIVATE KEY-----", "-----END PRIVATE KEY-----"
_PKCS8_HEAD = bytes.fromhex("302e020100300506032b657004220420")
"""What precedes the 32 bytes of every Ed25519 private key in PKCS #8 (RFC 8410, section 7)."""

_PURPOSES = {"backend": b"opsmap seal 1 backend\0", "agent": b"opsmap seal 1 agent\0"}
"""Precede what is signed: no signature made for one purpose, TLS included, can be shown for another."""


def _prefix(purpose: str, organization: str) -> bytes:
    """What precedes what is signed.

    The backend seals with one key for all organizations, and agent ids are unique in theirs only: the organization is
    part of its seals, or a command for one organization's host could be shown to another's of the same name.
    """
    if purpose == "backend" and not organization:
        raise ValueError("what the backend seals is for one organization: Sealer.for_organization")
    return _PURPOSES[purpose] + (organization.encode() + b"\0" if organization else b"")


class KeyUnusableError(Exception):
    """A key file that cannot be used, told in one line with its path."""


class SealingKey:
    """A private key that seals frames, always for one purpose."""

    def __init__(self, seed: bytes, purpose: str) -> None:
        self._key = _PrivateKey(seed)
        self._purpose = purpose

    @classmethod
    def read(cls, path: Path, purpose: str) -> SealingKey:
        """The key in an unencrypted PKCS #8 PEM file. Raises KeyUnusableError."""
        try:
            text = path.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not a PEM file"
            raise KeyUnusableError(f"{path}: cannot be read: {reason}") from None
        if not (text.startswith(_PEM_HEAD) and text.endswith(_PEM_TAIL)):
            raise KeyUnusableError(f"{path}: not an unencrypted private key (PKCS #8, PEM)")
        try:
            der = binascii.a2b_base64(text[len(_PEM_HEAD) : -len(_PEM_TAIL)])
        except binascii.Error:
            raise KeyUnusableError(f"{path}: not an unencrypted private key (PKCS #8, PEM)") from None
        if not der.startswith(_PKCS8_HEAD) or len(der) != len(_PKCS8_HEAD) + 32:
            raise KeyUnusableError(f"{path}: not an Ed25519 key; seals need one")
        return cls(der[len(_PKCS8_HEAD) :], purpose)

    @property
    def public_bytes(self) -> bytes:
        return bytes(self._key.verify_key)

    def sign(self, message: bytes, organization: str = "") -> bytes:
        """64 bytes."""
        return self._key.sign(_prefix(self._purpose, organization) + message).signature


class VerifyingKey:
    """A public key, 32 bytes, for one purpose; `organization` is who the frames must have been sealed for."""

    def __init__(self, public_bytes: bytes, purpose: str, organization: str = "") -> None:
        self._key = _PublicKey(public_bytes)
        self._prefix = _prefix(purpose, organization)

    def is_signature(self, signature: bytes, message: bytes) -> bool:
        try:
            self._key.verify(self._prefix + message, signature)
        except (BadSignatureError, ValueError):
            return False
        return True
