"""Certificates of those who speak: organization, role and name in a URI, and the key that they have shown to have."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID

from apps.gateways.exceptions import PkiError
from apps.gateways.pki.authorities import Authority
from apps.gateways.pki.files import PublicKey, read_certificate, write_pair
from apps.gateways.pki.naming import fingerprint, host_names, key_usage, subject_name, uris_of
from opsmap_protocol.identity import BACKEND_SIGNER_URI

LEAF_LIFE = timedelta(days=365)
MAX_CLOCK_SKEW = timedelta(minutes=5)

_TLS_USES = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
_SIGNER_USES = [ExtendedKeyUsageOID.CODE_SIGNING]
"""Certifies a key for sealing commands; no TLS peer accepts it."""


def issue(
    authority: Authority,
    public_key: PublicKey,
    *,
    uri: str,
    hosts: Iterable[str],
    life: timedelta,
    now: datetime | None = None,
) -> x509.Certificate:
    """A leaf for one identity. The URI decides who it is; the hosts are where it may be a server.

    It begins a little before now, for clocks that are behind, but so little that two thirds of a short life are still
    ahead when it is new; and it ends with its authority at the latest.
    """
    now = now or datetime.now(UTC)
    names = [x509.UniformResourceIdentifier(uri), *host_names(list(hosts))]
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject_name(uri.rpartition("/")[2]))
        .issuer_name(authority.certificate.subject)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - min(MAX_CLOCK_SKEW, life / 12))
        .not_valid_after(min(now + life, authority.certificate.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(key_usage(is_authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(_SIGNER_USES if uri == BACKEND_SIGNER_URI else _TLS_USES), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )
    return builder.sign(authority.key, hashes.SHA256())


def ensure_leaf(
    folder: Path,
    name: str,
    authority: Authority,
    *,
    uri: str,
    hosts: Iterable[str],
    seals: bool = False,
    life: timedelta = LEAF_LIFE,
) -> str:
    """A key and a certificate for `uri` in `folder`, made anew if missing, of another signer, or two thirds spent.

    With `seals`, its key is one that can seal frames.

    Returns the certificate's SHA-256 fingerprint in hexadecimal.
    """
    path = folder / f"{name}.crt"
    if path.exists() and (folder / f"{name}.key").exists():
        certificate = read_certificate(path)
        if is_good(certificate, authority, uri, seals=seals):
            return fingerprint(certificate)
    return make_leaf(folder, name, authority, uri=uri, hosts=hosts, seals=seals, life=life)


def make_leaf(
    folder: Path, name: str, authority: Authority, *, uri: str, hosts: Iterable[str], seals: bool, life: timedelta
) -> str:
    """As `ensure_leaf`, but anew in any case."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    key = ed25519.Ed25519PrivateKey.generate() if seals else ec.generate_private_key(ec.SECP256R1())
    certificate = issue(authority, key.public_key(), uri=uri, hosts=hosts, life=life)
    write_pair(folder, name, [certificate, authority.certificate], key)
    return fingerprint(certificate)


def is_good(certificate: x509.Certificate, authority: Authority, uri: str, *, seals: bool) -> bool:
    """Whether a leaf of ours need not be renewed yet."""
    has_kind = isinstance(certificate.public_key(), ed25519.Ed25519PublicKey) is seals
    is_fresh = datetime.now(UTC) < renewal_due_at(certificate)
    return is_fresh and has_kind and authority.has_issued(certificate) and uris_of(certificate) == [uri]


def renewal_due_at(certificate: x509.Certificate) -> datetime:
    """Two thirds of its life."""
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return begin + (end - begin) * 2 / 3


def days_left(certificate: x509.Certificate) -> float:
    """Negative if it has ended."""
    return (certificate.not_valid_after_utc - datetime.now(UTC)) / timedelta(days=1)


def leaf_public_key(certificate: x509.Certificate) -> PublicKey:
    """Raises PkiError if its key is of a kind that we do not issue for."""
    key = certificate.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey):
        raise PkiError("the certificate's key is of an unexpected kind")
    return key
