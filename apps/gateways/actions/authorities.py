"""The installation's own PKI: its authorities, the link server's certificate, and the key that seals.

What is done to files is told first: files do not roll back, so what is made must be in the trail already.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import transaction

from apps.audit.actions import record_event
from apps.audit.actor import Actor
from apps.gateways.pki import SIGNER, authorities, fingerprint, renew_signer
from apps.gateways.pki.files import has_key, locked, read_certificate
from apps.gateways.pki.leaves import ensure_leaf, is_good
from apps.gateways.pki.naming import common_name, hosts_of
from apps.gateways.pki.signer import find_signer, revoke_signer
from opsmap_protocol.enums import PeerRole
from opsmap_protocol.identity import BACKEND_SIGNER_URI, BACKEND_URI

LINK_LEAF = "backend"


@transaction.atomic
def create_pki(*, folder: Path, passphrase: str, actor: Actor) -> None:
    """Root and intermediates, the link server's certificate and the key that seals.

    Raises:
        PkiError: there is one already, or the passphrase is too short.
    """
    with locked(folder):
        _record("pki.created", actor)
        authorities.create_authorities(folder / "ca", passphrase)
        _renew(folder)


@transaction.atomic
def rotate_authority(*, folder: Path, role: PeerRole, root_key: Path, passphrase: str | None, actor: Actor) -> str:
    """Make and publish the next intermediate of a branch; the present one goes on issuing. Returns its name.

    Raises:
        PkiError: there is a next one already, or the root key is not there or not ours.
    """
    with locked(folder):
        made = authorities.add_next(folder / "ca", role, root_key=root_key, passphrase=passphrase)
        _record("pki.authority_added", actor, authority=common_name(made), sha256=fingerprint(made))
        return common_name(made)


@transaction.atomic
def activate_authority(*, folder: Path, role: PeerRole, actor: Actor) -> str:
    """Issue by the next intermediate of a branch from now on. Returns its name. Raises PkiError."""
    with locked(folder):
        following = authorities.activate_next(folder / "ca", role)
        _record("pki.authority_activated", actor, authority=common_name(following), sha256=fingerprint(following))
        if role is PeerRole.BACKEND:
            _renew(folder)
        return common_name(following)


@transaction.atomic
def retire_authority(*, folder: Path, role: PeerRole, actor: Actor) -> list[str]:
    """Trust the former intermediates of a branch no more. Returns their names. Raises PkiError."""
    with locked(folder):
        names = [common_name(each) for each in authorities.retire_former(folder / "ca", role)]
        _record("pki.authority_retired", actor, authorities=names)
        return names


@transaction.atomic
def renew_own_certificates(*, folder: Path, actor: Actor) -> list[str]:
    """The link server's certificate and the key that seals, if they are missing or two thirds spent.

    Returns which were made anew. Link servers notice by themselves.

    Raises:
        PkiError: the folder has no whole PKI.
    """
    due = due_renewals(folder)
    if due:
        with locked(folder):
            _record("pki.renewed", actor, renewed=due)
            _renew(folder)
    return due


def due_renewals(folder: Path) -> list[str]:
    """Which of this installation's own certificates have to be made anew: "link", "signer". Raises PkiError."""
    authority = authorities.read_authority(folder / "ca", PeerRole.BACKEND)
    leaf = folder / "leaf"
    due = []
    for what, name, uri in (("link", LINK_LEAF, BACKEND_URI), ("signer", SIGNER, BACKEND_SIGNER_URI)):
        path = leaf / f"{name}.crt"
        present = read_certificate(path) if path.exists() else None
        if (
            present is None
            or not is_good(present, authority, uri, seals=name == SIGNER)
            or not has_key(present, path.with_suffix(".key"))
            or (name == LINK_LEAF and set(hosts_of(present)) != set(settings.LINK_HOSTS))
        ):
            due.append(what)
    return due


def _renew(folder: Path) -> None:
    authority, leaf = authorities.read_authority(folder / "ca", PeerRole.BACKEND), folder / "leaf"
    path = leaf / f"{LINK_LEAF}.crt"
    if path.exists() and set(hosts_of(read_certificate(path))) != set(settings.LINK_HOSTS):
        path.unlink()
    hosts, life = settings.LINK_HOSTS, settings.CERTIFICATE_LIFE
    ensure_leaf(leaf, LINK_LEAF, authority, uri=BACKEND_URI, hosts=hosts, life=life)
    renew_signer(leaf, authority, life=settings.SIGNER_LIFE)


@transaction.atomic
def rotate_signing_key(*, folder: Path, actor: Actor) -> str:
    """A new key to seal with; the one before stays trusted until its certificate expires. Returns the new key's id.

    Link servers notice by themselves within a second and tell every connected agent.

    Raises:
        PkiError: the folder has no whole PKI.
    """
    authority = authorities.read_authorities(folder / "ca")[PeerRole.BACKEND]
    with locked(folder):
        _record("signing_key.rotated", actor, target="signingKey", formerKeyId=_key_id(folder))
        renew_signer(folder / "leaf", authority, is_forced=True, life=settings.SIGNER_LIFE)
    return _key_id(folder)


@transaction.atomic
def revoke_signing_key(*, folder: Path, key_id: str, actor: Actor) -> tuple[str, str]:
    """A signing key does not count any more: agents hear so by the revocation list of the Backend CA.

    `key_id` is the beginning of its id, empty for the present one, which is replaced at once. Returns the revoked and
    the present key's ids.

    Raises:
        PkiError: there is no such key.
    """
    authority = authorities.read_authority(folder / "ca", PeerRole.BACKEND)
    with locked(folder):
        certificate, _ = find_signer(folder / "leaf", key_id)
        _record("signing_key.revoked", actor, target="signingKey", keyId=fingerprint(certificate))
        revoked = revoke_signer(folder, authority, key_id=key_id, life=settings.SIGNER_LIFE)
    return revoked, _key_id(folder)


def _key_id(folder: Path) -> str:
    path = folder / "leaf" / f"{SIGNER}.crt"
    return fingerprint(read_certificate(path)) if path.exists() else ""


def _record(action: str, actor: Actor, *, target: str = "pki", **details: Any) -> None:
    record_event(action, actor=actor, organization_id=None, target={"type": target}, details=details)
