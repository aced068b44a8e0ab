"""What hosts do by themselves before they are known: keys, and certificate requests signed by them."""

from __future__ import annotations

import binascii
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID


def new_key(*, seals: bool = True) -> Any:
    return ed25519.Ed25519PrivateKey.generate() if seals else ec.generate_private_key(ec.SECP256R1())


def request_for(key: Any, common_name: str = "whoever") -> str:
    """PKCS #10, DER in base64."""
    builder = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)]))
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier("spiffe://opsmap/backend")]), critical=False
        )
    )
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return as_base64(builder.sign(key, algorithm).public_bytes(Encoding.DER))


def as_base64(der: bytes) -> str:
    return binascii.b2a_base64(der, newline=False).decode()


def certificate_in(encoded: str) -> x509.Certificate:
    return x509.load_der_x509_certificate(binascii.a2b_base64(encoded))
