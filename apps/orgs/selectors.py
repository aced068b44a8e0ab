"""Reads about people."""

from __future__ import annotations

import uuid
from typing import Any

from django.db.models import Q
from django.utils import timezone

from apps.orgs.models import ApiToken, Membership, User


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


def get_token_user(digest: str) -> User | None:
    """The active person behind a valid token."""
    token = (
        ApiToken.objects.select_related("user")
        .filter(Q(expires_at=None) | Q(expires_at__gt=timezone.now()), digest=digest, revoked_at=None)
        .first()
    )
    return token.user if token and token.user.is_active else None


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
