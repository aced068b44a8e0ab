"""Undoing what an operation has done: the plan of it, as further steps of the same operation."""

from __future__ import annotations

import uuid
from collections import defaultdict

from django.db.models import Max

from apps.audit.actions import record_event
from apps.audit.actor import Actor
from apps.maps.planning.plans import Plan, PlannedStep, StepAction
from apps.maps.planning.rollback import plan_rollback
from apps.operations.actions.endings import count_steps, finish, target_of
from apps.operations.enums import StepState
from apps.operations.models import Operation, Step, StepOrder

_Key = tuple[uuid.UUID, StepAction]


def begin_rollback(operation: Operation) -> None:
    """Write the steps that undo what succeeded, or end the operation if nothing did. The Map is locked."""
    plan, names = _plan(operation)
    if not plan.steps:
        finish(operation, count_steps(operation), detail="Nothing had succeeded that would have to be undone.")
        return
    operation.is_rolling_back = True
    operation.save(update_fields=["is_rolling_back"])
    last = operation.steps.aggregate(last=Max("position"))["last"]
    steps = {
        step.key: Step(
            operation=operation,
            component_id=step.node,
            component_name=names[step.node],
            action=step.action,
            position=position,
            waiting_for=len(step.after),
            is_rollback=True,
        )
        for position, step in enumerate(plan.steps, start=last + 1)
    }
    Step.objects.bulk_create(steps.values(), batch_size=1000)
    StepOrder.objects.bulk_create(
        (StepOrder(step=steps[step.key], before=steps[key]) for step in plan.steps for key in step.after),
        batch_size=5000,
    )
    record_event(
        "operation.roll_back_begun",
        actor=Actor.system("operations"),
        organization_id=operation.organization_id,
        target=target_of(operation),
        details={"steps": len(steps)},
    )


def _plan(operation: Operation) -> tuple[Plan[uuid.UUID], dict[uuid.UUID, str]]:
    """The plan that undoes what succeeded, and the names of its components."""
    rows = list(operation.steps.filter(component__isnull=False).order_by("position"))
    keys: dict[uuid.UUID, _Key] = {
        row.pk: (row.component_id, StepAction(row.action)) for row in rows if row.component_id is not None
    }
    after: dict[uuid.UUID, set[_Key]] = defaultdict(set)
    for step_id, before_id in StepOrder.objects.filter(step__operation=operation).values_list("step_id", "before_id"):
        if before_id in keys:
            after[step_id].add(keys[before_id])
    planned = [PlannedStep(*keys[row.pk], frozenset(after[row.pk])) for row in rows]
    succeeded = {keys[row.pk] for row in rows if row.state == StepState.SUCCEEDED}
    return plan_rollback(planned, succeeded), {keys[row.pk][0]: row.component_name for row in rows}
