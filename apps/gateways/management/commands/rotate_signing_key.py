"""`manage.py rotate_signing_key`: a new key for what the backend tells agents."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from apps.audit.actor import Actor
from apps.gateways.actions.authorities import rotate_signing_key
from apps.gateways.exceptions import PkiError


class Command(BaseCommand):
    help = "Make a new signing key in OPSMAP_PKI_DIR. The one before stays trusted until its certificate expires."

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            key_id = rotate_signing_key(folder=settings.PKI_DIR, actor=Actor.system("rotate_signing_key"))
        except PkiError as error:
            raise CommandError(str(error)) from None
        self.stdout.write(f"The backend seals with the key {key_id} from now on.")
