"""The revocation list of the Backend CA: which signing keys do not count any more.

Only the keys that seal are on it. Gateways and agents are revoked by their records in the database, which the backend
asks whenever one of them comes; but an agent cannot ask the backend whether the backend itself is to be believed.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from apps.gateways.exceptions import PkiError
from apps.gateways.pki.authorities import Authority
from apps.gateways.pki.files import write_file

REVOCATION_LIST = "backend.crl"


def read_revocation_list(ca_folder: Path) -> x509.CertificateRevocationList | None:
    """None if nothing was ever revoked. Raises PkiError."""
    path = ca_folder / REVOCATION_LIST
    try:
        return x509.load_pem_x509_crl(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise PkiError(f"{path}: not a revocation list: {error}") from None


def list_number(revoked: x509.CertificateRevocationList) -> int:
    return revoked.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number


def revoke_serial(ca_folder: Path, authority: Authority, certificate: x509.Certificate) -> int:
    """Put a certificate on the list; returns the list's new number, which only ever grows.

    Entries stay, also of certificates that have ended: there are few, and a list that shrinks invites questions.
    """
    present = read_revocation_list(ca_folder)
    now = datetime.now(UTC)
    number = list_number(present) + 1 if present is not None else 1
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority.certificate.subject)
        .last_update(now)
        # It holds until there is a newer one.
        .next_update(authority.certificate.not_valid_after_utc)
        .add_extension(x509.CRLNumber(number), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False)
    )
    for entry in present or ():
        if entry.serial_number != certificate.serial_number:
            builder = builder.add_revoked_certificate(entry)
    revoked = x509.RevokedCertificateBuilder(certificate.serial_number, now, []).build()
    builder = builder.add_revoked_certificate(revoked)
    made = builder.sign(authority.key, hashes.SHA256())
    write_file(ca_folder / REVOCATION_LIST, made.public_bytes(serialization.Encoding.PEM), mode=0o644)
    return number
