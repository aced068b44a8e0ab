"""The authentication backend that answers `user.has_perm("component:start", component)`."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.backends import BaseBackend

from apps.orgs.models import User
from apps.rbac.selectors import resolve_permissions


class RoleBackend(BaseBackend):
    """Answers for objects of an organization; for anything else, no."""

    def has_perm(self, user_obj: Any, perm: str, obj: Any = None) -> bool:
        organization_id = getattr(obj, "organization_id", None)
        if organization_id is None or not isinstance(user_obj, User):
            return False
        return resolve_permissions(user_obj, organization_id, [perm])[perm]
