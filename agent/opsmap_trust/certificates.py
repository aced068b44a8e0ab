"""X.509 certificates of signing keys: who signed them, whose they are, when they are valid.

Loads OpenSSL's binding, 9 MB of memory. An agent, which must stay small, asks in a process of its own instead (see
`inspection.py`): whatever a gateway sends as a certificate is never parsed in the process that runs commands.
"""

from __future__ import annotations

import binascii
import hashlib
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.utils import CryptographyDeprecationWarning

from opsmap_protocol.errors import InvalidIdentityError
from opsmap_trust.inspection import CertifiedKey

MAX_CERTIFICATE_BYTES = 8 * 1024

UNREADABLE = (
    ValueError,
    UnsupportedAlgorithm,
    CryptographyDeprecationWarning,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)
"""What the library says of something that is no certificate, or of a kind that it does not know."""


def read_authorities(path: Path) -> list[x509.Certificate]:
    """The CA certificates in a PEM file. Raises OSError or ValueError."""
    return x509.load_pem_x509_certificates(path.read_bytes())


def encode_certificate(certificate: x509.Certificate) -> str:
    """As it travels in messages: DER in base64."""
    der = certificate.public_bytes(serialization.Encoding.DER)
    return binascii.b2a_base64(der, newline=False).decode("ascii")


def inspect_certificate(encoded: str, authorities: list[x509.Certificate]) -> CertifiedKey:
    """The key in a certificate that one of `authorities` issued for signing.

    Whether it is valid at this moment is for the caller to ask: it is asked again with each use. It is not valid
    before or after its authority is.

    Raises:
        InvalidIdentityError: anything is wrong with it; the message says what.
    """
    try:
        return _inspect(decode_certificate(encoded), authorities)
    except UNREADABLE as error:
        # Most of a certificate is read only when it is asked for.
        raise InvalidIdentityError(f"not a certificate: {error}") from None


def _inspect(certificate: x509.Certificate, authorities: list[x509.Certificate]) -> CertifiedKey:
    authority = next((each for each in authorities if is_issued_by(certificate, each)), None)
    if authority is None:
        raise InvalidIdentityError("the certificate was not issued by the expected authority")
    key = certificate.public_key()
    if not isinstance(key, Ed25519PublicKey):
        raise InvalidIdentityError("the certificate's key is not an Ed25519 key")
    return CertifiedKey(
        key_id=certificate.fingerprint(hashes.SHA256()).hex(),
        public_bytes=key.public_bytes_raw(),
        uri=_signing_identity(certificate),
        not_before=max(certificate.not_valid_before_utc, authority.not_valid_before_utc),
        not_after=min(certificate.not_valid_after_utc, authority.not_valid_after_utc),
        serial=f"{certificate.serial_number:x}",
        authority=authority_id(authority),
    )


def decode_certificate(encoded: str) -> x509.Certificate:
    """DER in base64. Raises InvalidIdentityError."""
    try:
        der = binascii.a2b_base64(encoded[: 2 * MAX_CERTIFICATE_BYTES], strict_mode=True)
        return x509.load_der_x509_certificate(der)
    except UNREADABLE as error:
        raise InvalidIdentityError(f"not a certificate: {error}") from None


def is_issued_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    """Whether the authority's key made it."""
    # By key and name: an authority that was made anew has the name of the one before.
    try:
        certificate.verify_directly_issued_by(authority)
    except (*UNREADABLE, TypeError, InvalidSignature):
        return False
    return True


def authority_id(authority: x509.Certificate) -> str:
    """An authority by its key: serial numbers mean something only together with who gave them."""
    public = authority.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return hashlib.sha256(public).hexdigest()


def _signing_identity(certificate: x509.Certificate) -> str:
    """The one URI of a leaf that may sign."""
    try:
        extensions = certificate.extensions
        constraints = extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = extensions.get_extension_for_class(x509.KeyUsage).value
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound as error:
        raise InvalidIdentityError(f"the certificate lacks what a signing certificate has: {error}") from None
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    if constraints.ca or not usage.digital_signature or len(uris) != 1:
        raise InvalidIdentityError("not a certificate for signing: one URI, no CA, digital signatures")
    return uris[0]
