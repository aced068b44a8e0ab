"""The doors to organizations and workspaces. Missing and foreign both answer 404."""

from __future__ import annotations

import uuid

from django.contrib.auth.models import AnonymousUser
from django.http import Http404

from apps.orgs.models import ApiToken, User, Workspace


def access_workspace(user: User | AnonymousUser, workspace_id: uuid.UUID, *, perm: str) -> Workspace:
    """Raises Http404 unless the person belongs to its organization and may `perm`."""
    workspace = (
        Workspace.objects.select_related("organization")
        .filter(pk=workspace_id, organization__memberships__user=user.pk)
        .first()
    )
    if workspace is None or not user.has_perm(perm, workspace):
        raise Http404
    return workspace


def access_token(user: User, token_id: uuid.UUID) -> ApiToken:
    """A person's own token."""
    token = ApiToken.objects.filter(pk=token_id, user=user).first()
    if token is None:
        raise Http404
    return token
