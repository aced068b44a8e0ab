"""New keys and the requests (PKCS #10) for their certificates. Loads OpenSSL's binding; daemons ask `apart.py`."""

from __future__ import annotations

import binascii

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from opsmap_trust.apart import KeyKind, NewKey


def new_key(kind: KeyKind) -> NewKey:
    """The request names nobody: who its sender may be, the issuer knows by other means. It only proves the key."""
    key: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey
    if kind == "ed25519":
        key, digest = ed25519.Ed25519PrivateKey.generate(), None
    else:
        key, digest = ec.generate_private_key(ec.SECP256R1()), hashes.SHA256()
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, digest)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    der = request.public_bytes(serialization.Encoding.DER)
    return NewKey(pem.decode("ascii"), binascii.b2a_base64(der, newline=False).decode("ascii"))
