"""The beginning of an operation: its steps, its components to itself, and the first commands. And how it goes on."""

from __future__ import annotations

from apps.audit.actor import Actor
from apps.operations.actions.endings import count_steps, finish_if_done, must_roll_back, touch_operation
from apps.operations.actions.rollbacks import begin_rollback
from apps.operations.actions.states import touch_components
from apps.operations.actions.steps import release_ready_steps
from apps.operations.enums import OperationState
from apps.operations.models import ComponentHold, Operation, Step, StepOrder
from apps.operations.plans import CheckedPlan


def begin_operation(operation: Operation, plan: CheckedPlan) -> None:
    """Take hold of every component of the plan, and begin with the steps that wait for nothing. The Map is locked."""
    _write_steps(operation, plan)
    component_ids = {step.component.pk for step in plan.steps}
    ComponentHold.objects.bulk_create(
        (ComponentHold(component_id=pk, operation=operation) for pk in component_ids), batch_size=5000
    )
    touch_components(operation.map, component_ids)
    # None may begin: a host can come into quarantine between the plan and this.
    go_on(operation)


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


def go_on(operation: Operation) -> None:
    """Begin what may begin, roll back if that is due, end what is done. The Map is locked, the operation read since."""
    if operation.state == OperationState.RUNNING:
        actor = _actor_of(operation)
        release_ready_steps(operation, actor=actor)
        # Not while it is paused: whoever paused it may still try the failed step again, or skip it.
        if operation.paused_at is None and must_roll_back(operation, count_steps(operation)):
            begin_rollback(operation)
            release_ready_steps(operation, actor=actor)
        finish_if_done(operation)
    touch_operation(operation)


def _actor_of(operation: Operation) -> Actor:
    person = operation.steered_by or operation.requested_by
    return Actor.person(person) if person else Actor.system("operations")
