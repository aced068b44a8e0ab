"""How an operation is carried out: a step begins the moment its own predecessors have succeeded."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Mapping, Sequence

from django.db import transaction
from django.db.models import Count, F, Q
from django.utils import timezone

from apps.audit.actor import Actor
from apps.gateways.actions.requests import queue_command
from apps.gateways.enums import OPEN_STATES, CommandState
from apps.gateways.exceptions import AgentQuarantinedError
from apps.gateways.models import Agent, Command
from apps.maps.documents.commands import prepare_command
from apps.maps.planning.plans import StepAction
from apps.operations.actions.endings import finish_if_done, touch_operation
from apps.operations.actions.states import Happening, apply_happenings, lock_map, next_epoch, recheck_state
from apps.operations.enums import Cause, OperationState, StepState
from apps.operations.models import Operation, Step, StepOrder
from apps.operations.selectors import agent_of, agents_for
from apps.operations.state_machine import Trigger

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
    """Send the commands of the steps that wait for nothing any more. The Map is locked by the caller.

    A step whose agent came into quarantine after the plan was made fails with that reason.
    """
    ready = list(
        operation.steps.filter(state=StepState.WAITING, waiting_for=0).select_related("component").order_by("position")
    )
    if not ready:
        return
    by_host = agents_for(operation.organization_id, [step.component for step in ready if step.component])
    sent: list[Happening] = []
    for step in ready:
        try:
            command = _send(step, by_host, actor)
        except AgentQuarantinedError as error:
            _fail(step, error.detail)
            continue
        if command is None or step.component is None:
            _fail(step, "The component, its agent or its command is gone.")
            continue
        Step.objects.filter(pk=step.pk).update(state=StepState.RUNNING, command=command, started_at=timezone.now())
        sent.append(
            Happening(
                step.component.pk,
                _SENT[StepAction(step.action)],
                Cause.PERSON,
                f"{operation.kind} {operation.target}",
            )
        )
    apply_happenings(operation.map_id, sent)


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


@transaction.atomic
def advance_steps(*, commands: Sequence[Command]) -> None:
    """Commands of ours ended: settle their steps and components, and release what waited for them.

    Idempotent: a step that is settled already is left alone.
    """
    ended = {command.pk: command for command in commands if command.state not in OPEN_STATES}
    steps = Step.objects.filter(command_id__in=ended, state=StepState.RUNNING).select_related("operation")
    # Maps in the order of their ids, so that two batches cannot wait for each other.
    by_map: dict[uuid.UUID, list[Step]] = defaultdict(list)
    for step in steps.order_by("operation__map_id", "position"):
        by_map[step.operation.map_id].append(step)
    for map_id, concerned in by_map.items():
        lock_map(map_id)
        settled = [step for step in concerned if step.command_id and _settle(step, ended[step.command_id])]
        for operation_id in dict.fromkeys(step.operation_id for step in settled):
            advance_operation(operation_id)


def _settle(step: Step, command: Command) -> bool:
    """The Map is locked. False if somebody settled the step before."""
    has_succeeded = command.state == CommandState.SUCCEEDED
    detail = "" if has_succeeded else describe_failure(command)
    running = Step.objects.filter(pk=step.pk, state=StepState.RUNNING)
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
        _skip_dependents(step)
    return True


def _settle_component(step: Step, component_id: uuid.UUID, *, has_succeeded: bool, detail: str) -> None:
    action = StepAction(step.action)
    trigger = (_SUCCEEDED if has_succeeded else _FAILED)[action]
    map_id = step.operation.map_id
    apply_happenings(map_id, [Happening(component_id, trigger, Cause.JOB, detail)])
    if trigger is Trigger.STOP_FAILED:
        recheck_state(map_id, component_id)


def _skip_dependents(failed: Step) -> None:
    """What waits for a failed step, directly or not, will not begin; independent branches go on."""
    frontier = {failed.pk}
    reason = f"{failed.action} of {failed.component_name} did not succeed"
    while frontier:
        waiting = Step.objects.filter(orders_before__before__in=frontier, state=StepState.WAITING)
        frontier = set(waiting.values_list("pk", flat=True))
        Step.objects.filter(pk__in=frontier).update(state=StepState.SKIPPED, detail=reason, finished_at=timezone.now())


def _fail(step: Step, detail: str) -> None:
    Step.objects.filter(pk=step.pk).update(state=StepState.FAILED, detail=detail, finished_at=timezone.now())
    _skip_dependents(step)


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


def advance_operation(operation_id: uuid.UUID) -> None:
    """Release what is ready, end what is done. The Map is locked by the caller."""
    operation = Operation.objects.select_related("map", "requested_by").get(pk=operation_id)
    if operation.state == OperationState.RUNNING:
        if not operation.is_cancel_requested:
            person = operation.requested_by
            actor = Actor.person(person) if person else Actor.system("operations")
            release_ready_steps(operation, actor=actor)
        finish_if_done(operation)
    touch_operation(operation)


def sweep_operations() -> None:
    """Repair what an event missed: steps whose command has ended, operations without an open step."""
    for step in Step.objects.filter(state=StepState.RUNNING).exclude(command__state__in=OPEN_STATES):
        if step.command is not None:
            advance_steps(commands=[step.command])
        else:
            with transaction.atomic():
                lock_map(step.operation.map_id)
                _fail(step, "Its command is gone.")
                advance_operation(step.operation_id)
    is_open = Q(steps__state__in=[StepState.WAITING, StepState.RUNNING])
    open_steps = Count("steps", filter=is_open)
    running = Operation.objects.filter(state=OperationState.RUNNING).annotate(open_steps=open_steps)
    for operation_id, map_id in running.filter(open_steps=0).values_list("pk", "map_id"):
        with transaction.atomic():
            lock_map(map_id)
            advance_operation(operation_id)
