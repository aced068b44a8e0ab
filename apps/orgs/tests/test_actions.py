"""Writes to organizations, people and tokens: the row, the audit event, and neither without the other."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.db import DataError, IntegrityError, models, transaction
from django.utils import timezone

from apps.audit.actor import Actor
from apps.audit.models import AuditEvent
from apps.orgs.actions import (
    add_member,
    create_organization,
    create_user,
    create_workspace,
    issue_token,
    record_sign_in,
    revoke_token,
)
from apps.orgs.enums import MembershipRole
from apps.orgs.models import ApiToken, Membership, Organization, User, Workspace
from conftest import PASSWORD, Cast

ACTOR = Actor.system("test")
# JSON in PostgreSQL cannot hold a NUL: the audit of whatever this actor does fails, in the real database.
UNWRITABLE = Actor.system("\0")


def _last_event(action: str) -> AuditEvent:
    return AuditEvent.objects.filter(action=action).latest("timestamp")


def test_create_organization_has_its_owner_and_its_event(cast: Cast) -> None:
    made = create_organization(name="Initech", slug="initech", owner=cast.viewer, actor=ACTOR)

    assert Membership.objects.get(organization=made).user == cast.viewer
    assert Membership.objects.get(organization=made).role == MembershipRole.OWNER
    event = _last_event("organization.created")
    assert event.organization_id == made.pk
    assert event.details == {"name": "Initech", "slug": "initech", "owner": "viewer@acme.example"}
    assert event.actor["id"] == "test"


def test_create_user_stores_a_hash_and_a_lower_case_email(db: None) -> None:
    user = create_user(email="  Nadia@Acme.Example ", password=PASSWORD, name="Nadia", actor=ACTOR)

    user.refresh_from_db()
    assert user.email == "nadia@acme.example"
    assert PASSWORD not in user.password
    assert user.check_password(PASSWORD)
    assert _last_event("user.created").target == {"type": "user", "userId": str(user.pk)}
    assert not AuditEvent.objects.filter(details__icontains=PASSWORD).exists()


@pytest.mark.parametrize("password", ["short", "password1234", "nadia@acme.example", ""])
def test_create_user_with_a_weak_password_writes_nothing(db: None, password: str) -> None:
    with pytest.raises(ValidationError):
        create_user(email="nadia@acme.example", password=password, name="Nadia", actor=ACTOR)

    assert not User.objects.exists()
    assert not AuditEvent.objects.exists()


def test_email_is_unique_whatever_its_case(cast: Cast) -> None:
    with pytest.raises(IntegrityError, match="user_email_unique"), transaction.atomic():
        User.objects.create(email="OWNER@acme.example")


def test_add_member_records_the_role_and_refuses_a_second_membership(cast: Cast) -> None:
    membership = add_member(organization=cast.acme, user=cast.outsider, role=MembershipRole.MEMBER, actor=ACTOR)

    assert str(membership) == "outsider@umbrella.example is member of Acme"
    assert _last_event("membership.added").details == {"email": "outsider@umbrella.example", "role": "member"}
    events = AuditEvent.objects.count()
    with pytest.raises(IntegrityError, match="membership_once"):
        add_member(organization=cast.acme, user=cast.outsider, role=MembershipRole.OWNER, actor=ACTOR)
    assert AuditEvent.objects.count() == events


def test_create_workspace_records_it_and_slugs_are_unique_in_their_organization(cast: Cast) -> None:
    made = create_workspace(organization=cast.umbrella, name="Production", slug="production", actor=ACTOR)

    event = _last_event("workspace.created")
    assert (event.organization_id, event.target["workspaceId"]) == (cast.umbrella.pk, str(made.pk))
    with pytest.raises(IntegrityError, match="workspace_slug_unique"):
        create_workspace(organization=cast.umbrella, name="Again", slug="production", actor=ACTOR)


def test_issue_token_keeps_only_a_hash(cast: Cast) -> None:
    token, text = issue_token(user=cast.viewer, name="ci", actor=Actor.person(cast.viewer))

    assert text.startswith("opm_")
    assert len(text) > 40
    row = ApiToken.objects.filter(pk=token.pk).values().get()
    assert text not in str(row)
    assert text.startswith(row["prefix"])
    assert len(row["prefix"]) == 8
    assert len(row["digest"]) == 64
    assert row["expires_at"] is row["revoked_at"] is None
    event = _last_event("token.issued")
    assert event.details == {"name": "ci", "user": "viewer@acme.example"}
    assert text not in str(event.target | event.details | event.actor)


def test_issue_token_never_gives_the_same_text_twice(cast: Cast) -> None:
    texts = {issue_token(user=cast.viewer, name="ci", actor=ACTOR)[1] for _ in range(20)}
    assert len(texts) == 20


def test_issue_token_may_expire(cast: Cast) -> None:
    until = timezone.now() + timedelta(days=1)
    token, _ = issue_token(user=cast.viewer, name="ci", actor=ACTOR, expires_at=until)

    token.refresh_from_db()
    assert token.expires_at == until


def test_revoke_token_ends_it_once(cast: Cast) -> None:
    token, _ = issue_token(user=cast.viewer, name="ci", actor=ACTOR)

    revoke_token(token=token, actor=ACTOR)
    token.refresh_from_db()
    first = token.revoked_at
    revoke_token(token=token, actor=ACTOR)

    token.refresh_from_db()
    assert first is not None
    assert token.revoked_at == first
    assert AuditEvent.objects.filter(action="token.revoked").count() == 1


def test_record_sign_in_tells_the_accepted_from_the_refused(cast: Cast) -> None:
    record_sign_in(email=cast.viewer.email, user=cast.viewer, actor=Actor.person(cast.viewer, ip="10.1.2.3"))
    record_sign_in(email="x" * 300, user=None, actor=Actor("anonymous", "", ip="10.1.2.4"))

    accepted, refused = _last_event("user.signed_in"), _last_event("user.sign_in_refused")
    assert (accepted.target["userId"], accepted.actor["ip"]) == (str(cast.viewer.pk), "10.1.2.3")
    assert (refused.target["userId"], refused.actor["ip"]) == ("", "10.1.2.4")
    assert refused.details == {"email": "x" * 254}


_ACTIONS: dict[str, tuple[type[models.Model], Callable[[Cast], Any]]] = {
    "create_organization": (
        Organization,
        lambda cast: create_organization(name="I", slug="i", owner=cast.viewer, actor=UNWRITABLE),
    ),
    "create_user": (
        User,
        lambda cast: create_user(email="n@acme.example", password=PASSWORD, name="N", actor=UNWRITABLE),
    ),
    "add_member": (
        Membership,
        lambda cast: add_member(
            organization=cast.acme, user=cast.outsider, role=MembershipRole.MEMBER, actor=UNWRITABLE
        ),
    ),
    "create_workspace": (
        Workspace,
        lambda cast: create_workspace(organization=cast.acme, name="T", slug="t", actor=UNWRITABLE),
    ),
    "issue_token": (ApiToken, lambda cast: issue_token(user=cast.viewer, name="ci", actor=UNWRITABLE)),
}


@pytest.mark.parametrize("name", _ACTIONS)
def test_nothing_is_written_if_the_audit_fails(cast: Cast, name: str) -> None:
    model, act = _ACTIONS[name]
    rows, events = model._default_manager.count(), AuditEvent.objects.count()

    with pytest.raises(DataError):
        act(cast)

    assert model._default_manager.count() == rows
    assert AuditEvent.objects.count() == events


def test_token_stays_valid_if_the_audit_of_its_revocation_fails(cast: Cast) -> None:
    token, _ = issue_token(user=cast.viewer, name="ci", actor=ACTOR)

    with pytest.raises(DataError):
        revoke_token(token=token, actor=UNWRITABLE)

    token.refresh_from_db()
    assert token.revoked_at is None
