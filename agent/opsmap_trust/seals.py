"""Sealed frames: a message with `signed_by`, the key, and `signature`, over the canonical form of all the rest."""

from __future__ import annotations

import binascii
from typing import Any

from opsmap_protocol.codec import canonical, to_plain
from opsmap_protocol.errors import ProtocolError
from opsmap_trust.keys import SealingKey, VerifyingKey

SIGNED_BY = "signed_by"
SIGNATURE = "signature"
_SIGNATURE_BYTES = 64


class SealError(ProtocolError):
    """A frame that its supposed author did not write, or that somebody changed."""

    code = "bad_seal"


class Sealer:
    """Seals with one key. `key_id` is the SHA-256 of its certificate, in hexadecimal.

    What the backend seals is for the agents of one organization, and means nothing to any other.
    """

    def __init__(self, key: SealingKey, key_id: str, organization: str = "") -> None:
        self._key = key
        self._organization = organization
        self.key_id = key_id

    def for_organization(self, organization: str) -> Sealer:
        """One that seals with the same key for an organization: its id, as it stands in its certificates."""
        return Sealer(self._key, self.key_id, organization)

    def seal(self, message: Any) -> str:
        """The sealed frame of a message, or of an object that is a message already."""
        plain = to_plain(message)
        text, signature = self._sign(plain)
        return f'{text[:-1]},"{SIGNATURE}":"{signature}"}}'

    def seal_object(self, message: Any) -> dict[str, Any]:
        """The same as an object, to be put into another frame."""
        plain: dict[str, Any] = to_plain(message)
        _, signature = self._sign(plain)
        return {**plain, SIGNATURE: signature}

    def _sign(self, plain: dict[str, Any]) -> tuple[str, str]:
        plain[SIGNED_BY] = self.key_id
        text = canonical(plain)
        signature = self._key.sign(text.encode(), self._organization)
        return text, binascii.b2a_base64(signature, newline=False).decode("ascii")


def signer_of(data: dict[str, Any]) -> str:
    """The key that a frame claims to be sealed with. Raises SealError if it claims none."""
    key_id = data.get(SIGNED_BY)
    if not isinstance(key_id, str) or not isinstance(data.get(SIGNATURE), str):
        raise SealError(f"{str(data.get('type'))[:80]} has no seal")
    return key_id


def check_seal(data: dict[str, Any], key: VerifyingKey) -> None:
    """Whether what was understood of a frame is what the owner of `key` wrote.

    Raises:
        SealError: it is not.
    """
    signer_of(data)
    try:
        signature = binascii.a2b_base64(data[SIGNATURE], strict_mode=True)
    except (binascii.Error, ValueError):
        signature = b""
    signed = {name: value for name, value in data.items() if name != SIGNATURE}
    if len(signature) != _SIGNATURE_BYTES or not key.is_signature(signature, canonical(signed).encode()):
        raise SealError(f"the seal of {str(data.get('type'))[:80]} is not valid")
