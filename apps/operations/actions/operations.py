"""What people ask: starting an operation, or letting it wait for its turn."""

from __future__ import annotations

import uuid
from collections.abc import Collection

from django.db import transaction

from apps.audit.actions import record_event
from apps.audit.actor import Actor
from apps.maps.models import Map
from apps.maps.planning.plans import Scope
from apps.operations.actions.beginnings import begin_operation
from apps.operations.actions.endings import target_of
from apps.operations.actions.queueing import describe_problems, enqueue, plan_for
from apps.operations.actions.states import lock_map
from apps.operations.enums import FailurePolicy, IfHeld, OperationKind
from apps.operations.exceptions import HeldError, NotExecutableError, ReasonRequiredError
from apps.operations.models import ComponentHold, Operation
from apps.operations.plans import CheckedPlan, Problem
from apps.orgs.models import User
from apps.rbac.selectors import resolve_permissions

MAX_SHOWN_HOLDERS = 200


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
    failure_policy: FailurePolicy = FailurePolicy.CONTINUE,
    max_parallel: int | None = None,
    if_held: IfHeld = IfHeld.REFUSE,
) -> Operation:
    """Plan, take hold of every component of the plan, and begin with the steps that wait for nothing.

    If others hold its components or wait for them, it is refused, or waits for its turn: as `if_held` says.

    Raises:
        ReasonRequiredError: the Map wants to know why.
        NotExecutableError: the plan has problems; nothing is written.
        HeldError: others hold one of its components, or asked for it before; nothing is written.
        QueueFullError: too many wait already; nothing is written.
    """
    locked = lock_map(map.pk)
    if locked.requires_reason and not reason.strip():
        raise ReasonRequiredError(f"{locked.name} asks for a reason: say why this has to be done.")
    operation = Operation(
        organization_id=locked.organization_id,
        map=locked,
        kind=kind,
        chosen=[str(pk) for pk in dict.fromkeys(chosen)],
        scope=scope or "",
        reason=reason[:500],
        failure_policy=failure_policy,
        max_parallel=max_parallel,
        requested_by=user,
    )
    plan = plan_for(operation, user)
    operation.target = plan.target
    if not plan.is_free and if_held is IfHeld.REFUSE:
        raise held_error(plan)
    _check_problems(operation, plan, user)
    if plan.is_free:
        _begin(operation, plan, actor)
    else:
        enqueue(operation, plan, actor=actor)
    return operation


def _check_problems(operation: Operation, plan: CheckedPlan, user: User) -> None:
    """Raises NotExecutableError. One that has to wait may turn out to have something to do when its turn comes."""
    problems = plan.all_problems()
    if not plan.steps and not plan.is_free:
        # There is no step that says so.
        needed = "restart" if operation.kind == OperationKind.REPAIR else operation.kind
        perm = f"component:{needed}"
        if not resolve_permissions(user, operation.organization_id, [perm])[perm]:
            problems = [Problem("permission_denied", f"You may not {needed} anything on {operation.map.name}.")]
    elif not plan.steps and not problems:
        problems = [Problem("nothing_to_do", "There is nothing to do.")]
    if problems:
        told = describe_problems(plan) if plan.all_problems() else problems[0].message
        raise NotExecutableError(told, problems=[_problem(problem) for problem in problems])


def _begin(operation: Operation, plan: CheckedPlan, actor: Actor) -> None:
    operation.save()
    record_event(
        f"operation.{operation.kind}.requested",
        actor=actor,
        organization_id=operation.organization_id,
        target=target_of(operation),
        details={"target": plan.target, "steps": len(plan.steps), "reason": operation.reason},
    )
    begin_operation(operation, plan)


def held_error(plan: CheckedPlan) -> HeldError:
    """Who has what this plan needs, and who asked for it before."""
    return HeldError(
        _held_message(plan),
        holders=[_holder(hold) for hold in plan.holds[:MAX_SHOWN_HOLDERS]],
        ahead=[_operation(operation) for operation in plan.ahead],
    )


def _holder(hold: ComponentHold) -> dict[str, object]:
    return {
        "component": {"id": str(hold.component_id), "name": hold.component.name},
        "operation": _operation(hold.operation),
    }


def _operation(operation: Operation) -> dict[str, object]:
    person = operation.requested_by
    return {
        "id": str(operation.pk),
        "kind": operation.kind,
        "target": operation.target,
        "requestedBy": {"id": str(person.pk), "name": person.name, "email": person.email} if person else None,
    }


def _held_message(plan: CheckedPlan) -> str:
    if not plan.holds:
        first = plan.ahead[0]
        return (
            f"“{first.kind} {first.target}” of {_who(first)} waits for the same components, and was asked for before."
        )
    hold = plan.holds[0]
    more = f" (and {len(plan.holds) - 1} more)" if len(plan.holds) > 1 else ""
    holder = hold.operation
    return f"{hold.component.name}{more} is held by “{holder.kind} {holder.target}” of {_who(holder)}."


def _who(operation: Operation) -> str:
    person = operation.requested_by
    return (person.name or person.email) if person else "somebody who has left"


def _problem(problem: Problem) -> dict[str, object]:
    return {key: getattr(problem, key) for key in ("code", "message", "component") if getattr(problem, key)}
