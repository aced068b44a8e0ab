"""Certificate signing requests (PKCS #10): what counts of one is its key, and that the sender has it."""

from __future__ import annotations

import binascii

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from apps.gateways.pki.files import PublicKey
from opsmap_protocol.enums import PeerRole

MAX_REQUEST_BYTES = 4096


class RequestRefusedError(Exception):
    """No certificate is issued for this request; the message says why."""


def read_request(encoded: str, role: PeerRole) -> PublicKey:
    """The public key in a request (DER in base64), whose private half the sender has.

    Names, extensions and whatever else the request says is not looked at: who asks is known otherwise.

    Raises:
        RequestRefusedError: too large, no request, a key of the wrong kind, or not signed by that key.
    """
    if len(encoded) > MAX_REQUEST_BYTES * 4 // 3 + 4:
        raise RequestRefusedError(f"a certificate request has at most {MAX_REQUEST_BYTES} bytes")
    try:
        request = x509.load_der_x509_csr(binascii.a2b_base64(encoded.encode("ascii"), strict_mode=True))
        key = request.public_key()
        is_signed = request.is_signature_valid
    except (ValueError, UnsupportedAlgorithm, InvalidSignature, x509.InvalidVersion):
        raise RequestRefusedError("not a certificate request (PKCS #10, DER in base64)") from None
    if not _is_of_kind(key, role):
        kinds = "Ed25519" if role is PeerRole.AGENT else "P-256 or Ed25519"
        raise RequestRefusedError(f"the key of an {role} has to be {kinds}".replace("an gateway", "a gateway"))
    if not is_signed:
        raise RequestRefusedError("the request is not signed by the key in it")
    assert isinstance(key, ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey)
    return key


def _is_of_kind(key: object, role: PeerRole) -> bool:
    """Agents seal with the key of their certificate, which needs Ed25519; gateways only speak TLS with theirs."""
    if isinstance(key, ed25519.Ed25519PublicKey):
        return True
    is_p256 = isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1)
    return role is PeerRole.GATEWAY and is_p256
