"""Whose agents a request is about that names none of them."""

from __future__ import annotations

import uuid

from django.http import Http404
from rest_framework import serializers

from apps.orgs.models import User
from apps.orgs.selectors import list_organization_ids


def organization_of(user: User, asked: uuid.UUID | None) -> uuid.UUID:
    """The organization that is meant. Who belongs to several must say which: nothing is guessed here."""
    ids = list_organization_ids(user)
    if asked is None and len(ids) > 1:
        raise serializers.ValidationError({"organizationId": ["You belong to several organizations: say which."]})
    if not ids or (asked is not None and asked not in ids):
        raise Http404
    return asked or ids[0]
