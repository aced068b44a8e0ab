"""The backend's signing key: what it seals frames with, and the certificates by which agents trust it.

`signer.{crt,key}` are the current pair. `signer-*.crt` are the certificates of earlier keys, kept until they expire, so
that what was sealed before a rotation holds. A key that was stolen is on the Backend CA's revocation list instead.
"""

from __future__ import annotations

import binascii
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding

from apps.gateways.exceptions import PkiError
from apps.gateways.pki import SIGNER, fingerprint
from apps.gateways.pki.revocation_lists import REVOCATION_LIST, read_revocation_list
from opsmap_trust.certificates import encode_certificate
from opsmap_trust.keys import KeyUnusableError, SealingKey
from opsmap_trust.seals import Sealer

_Stamp = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True)
class Signer:
    """The current key, and every certificate that agents should know, the current one first."""

    stamp: _Stamp
    crl: str | None
    """The revocation list of the Backend CA, DER in base64; none if nothing was ever revoked."""

    _sealer: Sealer
    _certified: tuple[tuple[datetime, str], ...]

    def sealer(self, organization_id: uuid.UUID) -> Sealer:
        """Seals for the agents of that organization; to others' agents of the same name it means nothing."""
        return self._sealer.for_organization(str(organization_id))

    def certificates(self) -> list[str]:
        """DER in base64, those that have not expired."""
        now = datetime.now(UTC)
        return [encoded for not_after, encoded in self._certified if not_after > now]


_known: dict[Path, Signer] = {}


def current_signer(folder: Path) -> Signer:
    """The signer whose files are in `folder`: read once, and again when they change.

    Raises:
        PkiError: there is none that can be used.
    """
    known = _known.get(folder)
    try:
        stamp = _stamp(folder)
        if known is not None and known.stamp == stamp:
            return known
        _known[folder] = signer = _read(folder, stamp)
    except PkiError:
        # In the middle of a rotation key and certificate do not fit for a moment: the earlier key is as good.
        if known is None:
            raise
        return known
    return signer


def _stamp(folder: Path) -> _Stamp:
    stats = []
    for path in (folder / f"{SIGNER}.crt", folder / f"{SIGNER}.key", _ca_folder(folder) / REVOCATION_LIST):
        try:
            found = path.stat()
        except OSError as error:
            if path.name == REVOCATION_LIST:
                # There is none until the first key is revoked.
                continue
            raise PkiError(f"{path}: {error.strerror}") from None
        stats.append((found.st_mtime_ns, found.st_ino, found.st_size))
    return tuple(stats)


def _read(folder: Path, stamp: _Stamp) -> Signer:
    current = _certificate(folder / f"{SIGNER}.crt")
    try:
        key = SealingKey.read(folder / f"{SIGNER}.key", "backend")
    except KeyUnusableError as error:
        raise PkiError(str(error)) from None
    public = current.public_key()
    if not isinstance(public, Ed25519PublicKey) or public.public_bytes_raw() != key.public_bytes:
        raise PkiError(f"{folder / SIGNER}.key is not the key of {SIGNER}.crt")
    certificates = [current, *(_certificate(path) for path in sorted(folder.glob(f"{SIGNER}-*.crt")))]
    listed = read_revocation_list(_ca_folder(folder))
    certified = tuple(
        (each.not_valid_after_utc, encode_certificate(each))
        for each in certificates
        if listed is None or listed.get_revoked_certificate_by_serial_number(each.serial_number) is None
    )
    crl = None if listed is None else _encode(listed.public_bytes(Encoding.DER))
    return Signer(stamp, crl, Sealer(key, fingerprint(current)), certified)


def _encode(der: bytes) -> str:
    return binascii.b2a_base64(der, newline=False).decode("ascii")


def _ca_folder(leaf_folder: Path) -> Path:
    return leaf_folder.parent / "ca"


def _certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError) as error:
        raise PkiError(f"{path}: not a certificate: {error}") from None
