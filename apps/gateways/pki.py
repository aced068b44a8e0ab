"""Certificates: one root, three intermediates, and leaves that say organization, role and name (SPEC 2).

Each side trusts exactly one intermediate, so a branch cannot speak for another: gateways are verified by the Gateway
CA, agents by the Agent CA, the backend by the Backend CA. Keys are ECDSA P-256: a handshake costs a fraction of RSA's.
Those that seal frames are Ed25519: the backend's signing key, and the keys of agents, which serve for TLS too.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from apps.gateways.exceptions import LinkRefusedError, PkiError
from opsmap_protocol.enums import PeerRole
from opsmap_protocol.errors import InvalidIdentityError
from opsmap_protocol.identity import BACKEND_SIGNER_URI, Identity, parse_identity

ROOT_LIFE = timedelta(days=20 * 365)
INTERMEDIATE_LIFE = timedelta(days=5 * 365)
LEAF_LIFE = timedelta(days=365)
INTERMEDIATES = (PeerRole.BACKEND, PeerRole.GATEWAY, PeerRole.AGENT)

SIGNER = "signer"
"""The name of the files of the backend's signing key."""

_CLOCK_SKEW = timedelta(minutes=5)
_TLS_USES = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
_SIGNER_USES = [ExtendedKeyUsageOID.CODE_SIGNING]
"""Certifies a key for sealing commands; no TLS peer accepts it."""

PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
PublicKey = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate that may sign others, with its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def ensure_authorities(folder: Path) -> dict[PeerRole, Authority]:
    """The three intermediates in `folder`, made together with their root if nothing is there yet.

    Raises:
        PkiError: some are there and some are not; that must never be papered over with new ones.
    """
    names = ["root", *INTERMEDIATES]
    present = [name for name in names if (folder / f"{name}.crt").exists() and (folder / f"{name}.key").exists()]
    if not present:
        _make_authorities(folder)
    elif len(present) != len(names):
        missing = ", ".join(sorted(set(names) - set(present)))
        raise PkiError(f"{folder} has certificates but lacks: {missing}. Restore them, or move the folder away.")
    return {role: _read_authority(folder, role) for role in INTERMEDIATES}


