"""Whom the agent believes: the keys that the backend seals with, and the agent's own.

Certificates of backend keys come with `trust`, from a gateway that may be hostile. They are looked into by a child
process, once each, and count only if the Backend CA issued them for sealing. What such a key has not sealed is neither
acted on nor recorded.
"""

from __future__ import annotations

import asyncio
import binascii
import hashlib
import ssl
import time
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from opsmap_agent.configuration import Tls
from opsmap_agent.identity.revocations import Revocations, RevocationsError
from opsmap_daemon.configuration import ConfigurationError
from opsmap_protocol.errors import InvalidIdentityError
from opsmap_protocol.identity import BACKEND_SIGNER_URI
from opsmap_trust.inspection import CertifiedKey, inspect_apart
from opsmap_trust.keys import KeyUnusableError, SealingKey, VerifyingKey
from opsmap_trust.seals import Sealer, SealError, check_seal, signer_of

_MAX_CERTIFICATES = 8
_MAX_CERTIFICATE_CHARACTERS = 16 * 1024
_MAX_KEYS = 32
_MAX_INSPECTIONS = 6
_INSPECTIONS_WINDOW_S = 60.0
"""How many child processes one gateway can make us start, and in what time: a rotation takes one."""

_PEM_HEAD, _PEM_TAIL = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"

_inspected: dict[tuple[str, str], CertifiedKey] = {}
"""What the authority's file (its SHA-256) made of a certificate; certificates that are refused are not kept."""


class TrustError(Exception):
    """Certificates of which none can be used; the message says why."""


@dataclass(frozen=True, slots=True)
class OwnSeal:
    """What the agent seals with. `certificate` is DER in base64, as it travels in `register`."""

    sealer: Sealer
    certificate: str


def own_seal(files: Tls) -> OwnSeal:
    """The key of the agent's certificate, which TLS has found to fit it. Raises ConfigurationError."""
    try:
        key = SealingKey.read(files.key_file, "agent")
    except KeyUnusableError as error:
        raise ConfigurationError([str(error)]) from None
    # The first certificate of the file is the agent's own, those behind it lead to the authority.
    text = files.cert_file.read_text(encoding="ascii")
    der = ssl.PEM_cert_to_DER_cert(text[text.index(_PEM_HEAD) : text.index(_PEM_TAIL) + len(_PEM_TAIL)])
    encoded = binascii.b2a_base64(der, newline=False).decode("ascii")
    return OwnSeal(Sealer(key, hashlib.sha256(der).hexdigest()), encoded)


