"""X.509 revocation lists: whose they are, their number, whom they name. Loads OpenSSL's binding."""

from __future__ import annotations

import binascii
from collections.abc import Sequence

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from opsmap_protocol.errors import InvalidIdentityError
from opsmap_trust.apart import RevocationList
from opsmap_trust.certificates import UNREADABLE, authority_id

MAX_CRL_BYTES = 192 * 1024
MAX_REVOKED = 5_000


def inspect_revocations(encoded: str, authorities: Sequence[x509.Certificate]) -> RevocationList:
    """What a CRL says that one of `authorities` signed. Raises InvalidIdentityError."""
    try:
        der = binascii.a2b_base64(encoded[: 2 * MAX_CRL_BYTES], strict_mode=True)
        crl = x509.load_der_x509_crl(der)
        issuer = next((each for each in authorities if _is_signed_by(crl, each)), None)
        if issuer is None:
            raise InvalidIdentityError("the revocation list was not signed by the expected authority")
        number = crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
        if len(crl) > MAX_REVOKED:
            raise InvalidIdentityError(f"the revocation list has {len(crl)} entries, at most {MAX_REVOKED} are read")
        serials = frozenset(f"{entry.serial_number:x}" for entry in crl)
    except x509.ExtensionNotFound:
        raise InvalidIdentityError("the revocation list has no number") from None
    except UNREADABLE as error:
        raise InvalidIdentityError(f"not a revocation list: {error}") from None
    return RevocationList(authority_id(issuer), number, serials)


def _is_signed_by(crl: x509.CertificateRevocationList, authority: x509.Certificate) -> bool:
    try:
        return crl.issuer == authority.subject and crl.is_signature_valid(authority.public_key())  # type: ignore[arg-type]  # any other kind raises TypeError
    except (*UNREADABLE, TypeError, InvalidSignature):
        return False
