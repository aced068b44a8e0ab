"""`python -m tests.world.prepare`: fills an empty database for a world, with the actions of the product.

Reads `{"pki", "gateways", "agents"}` from standard input; writes `{"organization", "token", "email", "password"}`.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
from pathlib import Path
from typing import Any

EMAIL = "owner@acme.example"


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "opsmap.settings")
    import django

    django.setup()
    from django.core.management import call_command

    call_command("migrate", interactive=False, verbosity=0)
    print(json.dumps(_fill(json.load(sys.stdin))))


def _fill(wanted: dict[str, Any]) -> dict[str, str]:
    from apps.audit.actor import Actor
    from apps.gateways.actions.development import ensure_development_certificates
    from apps.orgs.actions import create_organization, create_user, create_workspace, issue_token

    actor = Actor.system("world")
    password = secrets.token_urlsafe(12)
    owner = create_user(email=EMAIL, password=password, name="Olivia Owner", actor=actor)
    organization = create_organization(name="Acme", slug="acme", owner=owner, actor=actor)
    create_workspace(organization=organization, name="Production", slug="production", actor=actor)
    for number, gateway_id in enumerate(wanted["gateways"]):
        ensure_development_certificates(
            folder=Path(wanted["pki"]),
            organization_id=organization.pk,
            gateway_id=gateway_id,
            # Once is enough: an agent's certificate is good at every gateway of its organization.
            agent_ids=[] if number else wanted["agents"],
            actor=actor,
        )
    _, token = issue_token(user=owner, name="world", actor=actor)
    return {"organization": str(organization.pk), "token": token, "email": EMAIL, "password": password}


if __name__ == "__main__":
    main()