def _make_authorities(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    root_key = ec.generate_private_key(ec.SECP256R1())
    root = _certificate_authority("OpsMap Root CA", root_key, None, ROOT_LIFE, path_length=1)
    for role in INTERMEDIATES:
        key = ec.generate_private_key(ec.SECP256R1())
        name = f"OpsMap {role.capitalize()} CA"
        certificate = _certificate_authority(name, key, Authority(root, root_key), INTERMEDIATE_LIFE, path_length=0)
        _write_pair(folder, role, [certificate], key)
    # Last: a folder with a root is a whole one.
    _write_pair(folder, "root", [root], root_key)


def _read_authority(folder: Path, name: str) -> Authority:
    certificate = x509.load_pem_x509_certificate((folder / f"{name}.crt").read_bytes())
    key = serialization.load_pem_private_key((folder / f"{name}.key").read_bytes(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise PkiError(f"{folder / name}.key is not an elliptic-curve key")
    return Authority(certificate, key)


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
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
        if _is_usable(certificate, authority, uri, seals=seals):
            return fingerprint(certificate)
    return _make_leaf(folder, name, authority, uri=uri, hosts=hosts, seals=seals, life=life)


def _make_leaf(
    folder: Path, name: str, authority: Authority, *, uri: str, hosts: Iterable[str], seals: bool, life: timedelta
) -> str:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    key = ed25519.Ed25519PrivateKey.generate() if seals else ec.generate_private_key(ec.SECP256R1())
    certificate = issue(authority, key.public_key(), uri=uri, hosts=hosts, life=life)
    _write_pair(folder, name, [certificate, authority.certificate], key)
    return fingerprint(certificate)


def renew_signer(folder: Path, authority: Authority, *, is_forced: bool = False, life: timedelta = LEAF_LIFE) -> bool:
    """The backend's signing key in `folder`, made anew if missing, two thirds spent, or asked for.

    The certificate of the key before stays as `signer-<fingerprint>.crt` until it expires, and is trusted beside the
    new one. False if the present key stays.
    """
    path = folder / f"{SIGNER}.crt"
    if path.exists():
        present = x509.load_pem_x509_certificate(path.read_bytes())
        is_usable = _is_usable(present, authority, BACKEND_SIGNER_URI, seals=True)
        if is_usable and not is_forced and _has_key(present, folder / f"{SIGNER}.key"):
            return False
        _write(folder / f"{SIGNER}-{fingerprint(present)[:16]}.crt", path.read_bytes(), mode=0o644)
    now = datetime.now(UTC)
    for former in folder.glob(f"{SIGNER}-*.crt"):
        if x509.load_pem_x509_certificate(former.read_bytes()).not_valid_after_utc <= now:
            former.unlink()
    _make_leaf(folder, SIGNER, authority, uri=BACKEND_SIGNER_URI, hosts=(), seals=True, life=life)
    return True


def _has_key(certificate: x509.Certificate, path: Path) -> bool:
    """Whether the key beside a certificate is its own: a renewal that was cut short leaves another."""
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError):
        return False
    return key.public_key() == certificate.public_key()


def _is_usable(certificate: x509.Certificate, authority: Authority, uri: str, *, seals: bool) -> bool:
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    is_fresh = datetime.now(UTC) < begin + (end - begin) * 2 / 3
    has_kind = isinstance(certificate.public_key(), ed25519.Ed25519PublicKey) is seals
    return is_fresh and has_kind and _is_signed_by(certificate, authority) and _uris(certificate) == [uri]


def _is_signed_by(certificate: x509.Certificate, authority: Authority) -> bool:
    # By its key: an authority that was made anew has the name of the one before.
    try:
        certificate.verify_directly_issued_by(authority.certificate)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def issue(
    authority: Authority,
    public_key: PublicKey,
    *,
    uri: str,
    hosts: Iterable[str],
    life: timedelta,
) -> x509.Certificate:
    """A leaf for one identity. The URI decides who it is; the hosts are where it may be a server."""
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(uri)]
    for host in hosts:
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(host)))
        except ValueError:
            names.append(x509.DNSName(host))
    uses = _SIGNER_USES if uri == BACKEND_SIGNER_URI else _TLS_USES
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(uri.rpartition("/")[2]))
        .issuer_name(authority.certificate.subject)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + life)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(is_authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )
    return builder.sign(authority.key, hashes.SHA256())


def _certificate_authority(
    name: str, key: ec.EllipticCurvePrivateKey, signer: Authority | None, life: timedelta, *, path_length: int
) -> x509.Certificate:
    now = datetime.now(UTC)
    subject = _name(name)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(signer.certificate.subject if signer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + life)
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(_key_usage(is_authority=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if signer:
        identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.key.public_key())
        builder = builder.add_extension(identifier, critical=False)
    return builder.sign(signer.key if signer else key, hashes.SHA256())


def _name(common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "OpsMap"),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64]),
        ]
    )


def _key_usage(*, is_authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        encipher_only=False,
        decipher_only=False,
    )


def _write_pair(folder: Path, name: str, chain: list[x509.Certificate], key: PrivateKey) -> None:
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    _write(folder / f"{name}.key", private, mode=0o600)
    _write(folder / f"{name}.crt", b"".join(item.public_bytes(pem) for item in chain), mode=0o644)


def _write(path: Path, content: bytes, *, mode: int) -> None:
    """Whole or not at all, and never readable by others for a moment."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
    temporary.replace(path)


def fingerprint(certificate: x509.Certificate) -> str:
    return certificate.fingerprint(hashes.SHA256()).hex()


def gateway_of_peer(pem: str) -> tuple[Identity, str]:
    """Who a verified client certificate belongs to, and its fingerprint.

    Raises:
        LinkRefusedError: not the certificate of a gateway.
    """
    certificate = x509.load_pem_x509_certificate(pem.encode())
    uris = _uris(certificate)
    try:
        if len(uris) != 1:
            raise InvalidIdentityError(f"expected one URI name, found {len(uris)}")
        identity = parse_identity(uris[0])
    except InvalidIdentityError as error:
        raise LinkRefusedError(str(error)) from None
    if identity.role is not PeerRole.GATEWAY:
        raise LinkRefusedError(f"expected a gateway, found the {identity.role} {identity.name}")
    return identity, fingerprint(certificate)


def _uris(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return names.get_values_for_type(x509.UniformResourceIdentifier)
