"""Every write to organizations, people and their tokens."""

from __future__ import annotations

import hashlib
import secrets
from datetime import datetime

from django.contrib.auth.password_validation import validate_password
from django.db import transaction
from django.utils import timezone

from apps.audit.actions import record_event
from apps.audit.actor import Actor
from apps.orgs.enums import MembershipRole
from apps.orgs.models import ApiToken, Membership, Organization, User, Workspace

TOKEN_PREFIX = "opm_"  # noqa: S105 - what makes a token recognisable, not a secret


@transaction.atomic
def create_organization(*, name: str, slug: str, owner: User, actor: Actor) -> Organization:
    """A new tenant with its first owner."""
    organization = Organization.objects.create(name=name, slug=slug)
    Membership.objects.create(organization=organization, user=owner, role=MembershipRole.OWNER)
    record_event(
        "organization.created",
        actor=actor,
        organization_id=organization.pk,
        target={"type": "organization", "organizationId": str(organization.pk)},
        details={"name": name, "slug": slug, "owner": owner.email},
    )
    return organization


@transaction.atomic
def create_user(*, email: str, password: str, name: str, actor: Actor) -> User:
    """A person with a local password. Belongs to no organization yet.

    Raises:
        django.core.exceptions.ValidationError: the password is too weak.
    """
    user = User(email=email.strip().lower(), name=name)
    validate_password(password, user)
    user.set_password(password)
    user.save()
    record_event("user.created", actor=actor, organization_id=None, target={"type": "user", "userId": str(user.pk)})
    return user


@transaction.atomic
def add_member(*, organization: Organization, user: User, role: MembershipRole, actor: Actor) -> Membership:
    membership = Membership.objects.create(organization=organization, user=user, role=role)
    record_event(
        "membership.added",
        actor=actor,
        organization_id=organization.pk,
        target={"type": "user", "userId": str(user.pk)},
        details={"email": user.email, "role": role},
    )
    return membership


@transaction.atomic
def create_workspace(*, organization: Organization, name: str, slug: str, actor: Actor) -> Workspace:
    workspace = Workspace.objects.create(organization=organization, name=name, slug=slug)
    record_event(
        "workspace.created",
        actor=actor,
        organization_id=organization.pk,
        target={"type": "workspace", "workspaceId": str(workspace.pk)},
        details={"name": name, "slug": slug},
    )
    return workspace


def token_digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


@transaction.atomic
def issue_token(*, user: User, name: str, actor: Actor, expires_at: datetime | None = None) -> tuple[ApiToken, str]:
    """A new token and its text, which is shown this once and kept nowhere."""
    text = TOKEN_PREFIX + secrets.token_urlsafe(32)
    token = ApiToken.objects.create(
        user=user, name=name, prefix=text[:8], digest=token_digest(text), expires_at=expires_at
    )
    _record_token("token.issued", token, actor)
    return token, text


@transaction.atomic
def revoke_token(*, token: ApiToken, actor: Actor) -> None:
    """Ends a token at once; revoking it again changes nothing."""
    if not ApiToken.objects.filter(pk=token.pk, revoked_at=None).update(revoked_at=timezone.now()):
        return
    _record_token("token.revoked", token, actor)


def _record_token(action: str, token: ApiToken, actor: Actor) -> None:
    record_event(
        action,
        actor=actor,
        organization_id=None,
        target={"type": "token", "tokenId": str(token.pk)},
        details={"name": token.name, "user": token.user.email},
    )


@transaction.atomic
def record_sign_in(*, email: str, user: User | None, actor: Actor) -> None:
    """A sign-in that worked (`user`) or was refused (None)."""
    record_event(
        "user.signed_in" if user else "user.sign_in_refused",
        actor=actor,
        organization_id=None,
        target={"type": "user", "userId": str(user.pk) if user else ""},
        # Whatever was typed: a form hands over what it refused, and JSON in PostgreSQL cannot hold a NUL.
        details={"email": email.replace("\0", "")[:254]},
    )
