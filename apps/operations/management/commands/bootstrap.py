"""`manage.py bootstrap`: from an empty database to a demonstration that can be signed in to. Idempotent."""

from __future__ import annotations

import json
import os
import secrets
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction
from django.utils.text import slugify

from apps.audit.actor import Actor
from apps.gateways.actions.development import ensure_development_certificates
from apps.gateways.exceptions import PkiError
from apps.maps.actions import apply_documents, create_map
from apps.maps.documents.reading import SourceFile
from apps.maps.exceptions import DocumentsError
from apps.maps.models import Map
from apps.operations.actions.states import reset_states
from apps.orgs.actions import create_organization, create_user, create_workspace
from apps.orgs.models import Organization, User, Workspace

ACTOR = Actor.system("bootstrap")
OWNER_EMAIL = "owner@acme.example"
GATEWAY_ID = "gateway-local"
AGENT_IDS = ("srv-data-01", "srv-app-01")


class Command(BaseCommand):
    help = "Migrate, create a development PKI, and load the demonstration."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--pki", type=Path, required=True, help="folder for certificates")
        parser.add_argument("--credentials", type=Path, required=True, help="file for the owner's sign-in")
        parser.add_argument("--documents", type=Path, help="folder of one Map's documents")

    def handle(self, *args: Any, pki: Path, credentials: Path, documents: Path | None, **options: Any) -> None:
        call_command("migrate", interactive=False, verbosity=0)
        with transaction.atomic():
            owner = _ensure_owner(credentials)
            organization, workspace = _ensure_organization(owner)
        try:
            ensure_development_certificates(
                folder=pki,
                organization_id=organization.pk,
                gateway_id=GATEWAY_ID,
                agent_ids=AGENT_IDS,
                actor=ACTOR,
            )
        except PkiError as error:
            raise CommandError(str(error)) from None
        if documents is not None:
            _load_documents(documents, workspace, owner)


def _ensure_owner(credentials: Path) -> User:
    owner = User.objects.filter(email=OWNER_EMAIL).first()
    if owner is not None and credentials.exists():
        return owner
    password = secrets.token_urlsafe(12)
    if owner is None:
        owner = create_user(email=OWNER_EMAIL, password=password, name="Olivia Owner", actor=ACTOR)
    else:
        # The file is gone and with it the only copy of the password.
        owner.set_password(password)
        owner.save(update_fields=["password"])
    credentials.parent.mkdir(parents=True, exist_ok=True)
    credentials.unlink(missing_ok=True)
    with os.fdopen(os.open(credentials, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump({"email": owner.email, "password": password}, file)
    return owner


def _ensure_organization(owner: User) -> tuple[Organization, Workspace]:
    organization = Organization.objects.filter(slug="acme").first()
    if organization is None:
        organization = create_organization(name="Acme Markets", slug="acme", owner=owner, actor=ACTOR)
    workspace = Workspace.objects.filter(organization=organization, slug="production").first()
    if workspace is None:
        workspace = create_workspace(organization=organization, name="Production", slug="production", actor=ACTOR)
    return organization, workspace


def _load_documents(folder: Path, workspace: Workspace, owner: User) -> None:
    sources = [SourceFile(str(path.relative_to(folder)), path.read_text()) for path in sorted(folder.rglob("*.yaml"))]
    try:
        slug = slugify(folder.name)
        existing = Map.objects.filter(workspace=workspace, slug=slug).first()
        if existing is None:
            create_map(workspace=workspace, sources=sources, owner=owner, actor=ACTOR)
        else:
            apply_documents(map=existing, sources=sources, actor=ACTOR)
            # Its processes ended with the supervisor that ran them: that was nobody's failure.
            reset_states(existing.pk)
    except DocumentsError as error:
        raise CommandError("\n".join(fault.message for fault in error.faults)) from None
