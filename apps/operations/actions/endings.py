"""The end of an operation, and showing it anew on the way there."""

from __future__ import annotations

from collections.abc import Mapping

from django.db.models import Count
from django.utils import timezone

from apps.audit.actions import record_event
from apps.audit.actor import Actor
from apps.operations.actions.states import touch_components, touch_map
from apps.operations.enums import FailurePolicy, OperationState, StepState
from apps.operations.models import Operation


def touch_operation(operation: Operation) -> None:
    """The operation is shown anew to whoever watches its Map."""
    Operation.objects.filter(pk=operation.pk).update(version=touch_map(operation.map))


def target_of(operation: Operation) -> dict[str, str]:
    """What an audit event about an operation is about."""
    return {"type": "operation", "operationId": str(operation.pk), "mapId": str(operation.map_id)}


def count_steps(operation: Operation) -> dict[str, int]:
    return dict(operation.steps.order_by().values_list("state").annotate(Count("pk")))


def must_roll_back(operation: Operation, counts: Mapping[str, int]) -> bool:
    """Whether what succeeded is to be undone, now that nothing runs any more."""
    return (
        operation.failure_policy == FailurePolicy.ROLL_BACK
        and not operation.is_rolling_back
        and not operation.is_cancel_requested
        and not _is_under_way(counts)
        and counts.get(StepState.FAILED, 0) > 0
    )


def _is_under_way(counts: Mapping[str, int]) -> bool:
    return bool(counts.get(StepState.WAITING) or counts.get(StepState.RUNNING))


def finish_if_done(operation: Operation) -> None:
    """End an operation that has no step left to begin, to wait for or to undo."""
    counts = count_steps(operation)
    if not _is_under_way(counts) and not must_roll_back(operation, counts):
        finish(operation, counts)


def finish(operation: Operation, counts: Mapping[str, int], *, detail: str = "") -> None:
    """End a running operation and let go of its components."""
    state = _outcome(operation, counts)
    if not Operation.objects.filter(pk=operation.pk, state=OperationState.RUNNING).update(
        state=state, finished_at=timezone.now(), paused_at=None, detail=detail
    ):
        return
    held = list(operation.holds.values_list("component_id", flat=True))
    operation.holds.all().delete()
    touch_components(operation.map, held)
    record_end(operation, state, {"steps": dict(counts)})


def _outcome(operation: Operation, counts: Mapping[str, int]) -> OperationState:
    if operation.is_cancel_requested:
        return OperationState.CANCELLED
    if operation.is_rolling_back:
        not_undone = operation.steps.filter(is_rollback=True, state__in=[StepState.FAILED, StepState.SKIPPED])
        return OperationState.FAILED if not_undone.exists() else OperationState.ROLLED_BACK
    if counts.get(StepState.FAILED) or counts.get(StepState.SKIPPED):
        return OperationState.FAILED
    return OperationState.SUCCEEDED


def record_end(operation: Operation, state: OperationState, details: Mapping[str, object]) -> None:
    record_event(
        "operation.finished",
        actor=Actor.system("operations"),
        organization_id=operation.organization_id,
        target=target_of(operation),
        details={"state": state, **details},
    )
