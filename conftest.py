"""What holds for every test: no network but loopback, and the cast.

The cast is small and fixed: an owner, an operator (admin) and a viewer (member) of Acme, an outsider who owns another
organization, and nobody. Tests that touch the database get a real PostgreSQL and a real Valkey from `make test`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from apps.orgs.models import Organization, User, Workspace

if not os.environ.get("OPSMAP_DATABASE_URL"):
    pytest.exit(
        "No OPSMAP_DATABASE_URL. Run `make test`, or one part of it with\n"
        "  .venv/bin/python -m deploy.embedded services --state .opsmap/test -- .venv/bin/pytest apps/maps",
        returncode=4,
    )

PASSWORD = "correct-horse-battery"  # noqa: S105


@pytest.fixture(autouse=True)
def _loopback_only(socket_enabled: None) -> None:
    """The network is shut but for loopback and Unix sockets."""
    import pytest_socket

    pytest_socket.socket_allow_hosts(["127.0.0.1", "::1", "localhost"], allow_unix_socket=True)


@pytest.fixture(autouse=True)
def _quick_hashes(settings: object) -> None:
    """Argon2 is slow on purpose; tests sign in often."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # type: ignore[attr-defined]


@pytest.fixture(autouse=True)
def _static_files_when_asked(settings: object) -> None:
    """WhiteNoise would look at every static file for each test client, and miss the folder that only a build makes."""
    settings.WHITENOISE_AUTOREFRESH = True  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Cast:
    """Who appears in tests. Everybody's password is `PASSWORD`."""

    acme: Organization
    production: Workspace
    owner: User
    operator: User
    viewer: User
    umbrella: Organization
    outsider: User


@pytest.fixture
def cast(db: None) -> Cast:
    from apps.audit.actor import Actor
    from apps.orgs.actions import add_member, create_organization, create_user, create_workspace
    from apps.orgs.enums import MembershipRole

    system = Actor.system("test")

    def person(email: str, name: str) -> User:
        return create_user(email=email, password=PASSWORD, name=name, actor=system)

    owner, outsider = person("owner@acme.example", "Olivia"), person("outsider@umbrella.example", "Otto")
    acme = create_organization(name="Acme", slug="acme", owner=owner, actor=system)
    umbrella = create_organization(name="Umbrella", slug="umbrella", owner=outsider, actor=system)
    operator, viewer = person("operator@acme.example", "Oscar"), person("viewer@acme.example", "Vera")
    add_member(organization=acme, user=operator, role=MembershipRole.ADMIN, actor=system)
    add_member(organization=acme, user=viewer, role=MembershipRole.MEMBER, actor=system)
    production = create_workspace(organization=acme, name="Production", slug="production", actor=system)
    return Cast(acme, production, owner, operator, viewer, umbrella, outsider)
