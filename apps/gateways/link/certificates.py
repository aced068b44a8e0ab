"""The certificates that agents show: looked into once, remembered by what they are and by who may issue them."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from pathlib import Path
from threading import Lock

from opsmap_protocol.errors import InvalidIdentityError
from opsmap_trust.certificates import inspect_certificate, read_authorities
from opsmap_trust.inspection import CertifiedKey

MAX_KNOWN = 20_000


class AgentCertificates:
    """Verifies by the Agent CA in a file. Safe to use from threads."""

    def __init__(self, authorities: Path) -> None:
        self._path = authorities
        self._lock = Lock()
        self._known: OrderedDict[bytes, CertifiedKey] = OrderedDict()

    def inspect(self, encoded: str) -> CertifiedKey:
        """The key in an agent's certificate, which the Agent CA issued.

        Raises:
            InvalidIdentityError: it did not, or the Agent CA cannot be read.
        """
        try:
            pem = self._path.read_bytes()
        except OSError as error:
            raise InvalidIdentityError(f"{self._path}: {error.strerror}") from None
        name = hashlib.sha256(pem + encoded.encode()).digest()
        with self._lock:
            if name in self._known:
                self._known.move_to_end(name)
                return self._known[name]
        try:
            authorities = read_authorities(self._path)
        except (OSError, ValueError) as error:
            raise InvalidIdentityError(f"{self._path}: {error}") from None
        certified = inspect_certificate(encoded, authorities)
        with self._lock:
            self._known[name] = certified
            if len(self._known) > MAX_KNOWN:
                self._known.popitem(last=False)
        return certified


_by_folder: dict[Path, AgentCertificates] = {}


def agent_certificates(pki_dir: Path) -> AgentCertificates:
    """One memory for all links of the process."""
    return _by_folder.setdefault(pki_dir, AgentCertificates(pki_dir / "ca" / "agent.crt"))
