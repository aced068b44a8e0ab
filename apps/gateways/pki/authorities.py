"""The root and its three intermediates on disk, and how one intermediate follows another.

`root.crt` is what everybody pins. `<role>.crt` holds the intermediates of one branch: the one that issues first, then
the others that are trusted, because they are to follow or because what they issued is still about. Their keys are
`<role>.key` or `<role>-<number>.key`. The root's key is needed to make an intermediate, and for nothing else.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from apps.gateways.exceptions import PkiError
from apps.gateways.pki.files import read_certificate, read_certificates, write_certificates, write_file, write_pair
from apps.gateways.pki.files import write_key as write_plain_key
from apps.gateways.pki.naming import common_name, fingerprint, key_usage, subject_name
from apps.gateways.pki.root import check_passphrase, read_root_key, write_root_key
from opsmap_protocol.enums import PeerRole

ROOT_LIFE = timedelta(days=20 * 365)
INTERMEDIATE_LIFE = timedelta(days=5 * 365)
INTERMEDIATES = (PeerRole.BACKEND, PeerRole.GATEWAY, PeerRole.AGENT)
DEVELOPMENT_PASSPHRASE = "root.passphrase"  # noqa: S105 - the name of a file
"""Only in a PKI that a machine made for itself: whoever has it has the root, so none of this is for production."""

_CLOCK_SKEW = timedelta(minutes=5)
_NUMBERED = re.compile(r".* CA (?P<number>\d+)")


@dataclass(frozen=True, slots=True)
class Authority:
    """An intermediate that issues, with its key, and all of its branch that is trusted, itself first."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    trusted: tuple[x509.Certificate, ...] = ()

    def has_issued(self, certificate: x509.Certificate) -> bool:
        """By its key: an authority that was made anew may have the name of the one before."""
        return is_issued_by(certificate, self.certificate)


def is_issued_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


# Making


def create_authorities(folder: Path, passphrase: str, *, is_random: bool = False) -> None:
    """A root, whose key is encrypted by `passphrase`, and the three intermediates.

    Raises:
        PkiError: something is there already, or the passphrase is too short.
    """
    check_passphrase(passphrase)
    present = sorted(path.name for path in folder.glob("*.*") if path.suffix in {".crt", ".key"})
    if present:
        raise PkiError(f"{folder} is not empty ({', '.join(present)}); a PKI is made once.")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    root_key = ec.generate_private_key(ec.SECP256R1())
    root = _certify("OpsMap Root CA", root_key, None, ROOT_LIFE, path_length=1)
    for role in INTERMEDIATES:
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _certify(_name(role, 1), key, Authority(root, root_key), INTERMEDIATE_LIFE, path_length=0)
        write_pair(folder, role, [certificate], key)
    # Last: a folder with a root is a whole one.
    write_root_key(folder / "root.key", root_key, passphrase, is_random=is_random)
    write_certificates(folder / "root.crt", [root])


def ensure_authorities(folder: Path) -> dict[PeerRole, Authority]:
    """The three intermediates in `folder`, made together with their root if nothing is there yet.

    What is made so is for a machine of one's own: the root key's passphrase is random, and lies beside it.

    Raises:
        PkiError: some are there and some are not; that must never be papered over with new ones.
    """
    if not any((folder / f"{name}.crt").exists() for name in ("root", *INTERMEDIATES)):
        passphrase = secrets.token_urlsafe(32)
        create_authorities(folder, passphrase, is_random=True)
        write_file(folder / DEVELOPMENT_PASSPHRASE, f"{passphrase}\n".encode(), mode=0o600)
    return read_authorities(folder)


# Reading


def read_authorities(folder: Path) -> dict[PeerRole, Authority]:
    """The three intermediates that issue. The root's key need not be here.

    Raises:
        PkiError: a part is missing, or a key is not the one of its certificate.
    """
    if not folder.is_dir():
        raise PkiError(f"{folder.parent} has no authorities (ca/): `manage.py pki create` makes them.")
    missing = {"root"} if not (folder / "root.crt").exists() else set()
    missing |= {role for role in INTERMEDIATES if not (folder / f"{role}.crt").exists()}
    missing |= {role for role in INTERMEDIATES if not _keys(folder, role)}
    if missing:
        raise PkiError(f"{folder} lacks: {', '.join(sorted(missing))}. Restore them, or move the folder away.")
    return {role: read_authority(folder, role) for role in INTERMEDIATES}


def read_authority(folder: Path, role: PeerRole) -> Authority:
    """The intermediate of one branch that issues. Raises PkiError."""
    trusted = read_trusted(folder, role)
    for path in _keys(folder, role):
        key = _read_key(path)
        if key.public_key() == trusted[0].public_key():
            return Authority(trusted[0], key, tuple(trusted))
    raise PkiError(f"{folder} lacks the key of {common_name(trusted[0])}, which is the first in {role}.crt.")


