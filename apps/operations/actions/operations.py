"""What people ask: starting an operation and cancelling it."""

from __future__ import annotations

import uuid
from collections.abc import Collection

from django.db import transaction
from django.utils import timezone

from apps.audit.actions import record_event
from apps.audit.actor import Actor
from apps.maps.models import Map
from apps.maps.planning.plans import Scope
from apps.operations.actions.endings import finish_if_done, touch_operation
from apps.operations.actions.states import lock_map, touch_components
from apps.operations.actions.steps import release_ready_steps
from apps.operations.enums import OperationKind, OperationState, StepState
from apps.operations.exceptions import HeldError, NotExecutableError
from apps.operations.models import ComponentHold, Operation, Step, StepOrder
from apps.operations.plans import CheckedPlan, make_plan
from apps.orgs.models import User


@transaction.atomic
def start_operation(
    *,
    map: Map,
    user: User,
    actor: Actor,
    kind: OperationKind,
    chosen: Collection[uuid.UUID],
    scope: Scope | None = None,
    reason: str = "",
) -> Operation:
    """Plan, take hold of every component of the plan, and begin with the steps that wait for nothing.

    Raises:
        NotExecutableError: the plan has problems; nothing is written.
        HeldError: another operation holds one of its components; nothing is written.
    """
    locked = lock_map(map.pk)
    plan = make_plan(map=locked, user=user, kind=kind, chosen=chosen, scope=scope)
    if plan.holds:
        raise HeldError(_held_message(plan), holders=[_holder(hold) for hold in plan.holds])
    if not plan.is_executable:
        problems = plan.all_problems()
        told = problems[0].message if problems else "There is nothing to do."
        more = f" ({len(problems) - 1} more)" if len(problems) > 1 else ""
        raise NotExecutableError(told + more, problems=[_problem(problem) for problem in problems])
    operation = Operation.objects.create(
        organization_id=locked.organization_id,
        map=locked,
        kind=kind,
        target=plan.target,
        reason=reason[:500],
        requested_by=user,
    )
    _write_steps(operation, plan)
    component_ids = {step.component.pk for step in plan.steps}
    ComponentHold.objects.bulk_create(ComponentHold(component_id=pk, operation=operation) for pk in component_ids)
    record_event(
        f"operation.{kind}.requested",
        actor=actor,
        organization_id=locked.organization_id,
        target={"type": "operation", "operationId": str(operation.pk), "mapId": str(locked.pk)},
        details={"target": plan.target, "steps": len(plan.steps), "reason": reason[:500]},
    )
    touch_components(locked, component_ids)
    release_ready_steps(operation, actor=actor)
    # None may have begun: a host can come into quarantine between the plan and this.
    finish_if_done(operation)
    touch_operation(operation)
    return operation


def _write_steps(operation: Operation, plan: CheckedPlan) -> None:
    steps = {
        step.planned.key: Step(
            operation=operation,
            component=step.component,
            component_name=step.component.name,
            action=step.planned.action,
            position=position,
            waiting_for=len(step.planned.after),
        )
        for position, step in enumerate(plan.steps)
    }
    Step.objects.bulk_create(steps.values(), batch_size=1000)
    StepOrder.objects.bulk_create(
        (
            StepOrder(step=steps[checked.planned.key], before=steps[key])
            for checked in plan.steps
            for key in checked.planned.after
        ),
        batch_size=5000,
    )


def _holder(hold: ComponentHold) -> dict[str, object]:
    operation = hold.operation
    person = operation.requested_by
    return {
        "component": {"id": str(hold.component_id), "name": hold.component.name},
        "operation": {
            "id": str(operation.pk),
            "kind": operation.kind,
            "target": operation.target,
            "requestedBy": {"id": str(person.pk), "name": person.name, "email": person.email} if person else None,
        },
    }


def _held_message(plan: CheckedPlan) -> str:
    hold = plan.holds[0]
    person = hold.operation.requested_by
    who = (person.name or person.email) if person else "somebody who has left"
    more = f" (and {len(plan.holds) - 1} more)" if len(plan.holds) > 1 else ""
    return f"{hold.component.name}{more} is held by “{hold.operation.kind} {hold.operation.target}” of {who}."


def _problem(problem: object) -> dict[str, object]:
    return {key: getattr(problem, key) for key in ("code", "message", "component") if getattr(problem, key)}


@transaction.atomic
def cancel_operation(*, operation: Operation, actor: Actor) -> None:
    """Nothing new begins. What has begun ends by itself, so that no component is left half started or half stopped."""
    lock_map(operation.map_id)
    changed = Operation.objects.filter(pk=operation.pk, state=OperationState.RUNNING, is_cancel_requested=False).update(
        is_cancel_requested=True
    )
    if not changed:
        return
    operation.refresh_from_db()
    operation.steps.filter(state=StepState.WAITING).update(state=StepState.CANCELLED, finished_at=timezone.now())
    record_event(
        "operation.cancelled",
        actor=actor,
        organization_id=operation.organization_id,
        target={"type": "operation", "operationId": str(operation.pk), "mapId": str(operation.map_id)},
    )
    finish_if_done(operation)
    touch_operation(operation)
