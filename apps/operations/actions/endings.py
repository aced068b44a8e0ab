"""The end of an operation, and showing it anew on the way there."""

from __future__ import annotations

from django.db.models import Count
from django.utils import timezone

from apps.audit.actions import record_event
from apps.audit.actor import Actor
from apps.operations.actions.states import touch_components, touch_map
from apps.operations.enums import OperationState, StepState
from apps.operations.models import Operation


def touch_operation(operation: Operation) -> None:
    """The operation is shown anew to whoever watches its Map."""
    Operation.objects.filter(pk=operation.pk).update(version=touch_map(operation.map))


def finish_if_done(operation: Operation) -> None:
    """End an operation that has no step left to begin or to wait for, and let go of its components."""
    counts = dict(operation.steps.order_by().values_list("state").annotate(Count("pk")))
    if counts.get(StepState.WAITING) or counts.get(StepState.RUNNING):
        return
    if operation.is_cancel_requested:
        state = OperationState.CANCELLED
    elif counts.get(StepState.FAILED) or counts.get(StepState.SKIPPED):
        state = OperationState.FAILED
    else:
        state = OperationState.SUCCEEDED
    if not Operation.objects.filter(pk=operation.pk, state=OperationState.RUNNING).update(
        state=state, finished_at=timezone.now()
    ):
        return
    held = list(operation.holds.values_list("component_id", flat=True))
    operation.holds.all().delete()
    touch_components(operation.map, held)
    record_event(
        "operation.finished",
        actor=Actor.system("operations"),
        organization_id=operation.organization_id,
        target={"type": "operation", "operationId": str(operation.pk), "mapId": str(operation.map_id)},
        details={"state": state, "steps": counts},
    )
