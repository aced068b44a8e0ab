"""The door to operations: whoever sees the Map sees them."""

from __future__ import annotations

import uuid

from django.http import Http404

from apps.operations.models import Operation
from apps.operations.selectors import with_steps
from apps.orgs.models import User


def access_operation(user: User, operation_id: uuid.UUID) -> Operation:
    """Raises Http404 if there is none or its Map may not be seen."""
    operations = Operation.objects.filter(pk=operation_id, organization__memberships__user=user.pk)
    operation = with_steps(operations).select_related("map", "requested_by").first()
    if operation is None or not user.has_perm("map:view", operation.map):
        raise Http404
    return operation
