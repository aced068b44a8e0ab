"""`manage.py pki`: the authorities of this installation, what they have issued to itself, and how they follow on."""

from __future__ import annotations

import getpass
import sys
from argparse import ArgumentParser
from collections.abc import Callable
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError
from django.utils import timezone

from apps.audit.actor import Actor
from apps.gateways.actions import authorities
from apps.gateways.exceptions import PkiError
from apps.gateways.models import Certificate
from apps.gateways.pki.authorities import INTERMEDIATES, read_root, read_succession
from apps.gateways.pki.root import check_passphrase, is_encrypted
from apps.gateways.pki.status import describe_pki
from opsmap_protocol.enums import PeerRole

ACTOR = Actor.system("pki")
_TOLD_BY_RENEWAL = (PeerRole.BACKEND, PeerRole.GATEWAY)
"""Agents hear of new authorities of these branches when they renew their certificates; gateways hear at once."""


class Command(BaseCommand):
    help = "The authorities in OPSMAP_PKI_DIR: create, status, rotate, activate, retire, renew, revoke-signer."

    def add_arguments(self, parser: ArgumentParser) -> None:
        what = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
        create = what.add_parser("create", help="a root and three intermediates; once for an installation")
        _add_passphrase(create)
        what.add_parser("status", help="every certificate with its days left; exit code 1 if something is to be done")
        rotate = what.add_parser("rotate", help="make the next intermediate of a branch, and publish it")
        _add_role(rotate)
        rotate.add_argument("--root-key", type=Path, required=True, metavar="FILE", help="the root's key")
        _add_passphrase(rotate)
        activate = what.add_parser("activate", help="issue by the next intermediate from now on")
        _add_role(activate)
        activate.add_argument("--force", action="store_true", help="also if agents have not heard of it yet")
        _add_role(what.add_parser("retire", help="trust the former intermediate no more"))
        what.add_parser("renew", help="what is due: the link server's certificate, the key that seals")
        revoke = what.add_parser("revoke-signer", help="a signing key was stolen: revoke it, and make a new one")
        revoke.add_argument("--key-id", default="", help="the beginning of its id; without it, the present key")

    def handle(self, *args: Any, action: str, **options: Any) -> None:
        actions: dict[str, Callable[..., None]] = {
            "create": self._create,
            "status": self._status,
            "rotate": self._rotate,
            "activate": self._activate,
            "retire": self._retire,
            "renew": self._renew,
            "revoke-signer": self._revoke_signer,
        }
        try:
            actions[action](**options)
        except PkiError as error:
            raise CommandError(str(error)) from None
        except OSError as error:
            raise CommandError(f"{error.filename}: {error.strerror}") from None

    def _create(self, *, passphrase_file: Path | None, **options: Any) -> None:
        passphrase = _read_passphrase(passphrase_file, is_new=True)
        authorities.create_pki(folder=settings.PKI_DIR, passphrase=passphrase, actor=ACTOR)
        key = settings.PKI_DIR / "ca" / "root.key"
        self._say(
            f"The PKI is in {settings.PKI_DIR}.",
            f"Now take the root's key offline: move {key} to a place without a network, and keep its passphrase apart.",
            "It is needed again only for `manage.py pki rotate`, every four years. Whoever has both can be everybody.",
        )

    def _status(self, **options: Any) -> None:
        status = describe_pki(settings.PKI_DIR)
        self._say(*status.lines)
        if status.to_do:
            self._say("", "To be done:", *(f"  {line}" for line in status.to_do))
            sys.exit(1)

    def _rotate(self, *, role: str, root_key: Path, passphrase_file: Path | None, **options: Any) -> None:
        passphrase = _read_passphrase(passphrase_file, is_new=False) if is_encrypted(root_key) else None
        made = authorities.rotate_authority(
            folder=settings.PKI_DIR, role=PeerRole(role), root_key=root_key, passphrase=passphrase, actor=ACTOR
        )
        self._say(f"{made} is trusted from now on. `manage.py pki activate {role}` lets it issue.")
        if role in _TOLD_BY_RENEWAL:
            self._say("Agents hear of it when they renew their certificates: activate it after that.")

    def _activate(self, *, role: str, force: bool, **options: Any) -> None:
        if role in _TOLD_BY_RENEWAL and not force:
            _check_agents_know(PeerRole(role))
        name = authorities.activate_authority(folder=settings.PKI_DIR, role=PeerRole(role), actor=ACTOR)
        self._say(f"{name} issues from now on. When everything is renewed by it: `manage.py pki retire {role}`.")

    def _retire(self, *, role: str, **options: Any) -> None:
        names = authorities.retire_authority(folder=settings.PKI_DIR, role=PeerRole(role), actor=ACTOR)
        self._say(f"{', '.join(names)}: trusted no more.")

    def _renew(self, **options: Any) -> None:
        renewed = authorities.renew_own_certificates(folder=settings.PKI_DIR, actor=ACTOR)
        self._say(f"Renewed: {', '.join(renewed)}." if renewed else "Nothing is due.")

    def _revoke_signer(self, *, key_id: str, **options: Any) -> None:
        read_root(settings.PKI_DIR / "ca")
        revoked, present = authorities.revoke_signing_key(folder=settings.PKI_DIR, key_id=key_id, actor=ACTOR)
        self._say(f"The key {revoked} does not count any more.", f"The backend seals with the key {present}.")

    def _say(self, *lines: str) -> None:
        for line in lines:
            self.stdout.write(line)


def _add_role(parser: ArgumentParser) -> None:
    parser.add_argument("role", choices=[str(role) for role in INTERMEDIATES], help="the branch")


def _add_passphrase(parser: ArgumentParser) -> None:
    help_text = "has the root key's passphrase; without it, it is asked for"
    parser.add_argument("--passphrase-file", type=Path, metavar="FILE", help=help_text)


def _read_passphrase(path: Path | None, *, is_new: bool) -> str:
    """Raises PkiError or OSError."""
    if path is not None:
        return path.read_text().strip()
    passphrase = getpass.getpass("Passphrase of the root key: ")
    if is_new:
        check_passphrase(passphrase)
        if getpass.getpass("Once more: ") != passphrase:
            raise PkiError("The two passphrases differ; nothing was made.")
    return passphrase


def _check_agents_know(role: PeerRole) -> None:
    """Agents trust what they were told when their certificates were issued. Raises CommandError if some were not."""
    present = read_succession(settings.PKI_DIR / "ca", role)
    if not present.following:
        return
    # Authorities are dated back by their clock skew, so one that was issued since then may not know it: to be sure.
    known_since = present.following[0].not_valid_before_utc
    counting = Certificate.objects.filter(role=PeerRole.AGENT, revoked_at=None, not_after__gt=timezone.now())
    try:
        newest = counting.order_by("organization_id", "name", "-not_after").distinct("organization_id", "name")
        behind = sum(1 for each in newest if each.not_before < known_since)
    except DatabaseError as error:
        raise CommandError(f"The database does not say who knows it: {error}") from None
    if behind:
        raise CommandError(
            f"{behind} agents have not renewed their certificates since, and would refuse what it issues. "
            "Wait until they have, or use --force."
        )
