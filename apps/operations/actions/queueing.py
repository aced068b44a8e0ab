"""Operations that wait for components that others hold: each in its turn, none overtaken, none forgotten.

An operation may begin when nobody holds any of its components and nobody who asked before waits for one of them. New
ones keep to that too, so that whoever waits for many components is not starved by those who want a few.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection

from django.db.models import Exists, F, OuterRef, QuerySet
from django.utils import timezone

from apps.audit.actions import record_event
from apps.audit.actor import Actor
from apps.maps.planning.plans import Scope
from apps.operations.actions.beginnings import begin_operation
from apps.operations.actions.endings import record_end, target_of, touch_operation
from apps.operations.actions.states import touch_map
from apps.operations.enums import FailurePolicy, OperationKind, OperationState
from apps.operations.exceptions import QueueFullError
from apps.operations.models import ComponentHold, Operation, QueuedClaim
from apps.operations.plans import CheckedPlan, make_plan
from apps.orgs.models import User

MAX_QUEUED = 100
"""Of one Map. Who comes later is refused, and told so."""


def plan_for(operation: Operation, user: User) -> CheckedPlan:
    """The plan of what an operation asks for, as things are now."""
    return make_plan(
        map=operation.map,
        user=user,
        kind=OperationKind(operation.kind),
        chosen=[uuid.UUID(pk) for pk in operation.chosen],
        scope=Scope(operation.scope) if operation.scope else None,
        failure_policy=FailurePolicy(operation.failure_policy),
        queue_number=operation.queue_number,
    )


def enqueue(operation: Operation, plan: CheckedPlan, *, actor: Actor) -> None:
    """Let a new operation wait for its turn. The Map is locked.

    Raises:
        QueueFullError: so many wait already.
    """
    if _queue_of(operation.map_id).count() >= MAX_QUEUED:
        raise QueueFullError(f"{MAX_QUEUED} operations of {operation.map.name} wait already: cancel some, or wait.")
    operation.state = OperationState.QUEUED
    operation.queue_number = operation.version = touch_map(operation.map)
    operation.save()
    _claim(operation, plan)
    record_event(
        "operation.queued",
        actor=actor,
        organization_id=operation.organization_id,
        target=target_of(operation),
        details={"kind": operation.kind, "target": operation.target, "reason": operation.reason},
    )


def start_queued(map_id: uuid.UUID) -> None:
    """Begin with every queued operation of a Map whose turn has come. The Map is locked.

    Its plan is made anew, and permissions are asked again: much may have happened since it was asked for.
    """
    if not _queue_of(map_id).exists():
        return
    # Each round takes one out of the queue, or leaves it there until another one has left.
    stayed: set[uuid.UUID] = set()
    while operation := _first_free(map_id, stayed):
        if _begin(operation):
            stayed.clear()
        else:
            stayed.add(operation.pk)
    # Whom those that are left wait for is shown with them.
    waiting = _queue_of(map_id)
    if first := waiting.select_related("map").first():
        waiting.update(version=touch_map(first.map))


def leave_queue(operation: Operation, state: OperationState, detail: str = "") -> None:
    """End an operation that never began. The Map is locked."""
    Operation.objects.filter(pk=operation.pk).update(
        state=state, finished_at=timezone.now(), detail=detail[:1000], queue_number=None
    )
    operation.claims.all().delete()
    record_end(operation, state, {"detail": detail[:1000], "steps": {}})
    touch_operation(operation)


def _queue_of(map_id: uuid.UUID) -> QuerySet[Operation]:
    return Operation.objects.filter(map_id=map_id, state=OperationState.QUEUED).order_by("queue_number")


def _first_free(map_id: uuid.UUID, stayed: Collection[uuid.UUID]) -> Operation | None:
    claimed = QueuedClaim.objects.filter(operation=OuterRef("pk"))
    is_held = Exists(ComponentHold.objects.filter(component__claims__operation=OuterRef("pk")))
    is_behind = Exists(
        claimed.filter(component__claims__operation__queue_number__lt=F("operation__queue_number")),
    )
    free = _queue_of(map_id).exclude(pk__in=stayed).filter(~is_held, ~is_behind)
    return free.select_related("map", "requested_by", "steered_by").first()


def _begin(operation: Operation) -> bool:
    """Take an operation out of the queue, however that ends; False if it has to stay, for more than it waited for."""
    person = operation.requested_by
    if person is None:
        leave_queue(operation, OperationState.FAILED, "Whoever asked for it has left.")
        return True
    plan = plan_for(operation, person)
    if not plan.is_free:
        _claim(operation, plan)
        return False
    problems = plan.all_problems()
    if problems and all(problem.code == "nothing_to_do" for problem in problems):
        leave_queue(operation, OperationState.SUCCEEDED, problems[0].message)
        return True
    if not plan.is_executable:
        leave_queue(operation, OperationState.FAILED, describe_problems(plan))
        return True
    operation.claims.all().delete()
    operation.state, operation.queue_number, operation.target = OperationState.RUNNING, None, plan.target
    operation.save(update_fields=["state", "queue_number", "target"])
    record_event(
        "operation.begun",
        actor=Actor.system("operations"),
        organization_id=operation.organization_id,
        target=target_of(operation),
        details={"target": plan.target, "steps": len(plan.steps)},
    )
    begin_operation(operation, plan)
    return True


def _claim(operation: Operation, plan: CheckedPlan) -> None:
    """It waits for all that its plan needs.

    And for all that it waited for before: if its claims could shrink, others might take in turns what it gave up and
    needs again, and it would wait for ever.
    """
    QueuedClaim.objects.bulk_create(
        (QueuedClaim(operation=operation, component_id=pk) for pk in plan.needed),
        ignore_conflicts=True,
        batch_size=5000,
    )


def describe_problems(plan: CheckedPlan) -> str:
    """The first thing that stands against a plan, and how many more there are."""
    problems = plan.all_problems()
    told = problems[0].message if problems else "There is nothing to do."
    return told + (f" ({len(problems) - 1} more)" if len(problems) > 1 else "")
