"""The door to the inbox: it is of an organization, and for who may change Maps."""

from __future__ import annotations

import uuid

from django.core.exceptions import PermissionDenied

from apps.orgs.models import User
from apps.proposals.models import Proposal


def check_may_answer(user: User, organization_id: uuid.UUID) -> None:
    """The organization must be one of the person's. Raises PermissionDenied."""
    if not user.has_perm("map:edit", Proposal(organization_id=organization_id)):
        raise PermissionDenied("You may not change Maps, for which these proposals are (map:edit).")