def read_issuer(folder: Path, role: PeerRole, certificate: x509.Certificate) -> Authority:
    """The intermediate of one branch that issued this certificate: not always the one that issues now.

    Raises:
        PkiError: it, or its key, is not here any more.
    """
    trusted = read_trusted(folder, role)
    for issuer in trusted:
        if is_issued_by(certificate, issuer):
            for path in _keys(folder, role):
                key = _read_key(path)
                if key.public_key() == issuer.public_key():
                    return Authority(issuer, key, tuple(trusted))
    raise PkiError(f"{folder} lacks the {role.capitalize()} CA, or its key, that issued {fingerprint(certificate)}.")


def read_trusted(folder: Path, role: PeerRole) -> list[x509.Certificate]:
    """All trusted intermediates of one branch, the one that issues first. Raises PkiError."""
    return read_certificates(folder / f"{role}.crt")


def read_root(folder: Path) -> x509.Certificate:
    """Raises PkiError."""
    return read_certificate(folder / "root.crt")


def _keys(folder: Path, role: PeerRole) -> list[Path]:
    return [path for path in (folder / f"{role}.key", *sorted(folder.glob(f"{role}-*.key"))) if path.exists()]


def _read_key(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise PkiError(f"{path} cannot be read: {error}") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise PkiError(f"{path} is not an elliptic-curve key")
    return key


# One after the other


@dataclass(frozen=True, slots=True)
class Succession:
    """The intermediates of one branch by what they are for."""

    issuing: x509.Certificate
    following: tuple[x509.Certificate, ...]
    former: tuple[x509.Certificate, ...]


def read_succession(folder: Path, role: PeerRole) -> Succession:
    """Raises PkiError."""
    issuing, *others = read_trusted(folder, role)
    mine = authority_number(issuing)
    return Succession(
        issuing,
        following=tuple(each for each in others if authority_number(each) > mine),
        former=tuple(each for each in others if authority_number(each) < mine),
    )


def add_next(folder: Path, role: PeerRole, *, root_key: Path, passphrase: str | None) -> x509.Certificate:
    """Make the next intermediate of a branch: trusted from now on beside the present one, which goes on issuing.

    Raises:
        PkiError: there is one already, or the root key is not there or not ours.
    """
    root, present = read_root(folder), read_succession(folder, role)
    if present.following:
        raise PkiError(f"{common_name(present.following[0])} is there already, and waits to be activated.")
    number = max(authority_number(each) for each in (present.issuing, *present.former)) + 1
    signer = Authority(root, read_root_key(root_key, passphrase, root))
    key = ec.generate_private_key(ec.SECP256R1())
    made = _certify(_name(role, number), key, signer, INTERMEDIATE_LIFE, path_length=0)
    write_plain_key(folder / f"{role}-{number}.key", key)
    write_certificates(folder / f"{role}.crt", [present.issuing, *present.former, made])
    return made


def activate_next(folder: Path, role: PeerRole) -> x509.Certificate:
    """Issue by the next intermediate from now on; the one before stays trusted. Raises PkiError."""
    present = read_succession(folder, role)
    if not present.following:
        raise PkiError(f"There is no next {common_name(present.issuing)}: `manage.py pki rotate {role}` makes one.")
    following = present.following[0]
    if not any(_read_key(path).public_key() == following.public_key() for path in _keys(folder, role)):
        raise PkiError(f"{folder} lacks the key of {common_name(following)}.")
    write_certificates(folder / f"{role}.crt", [following, present.issuing, *present.former])
    return following


def retire_former(folder: Path, role: PeerRole) -> tuple[x509.Certificate, ...]:
    """Trust the former intermediates no more; what they issued does not count any more. Raises PkiError."""
    present = read_succession(folder, role)
    if not present.former:
        raise PkiError(f"There is nothing to retire beside {common_name(present.issuing)}.")
    write_certificates(folder / f"{role}.crt", [present.issuing, *present.following])
    kept = [each.public_key() for each in (present.issuing, *present.following)]
    for path in _keys(folder, role):
        if _read_key(path).public_key() not in kept:
            path.unlink()
    return present.former


def authority_number(certificate: x509.Certificate) -> int:
    """Which one of its branch it is: its name says so, from the second on."""
    match = _NUMBERED.fullmatch(common_name(certificate))
    return int(match["number"]) if match else 1


def _name(role: PeerRole, number: int) -> str:
    name = f"OpsMap {role.capitalize()} CA"
    return name if number == 1 else f"{name} {number}"


def _certify(
    name: str, key: ec.EllipticCurvePrivateKey, signer: Authority | None, life: timedelta, *, path_length: int
) -> x509.Certificate:
    now = datetime.now(UTC)
    subject = subject_name(name)
    ends = now + life
    if signer:
        ends = min(ends, signer.certificate.not_valid_after_utc)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(signer.certificate.subject if signer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(ends)
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(key_usage(is_authority=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if signer:
        identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.key.public_key())
        builder = builder.add_extension(identifier, critical=False)
    return builder.sign(signer.key if signer else key, hashes.SHA256())
