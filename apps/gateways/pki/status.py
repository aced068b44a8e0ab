"""What a person has to know of an installation's PKI: every certificate with its days left, and what is to be done."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509

from apps.gateways.exceptions import PkiError
from apps.gateways.pki.authorities import (
    DEVELOPMENT_PASSPHRASE,
    INTERMEDIATES,
    read_authority,
    read_root,
    read_succession,
)
from apps.gateways.pki.files import has_key, read_certificate
from apps.gateways.pki.leaves import days_left
from apps.gateways.pki.naming import common_name
from apps.gateways.pki.revocation_lists import list_number, read_revocation_list
from apps.gateways.pki.root import is_encrypted
from apps.gateways.pki.signer import SIGNER
from opsmap_protocol.enums import PeerRole

AUTHORITY_NOTICE_DAYS = 365.0
"""The reference renews intermediates every four of their five years."""

_LEAF_NOTICE = 0.25
"""The part of its life that a certificate of ours never comes down to as long as it is renewed at two thirds."""


_Describe = Callable[[Path, "PkiStatus"], None]


@dataclass(slots=True)
class PkiStatus:
    """Lines of text: what there is, and what somebody has to do about it."""

    lines: list[str] = field(default_factory=list)
    to_do: list[str] = field(default_factory=list)


def describe_pki(folder: Path) -> PkiStatus:
    status = PkiStatus()
    for describe in (_root, *(_branch_of(role) for role in INTERMEDIATES), _leaves, _revocations):
        try:
            describe(folder, status)
        except PkiError as error:
            status.to_do.append(str(error))
    return status


def _root(folder: Path, status: PkiStatus) -> None:
    root = read_root(folder / "ca")
    status.lines.append(_line(root, "root"))
    if days_left(root) < AUTHORITY_NOTICE_DAYS:
        status.to_do.append("The root ends: everything has to be enrolled anew below another one.")
    key = folder / "ca" / "root.key"
    if not key.exists():
        return
    if (folder / "ca" / DEVELOPMENT_PASSPHRASE).exists():
        status.lines.append("  The root's key and its passphrase lie here: a PKI for this machine, not for production.")
    else:
        kind = "" if is_encrypted(key) else ", unencrypted"
        status.to_do.append(f"The root's key lies here{kind}: move {key} to where no server is.")


def _branch_of(role: PeerRole) -> _Describe:
    def describe(folder: Path, status: PkiStatus) -> None:
        present = read_succession(folder / "ca", role)
        status.lines.append(_line(present.issuing, f"issues for {role}"))
        status.lines += [_line(each, "follows, once activated") for each in present.following]
        status.lines += [_line(each, "former, still trusted") for each in present.former]
        if days_left(present.issuing) < AUTHORITY_NOTICE_DAYS:
            step = "activate" if present.following else "rotate"
            status.to_do.append(f"{common_name(present.issuing)} ends soon: `manage.py pki {step} {role}`.")
        for former in present.former:
            if days_left(former) < 0:
                status.to_do.append(f"{common_name(former)} has ended: `manage.py pki retire {role}`.")
        read_authority(folder / "ca", role)

    return describe


def _leaves(folder: Path, status: PkiStatus) -> None:
    for name, what in (("backend", "link server"), (SIGNER, "seals commands")):
        path = folder / "leaf" / f"{name}.crt"
        certificate = read_certificate(path)
        status.lines.append(_line(certificate, what))
        life = certificate.not_valid_after_utc - certificate.not_valid_before_utc
        if not has_key(certificate, path.with_suffix(".key")):
            status.to_do.append(f"{path} has not the key beside it: `manage.py pki renew`.")
        elif days_left(certificate) < _LEAF_NOTICE * life.total_seconds() / 86400:
            status.to_do.append(f"{path} was not renewed: does the worker run, with beat? Or `manage.py pki renew`.")


def _revocations(folder: Path, status: PkiStatus) -> None:
    listed = read_revocation_list(folder / "ca")
    if listed is not None:
        status.lines.append(f"  {len(list(listed))} signing keys revoked (list number {list_number(listed)})")


def _line(certificate: x509.Certificate, what: str) -> str:
    ends = f"{certificate.not_valid_after_utc:%Y-%m-%d}"
    return f"  {common_name(certificate):<24} {what:<26} until {ends}, {_left(days_left(certificate))}"


def _left(days: float) -> str:
    if days < 0:
        return "ENDED"
    return f"{days:.0f} days left" if days >= 2 else f"{days * 24:.1f} hours left"
