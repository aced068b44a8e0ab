"""Single steps: beginning what may begin, writing down how it ended, and what that means for the steps behind it."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Mapping, Sequence

from django.db.models import F, QuerySet
from django.utils import timezone

from apps.audit.actor import Actor
from apps.gateways.actions.requests import queue_command
from apps.gateways.enums import CommandState
from apps.gateways.exceptions import AgentQuarantinedError
from apps.gateways.models import Agent, Command
from apps.maps.documents.commands import prepare_command
from apps.maps.planning.plans import StepAction
from apps.operations.actions.states import Happening, apply_happenings, next_epoch, recheck_state
from apps.operations.enums import Cause, FailurePolicy, StepState
from apps.operations.models import Operation, Step, StepOrder
from apps.operations.selectors import agent_of, agents_for
from apps.operations.state_machine import Trigger

_DONE = frozenset({StepState.SUCCEEDED, StepState.WAIVED})
_IN_THE_WAY = frozenset({StepState.FAILED, StepState.SKIPPED, StepState.CANCELLED})

_SENT = {
    StepAction.START: Trigger.START_SENT,
    StepAction.RESTART: Trigger.START_SENT,
    StepAction.STOP: Trigger.STOP_SENT,
}
_SUCCEEDED = {
    StepAction.START: Trigger.START_SUCCEEDED,
    StepAction.RESTART: Trigger.START_SUCCEEDED,
    StepAction.STOP: Trigger.STOP_SUCCEEDED,
}
_FAILED = {
    StepAction.START: Trigger.START_FAILED,
    StepAction.RESTART: Trigger.START_FAILED,
    StepAction.STOP: Trigger.STOP_FAILED,
}


def release_ready_steps(operation: Operation, *, actor: Actor) -> None:
    """Send the commands of the steps that wait for nothing any more, no more than may run at once.

    The Map is locked by the caller. Nothing begins while the operation is paused or once it is cancelled. A step that
    cannot be sent, because its agent came into quarantine after the plan was made, fails with that reason.
    """
    while ready := _next_steps(operation):
        if _send_all(operation, ready, actor):
            return


def _next_steps(operation: Operation) -> list[Step]:
    if operation.paused_at is not None or operation.is_cancel_requested:
        return []
    ready = operation.steps.filter(state=StepState.WAITING, waiting_for=0).order_by("position")
    if operation.max_parallel is not None:
        running = operation.steps.filter(state=StepState.RUNNING).count()
        ready = ready[: max(0, operation.max_parallel - running)]
    return list(ready.select_related("component"))


def _send_all(operation: Operation, ready: Sequence[Step], actor: Actor) -> bool:
    """False if a step failed at once: then others may have become free, or must not begin any more."""
    by_host = agents_for(operation.organization_id, [step.component for step in ready if step.component])
    sent: list[Happening] = []
    has_failed = False
    for step in ready:
        refusal = ""
        try:
            command = _send(step, by_host, actor)
        except AgentQuarantinedError as error:
            command, refusal = None, error.detail
        if command is None or step.component is None:
            fail_step(step, operation, refusal or "The component, its agent or its command is gone.")
            has_failed = True
            if operation.failure_policy != FailurePolicy.CONTINUE:
                break
            continue
        Step.objects.filter(pk=step.pk).update(state=StepState.RUNNING, command=command, started_at=timezone.now())
        why = f"{'roll back of ' if step.is_rollback else ''}{operation.kind} {operation.target}"
        sent.append(Happening(step.component.pk, _SENT[StepAction(step.action)], Cause.PERSON, why))
    apply_happenings(operation.map_id, sent)
    return not has_failed


def _send(step: Step, by_host: Mapping[str, Agent], actor: Actor) -> Command | None:
    component = step.component
    agent = agent_of(component, by_host) if component else None
    prepared = prepare_command(component.spec, step.action) if component else None
    if component is None or agent is None or prepared is None:
        return None
    return queue_command(
        agent=agent,
        name=step.action,
        spec=prepared.spec,
        execution=prepared.execution,
        timeout_ms=prepared.timeout_ms,
        actor=actor,
        subject=component.pk,
        epoch=next_epoch(component.pk),
    )


def settle_step(step: Step, command: Command) -> bool:
    """Write down how the step's command ended, and what follows for its component and for the steps behind it.

    The Map is locked by the caller. False if somebody settled the step before, or it is being tried again since.
    """
    has_succeeded = command.state == CommandState.SUCCEEDED
    detail = "" if has_succeeded else describe_failure(command)
    running = Step.objects.filter(pk=step.pk, state=StepState.RUNNING, command_id=command.pk)
    if not running.update(
        state=StepState.SUCCEEDED if has_succeeded else StepState.FAILED,
        detail=detail,
        finished_at=timezone.now(),
    ):
        return False
    if step.component_id is not None:
        _settle_component(step, step.component_id, has_succeeded=has_succeeded, detail=detail)
    if has_succeeded:
        after = StepOrder.objects.filter(before=step).values("step_id")
        Step.objects.filter(pk__in=after).update(waiting_for=F("waiting_for") - 1)
    else:
        _hold_back(step, step.operation)
    return True


def settle_lost_step(step: Step) -> None:
    """A step that runs, but whose command is gone: nobody will ever say how it ended. The Map is locked."""
    detail = "Its command is gone."
    fail_step(step, step.operation, detail)
    if step.component_id is not None:
        _settle_component(step, step.component_id, has_succeeded=False, detail=detail)


def _settle_component(step: Step, component_id: uuid.UUID, *, has_succeeded: bool, detail: str) -> None:
    action = StepAction(step.action)
    trigger = (_SUCCEEDED if has_succeeded else _FAILED)[action]
    map_id = step.operation.map_id
    apply_happenings(map_id, [Happening(component_id, trigger, Cause.JOB, detail)])
    if trigger is Trigger.STOP_FAILED:
        recheck_state(map_id, component_id)


def _hold_back(failed: Step, operation: Operation) -> None:
    """What must not begin after a failure: all of it, or what waits for the failed step. A roll back goes on."""
    if operation.failure_policy == FailurePolicy.CONTINUE or failed.is_rollback:
        _skip_dependents(failed)
    else:
        _skip(operation.steps.filter(state=StepState.WAITING), failed)


def _skip_dependents(failed: Step) -> None:
    """What waits for a failed step, directly or not, will not begin; independent branches go on."""
    frontier = {failed.pk}
    while frontier:
        waiting = Step.objects.filter(orders_before__before__in=frontier, state=StepState.WAITING)
        frontier = set(waiting.values_list("pk", flat=True))
        _skip(Step.objects.filter(pk__in=frontier), failed)


def _skip(steps: QuerySet[Step], failed: Step) -> None:
    reason = f"{failed.action} of {failed.component_name} did not succeed"
    steps.update(state=StepState.SKIPPED, detail=reason, finished_at=timezone.now())


def fail_step(step: Step, operation: Operation, detail: str) -> None:
    Step.objects.filter(pk=step.pk).update(state=StepState.FAILED, detail=detail, finished_at=timezone.now())
    _hold_back(step, operation)


def revive_steps(operation: Operation) -> None:
    """Let every step wait again that no failed one stands before, and count anew what each waits for.

    For the steps of what the operation is about now: its own, or those of its roll back. The Map is locked.
    """
    steps = list(operation.steps.filter(is_rollback=operation.is_rolling_back).order_by("position"))
    befores: dict[uuid.UUID, list[uuid.UUID]] = defaultdict(list)
    for step_id, before_id in StepOrder.objects.filter(step__operation=operation).values_list("step_id", "before_id"):
        befores[step_id].append(before_id)
    states = {step.pk: StepState(step.state) for step in steps}
    changed = []
    # In the order of the plan: each comes after those it waits for.
    for step in steps:
        if states[step.pk] not in {StepState.WAITING, StepState.SKIPPED}:
            continue
        before = [states[pk] for pk in befores[step.pk]]
        if any(state in _IN_THE_WAY for state in before):
            continue
        states[step.pk] = StepState.WAITING
        step.state, step.detail, step.finished_at = StepState.WAITING, "", None
        step.waiting_for = sum(state not in _DONE for state in before)
        changed.append(step)
    Step.objects.bulk_update(changed, ["state", "detail", "finished_at", "waiting_for"], batch_size=1000)


def describe_failure(command: Command) -> str:
    """Why a command did not succeed, in words, with what its check saw last."""
    words = {
        CommandState.EXPIRED: "It could not be delivered in time.",
        CommandState.UNKNOWN: "The agent did not answer; it may have run.",
        CommandState.CANCELLED: "It was cancelled.",
    }
    parts = [command.detail or words.get(CommandState(command.state), "It failed.")]
    if command.exit_code not in {None, 0} and "exit" not in parts[0]:
        parts.append(f"Exit code {command.exit_code}.")
    return " ".join(parts)
