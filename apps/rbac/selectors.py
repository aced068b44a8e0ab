"""The resolver: what a person may, in one query at most for any number of permissions."""

from __future__ import annotations

import uuid
from collections.abc import Iterable

from django.db.models import QuerySet

from apps.orgs.models import Membership, User
from apps.rbac.roles import PERMISSIONS_BY_MEMBERSHIP, allows


def resolve_permissions(user: User, organization_id: uuid.UUID, perms: Iterable[str]) -> dict[str, bool]:
    """Each permission and whether the person has it on objects of this organization."""
    role = _role_in(user, organization_id) if user.is_active else None
    granted = PERMISSIONS_BY_MEMBERSHIP.get(role or "", frozenset())
    return {perm: allows(granted, perm) for perm in perms}


def people_with(organization_id: uuid.UUID, perms: Iterable[str]) -> QuerySet[User]:
    """The people who have all of these permissions on objects of this organization."""
    wanted = list(perms)
    roles = [
        role for role, granted in PERMISSIONS_BY_MEMBERSHIP.items() if all(allows(granted, perm) for perm in wanted)
    ]
    memberships = Membership.objects.filter(organization_id=organization_id, role__in=roles)
    return User.objects.filter(is_active=True, pk__in=memberships.values("user"))


def _role_in(user: User, organization_id: uuid.UUID) -> str | None:
    if user.roles is not None:
        return user.roles.get(str(organization_id))
    memberships = Membership.objects.filter(user=user, organization_id=organization_id)
    return memberships.values_list("role", flat=True).first()
