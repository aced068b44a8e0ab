"""Agents' certificates that the backend has revoked, for as long as this gateway lives.

After a restart the backend says it again, when one of them comes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

MAX_KNOWN = 100_000


class RevokedCertificates:
    """By their SHA-256 fingerprints, with the reason. Beyond `MAX_KNOWN` the oldest are forgotten."""

    def __init__(self) -> None:
        self._reasons: OrderedDict[str, str] = OrderedDict()

    def add(self, fingerprints: Iterable[str], reason: str) -> None:
        for fingerprint in fingerprints:
            self._reasons[fingerprint] = reason
            self._reasons.move_to_end(fingerprint)
            if len(self._reasons) > MAX_KNOWN:
                self._reasons.popitem(last=False)

    def why(self, fingerprints: Iterable[str]) -> str | None:
        """The reason for which one of these was revoked; None if none was."""
        return next((self._reasons[each] for each in fingerprints if each in self._reasons), None)
