"""Certificates and keys on disk: PEM, written whole or not at all, and never by two at once."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from apps.gateways.exceptions import PkiError

PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
PublicKey = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey

_PEM = serialization.Encoding.PEM


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One process at a time changes what is in `folder`. Who only reads need not wait: files change whole."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def write_file(path: Path, content: bytes, *, mode: int) -> None:
    """Whole or not at all, on the disk when this returns, and never readable by others for a moment."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def write_certificates(path: Path, certificates: Sequence[x509.Certificate]) -> None:
    write_file(path, b"".join(each.public_bytes(_PEM) for each in certificates), mode=0o644)


def write_key(path: Path, key: PrivateKey) -> None:
    """Unencrypted: for keys that a server needs without anybody there, readable by its user only."""
    encoded = key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    write_file(path, encoded, mode=0o600)


def write_pair(folder: Path, name: str, chain: Sequence[x509.Certificate], key: PrivateKey) -> None:
    """The key first: where the certificate is, its key is."""
    write_key(folder / f"{name}.key", key)
    write_certificates(folder / f"{name}.crt", chain)


def read_certificates(path: Path) -> list[x509.Certificate]:
    """All certificates of a file, at least one. Raises PkiError."""
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except OSError as error:
        raise PkiError(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise PkiError(f"{path}: not a certificate: {error}") from None


def read_certificate(path: Path) -> x509.Certificate:
    """The first certificate of a file. Raises PkiError."""
    return read_certificates(path)[0]


def has_key(certificate: x509.Certificate, path: Path) -> bool:
    """Whether the key in a file is the certificate's own: a renewal that was cut short leaves another."""
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError):
        return False
    return key.public_key() == certificate.public_key()
