"""How operations go on by what happens on hosts, and the safety net for what was missed."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Sequence

from django.db import transaction
from django.db.models import Count, Exists, F, OuterRef, Q, QuerySet

from apps.gateways.enums import OPEN_STATES
from apps.gateways.models import Command
from apps.operations.actions.beginnings import go_on
from apps.operations.actions.durations import record_durations
from apps.operations.actions.queueing import start_queued
from apps.operations.actions.states import lock_map
from apps.operations.actions.steps import settle_lost_step, settle_step
from apps.operations.enums import FailurePolicy, OperationState, StepState
from apps.operations.models import Operation, Step


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
        settled = [step for step in concerned if step.command_id and settle_step(step, ended[step.command_id])]
        record_durations([step.pk for step in settled])
        for operation_id in dict.fromkeys(step.operation_id for step in settled):
            advance_operation(operation_id)
        if settled:
            start_queued(map_id)


def advance_operation(operation_id: uuid.UUID) -> None:
    """Release what is ready, end what is done. The Map is locked by the caller, who lets the queue go on after it."""
    go_on(Operation.objects.select_related("map", "requested_by", "steered_by").get(pk=operation_id))


def sweep_operations() -> None:
    """Repair what an event missed: steps whose command has ended, operations that could go on, queues that could."""
    for step in Step.objects.filter(state=StepState.RUNNING).exclude(command__state__in=OPEN_STATES):
        if step.command is not None:
            advance_steps(commands=[step.command])
        else:
            _settle_lost(step)
    for operation_id, map_id in _stuck_operations().values_list("pk", "map_id"):
        with transaction.atomic():
            lock_map(map_id)
            advance_operation(operation_id)
            start_queued(map_id)
    waiting = Operation.objects.filter(state=OperationState.QUEUED).order_by("map_id")
    for map_id in waiting.values_list("map_id", flat=True).distinct():
        with transaction.atomic():
            lock_map(map_id)
            start_queued(map_id)


@transaction.atomic
def _settle_lost(step: Step) -> None:
    map_id = step.operation.map_id
    lock_map(map_id)
    lost = Step.objects.select_related("operation").filter(pk=step.pk, state=StepState.RUNNING, command=None).first()
    if lost is not None:
        settle_lost_step(lost)
        advance_operation(lost.operation_id)
        start_queued(map_id)


def _stuck_operations() -> QuerySet[Operation]:
    """Running ones that have no open step, or one that waits for nothing and might begin."""
    ready = Step.objects.filter(operation=OuterRef("pk"), state=StepState.WAITING, waiting_for=0)
    running = OperationState.RUNNING
    counted = Operation.objects.filter(state=running).annotate(
        running_steps=Count("steps", filter=Q(steps__state=StepState.RUNNING)),
        open_steps=Count("steps", filter=Q(steps__state__in=[StepState.WAITING, StepState.RUNNING])),
        has_ready=Exists(ready),
    )
    has_room = Q(max_parallel=None) | Q(running_steps__lt=F("max_parallel"))
    may_begin = Q(has_ready=True, paused_at=None, is_cancel_requested=False) & has_room
    is_over = Q(open_steps=0) & (Q(paused_at=None) | ~Q(failure_policy=FailurePolicy.ROLL_BACK))
    return counted.filter(may_begin | is_over)
