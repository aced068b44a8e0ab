"""Reads about people."""

from __future__ import annotations

import uuid
from typing import Any

from django.utils import timezone

from apps.orgs.models import ApiToken, Membership, User
from opsmap.lib.prepared import Lookup


def describe_session(user: User) -> dict[str, Any]:
    """Who is signed in and where they belong (camelCase, for the API)."""
    memberships = Membership.objects.filter(user=user).select_related("organization").order_by("organization__name")
    return {
        "user": {"id": str(user.pk), "email": user.email, "name": user.name},
        "organizations": [
            {
                "id": str(membership.organization.pk),
                "name": membership.organization.name,
                "slug": membership.organization.slug,
                "role": membership.role,
            }
            for membership in memberships
        ],
    }


_TOKEN_USER = Lookup(
    User,
    where="""is_active AND id IN (
        SELECT user_id FROM orgs_apitoken
        WHERE digest = %s::text AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > %s::timestamptz)
    )""",
    extra={
        "roles": """(
            SELECT coalesce(json_object_agg(organization_id, role), '{}')
            FROM orgs_membership WHERE user_id = orgs_user.id
        )"""
    },
)


def get_token_user(digest: str) -> User | None:
    """The active person behind a valid token, with their roles."""
    return _TOKEN_USER.first(digest, timezone.now())


def describe_token(token: ApiToken) -> dict[str, Any]:
    return {
        "id": str(token.pk),
        "name": token.name,
        "prefix": token.prefix,
        "createdAt": token.created_at,
        "expiresAt": token.expires_at,
        "revokedAt": token.revoked_at,
    }


def list_organization_ids(user: User) -> list[uuid.UUID]:
    return list(Membership.objects.filter(user=user).values_list("organization_id", flat=True))
