"""The door to operations: whoever sees the Map sees them."""

from __future__ import annotations

import uuid

from django.core.exceptions import PermissionDenied
from django.http import Http404

from apps.operations.enums import FailurePolicy, OperationKind
from apps.operations.models import Operation
from apps.operations.selectors import with_steps
from apps.orgs.models import User
from apps.rbac.selectors import resolve_permissions


def access_operation(user: User, operation_id: uuid.UUID, *, is_steering: bool = False) -> Operation:
    """The operation with this id; `is_steering` if it is to be paused, cancelled, tried again and the like.

    Raises:
        Http404: there is none, or its Map may not be seen.
        PermissionDenied: the person may not do what its steps do, and so not steer it.
    """
    operations = Operation.objects.filter(pk=operation_id, organization__memberships__user=user.pk)
    operation = with_steps(operations).select_related("map", "requested_by").first()
    if operation is None or not user.has_perm("map:view", operation.map):
        raise Http404
    if is_steering:
        _check_may_steer(user, operation)
    return operation


def _check_may_steer(user: User, operation: Operation) -> None:
    actions = {step.action for step in operation.steps.all()}
    # One that waits for its turn has no steps yet.
    actions |= {"restart" if operation.kind == OperationKind.REPAIR else operation.kind}
    if operation.failure_policy == FailurePolicy.ROLL_BACK:
        actions |= {"start", "stop"}
    granted = resolve_permissions(user, operation.organization_id, [f"component:{action}" for action in actions])
    missing = sorted(perm for perm, is_granted in granted.items() if not is_granted)
    if missing:
        raise PermissionDenied(f"You may not steer this operation ({', '.join(missing)}).")
