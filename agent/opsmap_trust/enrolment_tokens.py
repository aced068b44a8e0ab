"""The text of an enrolment token: a secret, and which installation it belongs to.

opsmap-enrol-<32 random bytes>.<SHA-256 of the root certificate>, both in base64url without padding. The second half is
no secret: by it a host that has never seen the installation recognises the right one before it says the first half.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass

PREFIX = "opsmap-enrol-"
_TEXT = re.compile(rf"{PREFIX}(?P<secret>[A-Za-z0-9_-]{{43}})\.(?P<root>[A-Za-z0-9_-]{{43}})", re.ASCII)


class EnrolmentTokenError(ValueError):
    """Not the text of an enrolment token. The message does not repeat it."""


@dataclass(frozen=True, slots=True)
class EnrolmentTokenText:
    """`secret` is kept by nobody but the host that is given it; the backend knows its `digest`."""

    secret: bytes
    root_sha256: bytes

    @classmethod
    def parse(cls, text: str) -> EnrolmentTokenText:
        """Raises EnrolmentTokenError."""
        match = _TEXT.fullmatch(text.strip())
        if match is None:
            raise EnrolmentTokenError(f"an enrolment token begins with {PREFIX!r} and has two parts of 43 characters")
        try:
            secret, root = (base64.urlsafe_b64decode(match[part] + "=") for part in ("secret", "root"))
        except binascii.Error:
            raise EnrolmentTokenError("the enrolment token is damaged") from None
        return cls(secret, root)

    def __str__(self) -> str:
        secret, root = (
            base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in (self.secret, self.root_sha256)
        )
        return f"{PREFIX}{secret}.{root}"

    @property
    def digest(self) -> str:
        """What the backend keeps. A plain SHA-256 suffices for 256 random bits."""
        return hashlib.sha256(self.secret).hexdigest()

    def names_root(self, der: bytes) -> bool:
        return hashlib.sha256(der).digest() == self.root_sha256
