"""The files of the backend's signing key: `signer.{crt,key}`, and `signer-*.crt` of the keys before."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509

from apps.gateways.exceptions import PkiError
from apps.gateways.pki.authorities import Authority, read_issuer
from apps.gateways.pki.files import has_key, read_certificate, read_certificates, write_certificates
from apps.gateways.pki.leaves import is_good, make_leaf
from apps.gateways.pki.naming import fingerprint
from apps.gateways.pki.revocation_lists import revoke_serial
from opsmap_protocol.enums import PeerRole
from opsmap_protocol.identity import BACKEND_SIGNER_URI

SIGNER = "signer"
SIGNER_LIFE = timedelta(days=90)


def renew_signer(folder: Path, authority: Authority, *, is_forced: bool = False, life: timedelta = SIGNER_LIFE) -> bool:
    """The backend's signing key in `folder`, made anew if missing, two thirds spent, or asked for.

    The certificate of the key before stays as `signer-<fingerprint>.crt` until it expires, and is trusted beside the
    new one. False if the present key stays.
    """
    path = folder / f"{SIGNER}.crt"
    if path.exists():
        present = read_certificate(path)
        is_usable = is_good(present, authority, BACKEND_SIGNER_URI, seals=True)
        if is_usable and not is_forced and has_key(present, folder / f"{SIGNER}.key"):
            return False
        write_certificates(folder / _former_name(present), read_certificates(path))
    now = datetime.now(UTC)
    for former in folder.glob(f"{SIGNER}-*.crt"):
        if read_certificate(former).not_valid_after_utc <= now:
            former.unlink()
    make_leaf(folder, SIGNER, authority, uri=BACKEND_SIGNER_URI, hosts=(), seals=True, life=life)
    return True


def find_signer(folder: Path, key_id: str) -> tuple[x509.Certificate, bool]:
    """The certificate of a signing key, and whether it is the present one.

    `key_id` is the beginning of the certificate's fingerprint; empty: the present one.

    Raises:
        PkiError: there is no such key, or more than one.
    """
    present, *former = (folder / f"{SIGNER}.crt", *sorted(folder.glob(f"{SIGNER}-*.crt")))
    found = [
        (certificate, path == present)
        for path in (present, *(former if key_id else ()))
        if fingerprint(certificate := read_certificate(path)).startswith(key_id)
    ]
    if len(found) != 1:
        raise PkiError(f"There is {'no' if not found else 'more than one'} signing key {key_id!r} in {folder}.")
    return found[0]


def revoke_signer(pki_dir: Path, authority: Authority, *, key_id: str = "", life: timedelta = SIGNER_LIFE) -> str:
    """A signing key was stolen: if it was the present one, a new one is made, and it goes onto the revocation list.

    In this order, so that nothing is ever sealed with a key that is on the list. Were this cut short, the key would
    still count: then it has to be revoked by its id. Returns that, whole.

    Raises:
        PkiError: as `find_signer`, or the authority that issued its certificate is not here any more.
    """
    leaf, ca_folder = pki_dir / "leaf", pki_dir / "ca"
    certificate, is_present = find_signer(leaf, key_id)
    # Of the authority that issued it: serial numbers mean nothing beside the names of others.
    issuer = read_issuer(ca_folder, PeerRole.BACKEND, certificate)
    if is_present:
        renew_signer(leaf, authority, is_forced=True, life=life)
    revoke_serial(ca_folder, issuer, certificate)
    (leaf / _former_name(certificate)).unlink(missing_ok=True)
    return fingerprint(certificate)


def _former_name(certificate: x509.Certificate) -> str:
    return f"{SIGNER}-{fingerprint(certificate)[:16]}.crt"
