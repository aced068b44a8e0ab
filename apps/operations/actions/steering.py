"""What people do with an operation that has been asked for: pause, resume, cancel, try again, go on without a step."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping

from django.db import transaction
from django.utils import timezone

from apps.audit.actions import record_event
from apps.audit.actor import Actor
from apps.operations.actions.beginnings import go_on
from apps.operations.actions.endings import finish_if_done, target_of, touch_operation
from apps.operations.actions.queueing import leave_queue, start_queued
from apps.operations.actions.states import lock_map, touch_components
from apps.operations.actions.steps import revive_steps
from apps.operations.enums import OperationState, StepState
from apps.operations.exceptions import HeldError, NoSuchStepError, NotSteerableError, SupersededError
from apps.operations.models import ComponentHold, Operation, QueuedClaim, Step
from apps.orgs.models import User


@transaction.atomic
def pause_operation(*, operation: Operation, actor: Actor, reason: str = "") -> None:
    """Nothing new begins until it is resumed; what runs ends. Does nothing to one that is paused.

    Raises:
        NotSteerableError: it does not run.
    """
    locked = _locked(operation)
    _check_runs(locked)
    if locked.paused_at is not None:
        return
    Operation.objects.filter(pk=locked.pk).update(paused_at=timezone.now())
    _record("operation.paused", locked, actor, {"reason": reason})
    touch_operation(locked)


@transaction.atomic
def resume_operation(*, operation: Operation, user: User, actor: Actor) -> None:
    """Begin what may begin since. Does nothing to one that is not paused.

    Raises:
        NotSteerableError: it does not run.
    """
    locked = _locked(operation)
    _check_runs(locked)
    if locked.paused_at is None:
        return
    locked.paused_at, locked.steered_by = None, user
    locked.save(update_fields=["paused_at", "steered_by"])
    _record("operation.resumed", locked, actor)
    go_on(locked)
    start_queued(locked.map_id)


@transaction.atomic
def cancel_operation(*, operation: Operation, actor: Actor, reason: str = "") -> None:
    """Nothing new begins. What has begun ends by itself, so that no component is left half started or half stopped.

    One that still waits in the queue ends at once. Does nothing to one that has ended.
    """
    locked = _locked(operation)
    if locked.state == OperationState.QUEUED:
        _record("operation.cancelled", locked, actor, {"reason": reason})
        leave_queue(locked, OperationState.CANCELLED)
    elif locked.state == OperationState.RUNNING and not locked.is_cancel_requested:
        locked.is_cancel_requested = True
        locked.save(update_fields=["is_cancel_requested"])
        locked.steps.filter(state=StepState.WAITING).update(state=StepState.CANCELLED, finished_at=timezone.now())
        _record("operation.cancelled", locked, actor, {"reason": reason})
        finish_if_done(locked)
        touch_operation(locked)
    else:
        return
    start_queued(locked.map_id)


@transaction.atomic
def retry_steps(*, operation: Operation, user: User, actor: Actor, step_ids: Collection[uuid.UUID] = ()) -> None:
    """Try failed steps again, all of them or these, and with them what was skipped because of them.

    Of an operation that was to stop after a failure all that was skipped waits again, unless another failed step stands
    before it. One that has ended is opened again, and takes hold of its components as it did at first.

    Raises:
        NotSteerableError: it cannot be tried again as it stands, or one of these steps did not fail.
        NoSuchStepError: one of these is no step of this operation.
        HeldError: others hold its components by now, or wait for them.
        SupersededError: something else was done to its components since it ended.
    """
    locked = _locked(operation)
    _check_may_change(locked)
    steps = _steps_of(locked, step_ids)
    for step in steps:
        if step.state != StepState.FAILED or step.is_rollback != locked.is_rolling_back:
            raise NotSteerableError(f"{step} did not fail, or is being undone: it is {step.state}.")
        if step.component_id is None:
            raise NotSteerableError(f"{step.component_name} is no longer on the Map.")
    if not steps:
        raise NotSteerableError("No step of it has failed.")
    _reopen_if_ended(locked)
    for step in steps:
        step.state, step.detail, step.started_at, step.finished_at = StepState.WAITING, "", None, None
        step.command, step.attempt = None, step.attempt + 1
    Step.objects.bulk_update(
        steps, ["state", "detail", "started_at", "finished_at", "command", "attempt"], batch_size=1000
    )
    _record("operation.steps_retried", locked, actor, {"steps": [str(step.pk) for step in steps[:100]]})
    _let_go_on(locked, user)


@transaction.atomic
def skip_step(*, operation: Operation, step_id: uuid.UUID, user: User, actor: Actor, reason: str) -> None:
    """Go on without a step that failed or has not begun; what waits for it goes on as if it had succeeded.

    Raises:
        NotSteerableError: it cannot go on as it stands, or the step has begun or ended otherwise.
        NoSuchStepError: it is no step of this operation.
        HeldError, SupersededError: as `retry_steps`.
    """
    locked = _locked(operation)
    _check_may_change(locked)
    [step] = _steps_of(locked, [step_id])
    if step.state not in {StepState.WAITING, StepState.FAILED} or step.is_rollback != locked.is_rolling_back:
        raise NotSteerableError(f"{step} cannot be skipped: it is {step.state}.")
    _reopen_if_ended(locked)
    details = {"step": str(step.pk), "component": step.component_name, "action": step.action, "was": step.state}
    now = timezone.now()
    Step.objects.filter(pk=step.pk).update(state=StepState.WAIVED, detail=reason[:500], finished_at=now)
    _record("operation.step_skipped", locked, actor, {**details, "reason": reason[:500]})
    _let_go_on(locked, user)


def _locked(operation: Operation) -> Operation:
    """The operation as it is, with its Map locked."""
    lock_map(operation.map_id)
    return Operation.objects.select_related("map", "requested_by", "steered_by").get(pk=operation.pk)


def _check_runs(operation: Operation) -> None:
    if operation.state == OperationState.QUEUED:
        raise NotSteerableError("It waits for its turn and has not begun: it can only be cancelled.")
    if operation.state != OperationState.RUNNING:
        raise NotSteerableError(f"It has ended: it is {operation.get_state_display().lower()}.")
    if operation.is_cancel_requested:
        raise NotSteerableError("It is being cancelled.")


def _check_may_change(operation: Operation) -> None:
    """Steps are tried again or skipped in what runs, and in what failed."""
    if operation.state != OperationState.FAILED:
        _check_runs(operation)


def _steps_of(operation: Operation, step_ids: Collection[uuid.UUID]) -> list[Step]:
    """These steps, or all that failed of what the operation is about now."""
    if not step_ids:
        return list(operation.steps.filter(state=StepState.FAILED, is_rollback=operation.is_rolling_back))
    found = list(operation.steps.filter(pk__in=step_ids))
    if len(found) != len(set(step_ids)):
        raise NoSuchStepError("This operation has no such step.")
    return found


def _reopen_if_ended(operation: Operation) -> None:
    """An operation that failed takes hold of its components once more."""
    if operation.state == OperationState.RUNNING:
        return
    rows = operation.steps.filter(component__isnull=False).order_by().values_list("component_id", flat=True)
    component_ids = {pk for pk in rows.distinct() if pk is not None}
    _check_free(component_ids)
    later = Step.objects.filter(component_id__in=component_ids, started_at__gt=operation.finished_at)
    if other := later.exclude(operation=operation).select_related("operation").order_by("position").first():
        what = f"“{other.operation.kind} {other.operation.target}”"
        raise SupersededError(f"Since it ended, {what} did something to {other.component_name}: ask for it anew.")
    ComponentHold.objects.bulk_create(
        (ComponentHold(component_id=pk, operation=operation) for pk in component_ids), batch_size=5000
    )
    operation.state, operation.finished_at, operation.detail = OperationState.RUNNING, None, ""
    operation.save(update_fields=["state", "finished_at", "detail"])
    touch_components(operation.map, component_ids)


def _check_free(component_ids: Collection[uuid.UUID]) -> None:
    """Raises HeldError."""
    hold = ComponentHold.objects.filter(component_id__in=component_ids).select_related("component", "operation").first()
    if hold is not None:
        what = f"“{hold.operation.kind} {hold.operation.target}”"
        raise HeldError(f"{hold.component.name} is held by {what} by now.")
    claim = QueuedClaim.objects.filter(component_id__in=component_ids).select_related("component", "operation").first()
    if claim is not None:
        what = f"“{claim.operation.kind} {claim.operation.target}”"
        raise HeldError(f"{what} waits for {claim.component.name}.")


def _let_go_on(operation: Operation, user: User) -> None:
    operation.steered_by = user
    operation.save(update_fields=["steered_by"])
    revive_steps(operation)
    go_on(operation)
    start_queued(operation.map_id)


def _record(action: str, operation: Operation, actor: Actor, details: Mapping[str, object] | None = None) -> None:
    record_event(
        action,
        actor=actor,
        organization_id=operation.organization_id,
        target=target_of(operation),
        details=details or {},
    )
