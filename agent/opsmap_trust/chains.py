"""Certificates that somebody gives us as our own, or as those to trust: below the root that we know, or not at all.

Loads OpenSSL's binding; daemons ask `apart.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from opsmap_protocol.errors import InvalidIdentityError
from opsmap_trust.apart import Accepted
from opsmap_trust.certificates import UNREADABLE, decode_certificate, is_issued_by, read_authorities

MAX_CHAIN = 4
MAX_AUTHORITIES = 16


def read_root(path: Path) -> x509.Certificate:
    """The root in a PEM file. Raises InvalidIdentityError."""
    try:
        roots = read_authorities(path)
    except (OSError, ValueError) as error:
        raise InvalidIdentityError(f"{path}: cannot be used as the root: {error}") from None
    if len(roots) != 1:
        raise InvalidIdentityError(f"{path}: holds {len(roots)} certificates, the root is one")
    return roots[0]


def accept_chain(
    chain: Sequence[str],
    key_pem: str,
    *,
    uri: str | None,
    root: x509.Certificate | None,
    authorities: Mapping[str, Sequence[str]],
    now: datetime | None = None,
) -> Accepted:
    """See `apart.accept_chain`. Raises InvalidIdentityError."""
    if not 2 <= len(chain) <= MAX_CHAIN:
        raise InvalidIdentityError(f"the chain has {len(chain)} certificates, 2 to {MAX_CHAIN} are expected")
    if root is None and authorities:
        raise InvalidIdentityError("new authorities do not count without a root to compare them with")
    own, issuer, *_ = certificates = [decode_certificate(each) for each in chain]
    if not is_issued_by(own, issuer):
        raise InvalidIdentityError("the certificate was not issued by the next one of its chain")
    if root is not None:
        check_below(issuer, root)
    found = _check_own(own, key_pem, uri)
    _check_time(own, now or datetime.now(UTC))
    return Accepted(
        chain="".join(to_pem(each) for each in certificates[:2]),
        uri=found,
        authorities={} if root is None else below_root(authorities, root),
        not_before=own.not_valid_before_utc,
        not_after=own.not_valid_after_utc,
    )


def below_root(authorities: Mapping[str, Sequence[str]], root: x509.Certificate) -> dict[str, str]:
    """The authorities as PEM, by name. Raises InvalidIdentityError if one is not the root's, or none is there."""
    found: dict[str, str] = {}
    for name, encoded in authorities.items():
        if not 1 <= len(encoded) <= MAX_AUTHORITIES:
            raise InvalidIdentityError(f"{len(encoded)} {name} authorities, 1 to {MAX_AUTHORITIES} are expected")
        certificates = [decode_certificate(each) for each in encoded]
        for each in certificates:
            check_below(each, root)
        found[name] = "".join(map(to_pem, certificates))
    return found


def check_below(authority: x509.Certificate, root: x509.Certificate) -> None:
    """Whether the root made this an authority. Raises InvalidIdentityError."""
    try:
        is_authority = authority.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        is_authority = False
    except UNREADABLE as error:
        raise InvalidIdentityError(f"not a certificate: {error}") from None
    if not is_authority or not is_issued_by(authority, root):
        raise InvalidIdentityError(f"{authority.subject.rfc4514_string()[:200]!r} is no authority below the known root")


def to_pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode("ascii")


def _check_own(own: x509.Certificate, key_pem: str, uri: str | None) -> str:
    """Whom it names."""
    try:
        key = serialization.load_pem_private_key(key_pem.encode("ascii"), password=None)
        names = own.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
        fits = own.public_key() == key.public_key()
    except (*UNREADABLE, x509.ExtensionNotFound) as error:
        raise InvalidIdentityError(f"not a certificate of an OpsMap identity: {error}") from None
    if not fits:
        raise InvalidIdentityError("the certificate is for another key than ours")
    if len(uris) != 1 or uri not in (None, uris[0]):
        raise InvalidIdentityError(f"the certificate is of {', '.join(uris)[:200] or 'nobody'}, not of {uri}")
    return uris[0]


def _check_time(own: x509.Certificate, now: datetime) -> None:
    """A certificate that was just issued is valid now, or a clock is wrong."""
    begins, ends = own.not_valid_before_utc, own.not_valid_after_utc
    if begins <= now < ends:
        return
    raise InvalidIdentityError(
        f"the new certificate is valid from {begins:%Y-%m-%d %H:%M:%S} to {ends:%Y-%m-%d %H:%M:%S} UTC, and it is"
        f" {now:%Y-%m-%d %H:%M:%S} UTC by this host's clock, which is suspicious: set it right and try again"
    )
