"""The resolver: what a person may, in one query at most for any number of permissions."""

from __future__ import annotations

import uuid
from collections.abc import Iterable

from apps.orgs.models import Membership, User
from apps.rbac.roles import PERMISSIONS_BY_MEMBERSHIP, allows


def resolve_permissions(user: User, organization_id: uuid.UUID, perms: Iterable[str]) -> dict[str, bool]:
    """Each permission and whether the person has it on objects of this organization."""
    role = _role_in(user, organization_id) if user.is_active else None
    granted = PERMISSIONS_BY_MEMBERSHIP.get(role or "", frozenset())
    return {perm: allows(granted, perm) for perm in perms}


def _role_in(user: User, organization_id: uuid.UUID) -> str | None:
    if user.roles is not None:
        return user.roles.get(str(organization_id))
    memberships = Membership.objects.filter(user=user, organization_id=organization_id)
    return memberships.values_list("role", flat=True).first()