class BackendKeys:
    """The verified keys of the backend, shared by all sessions; what they seal for another organization is no seal.

    A key stays until its certificate ends, also when a later `trust` leaves it out: that message has no seal, and a
    gateway must not be able to take a key away.

    Raises:
        ConfigurationError: the file of the authority is not there.
    """

    def __init__(
        self,
        authority: Path,
        organization: str,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.revocations = Revocations()
        self._authority = authority
        self._organization = organization
        self._clock = clock
        self._authority_id = _identify(authority)
        self._keys: dict[str, tuple[CertifiedKey, VerifyingKey]] = {}
        self._inspecting = asyncio.Lock()
        self._inspections: defaultdict[str, deque[float]] = defaultdict(deque)

    async def learn(self, certificates: Sequence[str], gateway: str, crl: str | None = None) -> list[str]:
        """Look into the certificates and the revocation list that `gateway` brought; why some of them are refused.

        Raises:
            TrustError: none of them can be used.
        """
        largest = max(map(len, certificates), default=0)
        if len(certificates) > _MAX_CERTIFICATES or largest > _MAX_CERTIFICATE_CHARACTERS:
            raise TrustError(f"more than {_MAX_CERTIFICATES} certificates, or too large ones, are not looked at")
        # One at a time: the second session finds what the first has just asked.
        async with self._inspecting:
            self._notice_new_authority()
            complaints = await self._learn_revocations(crl, gateway)
            answers = await self._inspect(certificates, gateway)
        refusals = [reason for reason in map(self._adopt, answers) if reason is not None]
        if len(refusals) == len(certificates):
            raise TrustError(refusals[0] if refusals else "there is no certificate in it")
        return complaints + refusals

    def check(self, data: dict[str, Any]) -> None:
        """Whether the backend wrote what was understood of a frame. Raises SealError."""
        kind, key_id = str(data.get("type"))[:80], signer_of(data)
        if key_id not in self._keys:
            raise SealError(f"{kind} is sealed with a key that is not known here")
        certified, key = self._keys[key_id]
        now = self._clock()
        if not certified.is_current(now):
            span = f"from {certified.not_before.isoformat()} to {certified.not_after.isoformat()}"
            raise SealError(f"{kind} is sealed with a key that is valid {span}, and it is {now.isoformat()} here")
        if self.revocations.names(certified):
            raise SealError(f"{kind} is sealed with a key that was revoked")
        check_seal(data, key)

    async def _learn_revocations(self, crl: str | None, gateway: str) -> list[str]:
        """A list that does not count must not keep good certificates from counting: then a gateway could do so."""
        if crl is None or not self.revocations.is_news(crl):
            return []
        self._count_inspection(gateway)
        try:
            await self.revocations.take(crl, self._authority)
        except RevocationsError as error:
            return [f"the revocation list does not count: {error}"]
        return []

    async def _inspect(self, certificates: Sequence[str], gateway: str) -> list[CertifiedKey | InvalidIdentityError]:
        new = [each for each in dict.fromkeys(certificates) if (self._authority_id, each) not in _inspected]
        found: dict[str, CertifiedKey | InvalidIdentityError] = {}
        if new:
            self._count_inspection(gateway)
            try:
                found = dict(zip(new, await inspect_apart(new, self._authority), strict=True))
            except (OSError, InvalidIdentityError, ValueError) as error:
                raise TrustError(f"the certificates could not be looked into: {error}") from None
        for each, answer in found.items():
            if isinstance(answer, CertifiedKey):
                _remember(self._authority_id, each, answer)
        return [found[each] if each in found else _inspected[self._authority_id, each] for each in certificates]

    def _count_inspection(self, gateway: str) -> None:
        recent, now = self._inspections[gateway], time.monotonic()
        while recent and recent[0] < now - _INSPECTIONS_WINDOW_S:
            recent.popleft()
        if len(recent) >= _MAX_INSPECTIONS:
            raise TrustError(f"this gateway brought new certificates {_MAX_INSPECTIONS} times within a minute")
        recent.append(now)

    def _adopt(self, answer: CertifiedKey | InvalidIdentityError) -> str | None:
        """Why a certificate is refused; None if its key counts from now on."""
        if isinstance(answer, InvalidIdentityError):
            return str(answer)
        if answer.uri != BACKEND_SIGNER_URI:
            return f"it is the certificate of {answer.uri[:200]!r}, which does not seal for the backend"
        if self.revocations.names(answer):
            return "it was revoked"
        if answer.not_after < self._clock():
            return f"it ended at {answer.not_after.isoformat()}"
        self._keys[answer.key_id] = (answer, VerifyingKey(answer.public_bytes, "backend", self._organization))
        while len(self._keys) > _MAX_KEYS:
            del self._keys[min(self._keys, key=lambda key_id: self._keys[key_id][0].not_after)]
        return None

    def _notice_new_authority(self) -> None:
        """Whoever replaces the file of the authority takes its trust away from what the former one issued."""
        try:
            authority_id = _identify(self._authority)
        except ConfigurationError as error:
            raise TrustError(str(error)) from None
        if authority_id != self._authority_id:
            self._authority_id = authority_id
            self._keys.clear()


def _identify(authority: Path) -> str:
    try:
        content = authority.read_bytes()
    except OSError as error:
        raise ConfigurationError([f"tls.backend_ca_file {authority}: cannot be read: {error.strerror}"]) from None
    if _PEM_HEAD.encode() not in content:
        raise ConfigurationError([f"tls.backend_ca_file {authority}: not a file of CA certificates"])
    return hashlib.sha256(content).hexdigest()


def _remember(authority_id: str, certificate: str, key: CertifiedKey) -> None:
    _inspected[authority_id, certificate] = key
    while len(_inspected) > _MAX_KEYS:
        del _inspected[next(iter(_inspected))]
