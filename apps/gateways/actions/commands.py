"""Asking for commands, claiming them for sending, and closing those that nobody will answer."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.db.models import F, Q
from django.utils import timezone

from apps.audit.actions import record_event
from apps.audit.actor import Actor
from apps.gateways.dispatch import cancel_frame, check_command, command_frame, wake_gateway_on_commit
from apps.gateways.enums import OPEN_STATES, PREDECESSORS, CommandState
from apps.gateways.models import Agent, Command
from apps.gateways.signals import command_ended

LEASE = timedelta(seconds=10)
CLAIM_BATCH = 100
DELIVERY_TIME = timedelta(seconds=60)
"""How long a command may be on its way before it must not begin any more."""

ANSWER_GRACE = timedelta(seconds=30)
"""How long after its own time limit a command that has begun may stay unanswered."""


@transaction.atomic
def queue_command(
    *,
    agent: Agent,
    name: str,
    spec: dict[str, Any],
    execution: dict[str, Any],
    timeout_ms: int,
    actor: Actor,
    subject: uuid.UUID | None = None,
    epoch: int = 0,
    idempotency_key: str | None = None,
) -> Command:
    """Write a command with its audit event; the agent's gateway is told on commit.

    With an idempotency key that this person used before, the command of that time is returned instead.

    Raises:
        InvalidCommandError: the spec has a fault.
    """
    check_command(spec, execution)
    key = f"{actor.id}:{idempotency_key}" if idempotency_key else None
    command, is_new = _create_once(
        agent=agent,
        name=name,
        subject=subject,
        epoch=epoch,
        spec=spec,
        execution=execution,
        timeout_ms=timeout_ms,
        not_after=timezone.now() + DELIVERY_TIME,
        requested_by=actor.as_json(),
        idempotency_key=key,
    )
    if not is_new:
        return command
    record_event(
        "command.requested",
        actor=actor,
        organization_id=agent.organization_id,
        target={"type": "command", "commandId": str(command.pk), "agentId": agent.agent_id},
        details={"name": name, "subject": str(subject) if subject else None, "command": spec},
    )
    wake_gateway_on_commit(agent.gateway_id)
    return command


def _create_once(*, agent: Agent, idempotency_key: str | None, **fields: Any) -> tuple[Command, bool]:
    """A new row, or the one that has this key already: also when the same request comes twice at the same time."""
    fields |= {"agent": agent}
    if idempotency_key is None:
        return Command.objects.create(organization_id=agent.organization_id, **fields), True
    return Command.objects.get_or_create(
        organization_id=agent.organization_id, idempotency_key=idempotency_key, defaults=fields
    )


@transaction.atomic
def claim_commands(*, gateway_id: uuid.UUID, session_id: uuid.UUID) -> list[str]:
    """The frames of the next commands for this gateway's agents, oldest first, now leased to this session.

    A command whose lease ended without an answer is claimed again under the same id: the agent knows which it has seen.
    """
    now = timezone.now()
    claimed = (
        Command.objects.select_for_update(skip_locked=True, of=("self",), no_key=True)
        .filter(
            Q(lease_until=None) | Q(lease_until__lt=now),
            state__in=[CommandState.QUEUED, CommandState.SENT],
            not_after__gt=now,
            agent__gateway_id=gateway_id,
            agent__gateway__session_id=session_id,
            agent__session_id__isnull=False,
        )
        .select_related("agent")
        .order_by("id")[:CLAIM_BATCH]
    )
    commands = list(claimed)
    Command.objects.filter(pk__in=[command.pk for command in commands]).update(
        state=CommandState.SENT, sent_at=now, lease_until=now + LEASE, fence=F("fence") + 1
    )
    return [command_frame(command, command.agent.agent_id) for command in commands]


@transaction.atomic
def cancel_command(*, command: Command, actor: Actor) -> None:
    """Ask for the end of a command. One that was never sent is cancelled here and now; else the agent decides."""
    record_event(
        "command.cancel_requested",
        actor=actor,
        organization_id=command.organization_id,
        target={"type": "command", "commandId": str(command.pk)},
    )
    if change_state(command.pk, CommandState.CANCELLED, from_states={CommandState.QUEUED}, finished_at=timezone.now()):
        return
    Command.objects.filter(pk=command.pk, state__in=OPEN_STATES).update(is_cancel_requested=True)
    wake_gateway_on_commit(command.agent.gateway_id)


def claim_cancellations(*, gateway_id: uuid.UUID, session_id: uuid.UUID) -> list[str]:
    """The frames of cancellations that this session has to pass on. Repeating one is harmless."""
    with transaction.atomic():
        wanted = list(
            Command.objects.select_for_update(skip_locked=True, of=("self",), no_key=True)
            .filter(
                is_cancel_requested=True,
                state__in=OPEN_STATES,
                agent__gateway_id=gateway_id,
                agent__gateway__session_id=session_id,
                agent__session_id__isnull=False,
            )
            .select_related("agent")[:CLAIM_BATCH]
        )
        Command.objects.filter(pk__in=[command.pk for command in wanted]).update(is_cancel_requested=False)
    return [cancel_frame(command, command.agent.agent_id) for command in wanted]


def change_state(
    command_id: uuid.UUID,
    state: CommandState,
    *,
    from_states: set[CommandState] | frozenset[CommandState] | None = None,
    agent: Agent | None = None,
    **fields: Any,
) -> bool:
    """Compare-and-set: enter `state` if the present one allows it. False if it does not.

    The end of a command is told to the apps above.

    With an `agent`, only a command of that agent: whoever reports can speak of its own commands alone.
    Must run inside a transaction, so that what the receivers write belongs to the change.
    """
    allowed = PREDECESSORS[state] if from_states is None else from_states
    if state not in OPEN_STATES:
        fields |= {"next_poll_at": None, "lease_until": None}
    allowed_rows = Command.objects.filter(pk=command_id, state__in=allowed)
    if agent is not None:
        allowed_rows = allowed_rows.filter(agent=agent)
    if not allowed_rows.update(state=state, **fields):
        return False
    if state not in OPEN_STATES:
        command = Command.objects.select_related("agent").get(pk=command_id)
        command_ended.send(sender=Command, command=command)
    return True


def sweep_commands(*, now: datetime | None = None) -> int:
    """Close what can no longer be answered: never sent in time is `expired`, sent and silent is `unknown`.

    Returns how many were closed. Only repairs what no event closed.
    """
    moment = now or timezone.now()
    closed = 0
    for command_id, state in _overdue(moment):
        with transaction.atomic():
            if state == CommandState.QUEUED:
                outcome, detail = CommandState.EXPIRED, "It could not be delivered in time."
            else:
                outcome, detail = CommandState.UNKNOWN, "The agent did not answer in time; it may have run."
            present = {CommandState(state)}
            closed += change_state(command_id, outcome, from_states=present, detail=detail, finished_at=moment)
    return closed


def _overdue(moment: datetime) -> Sequence[tuple[uuid.UUID, str]]:
    late = Command.objects.filter(state__in=[CommandState.QUEUED, CommandState.SENT], not_after__lt=moment).values_list(
        "pk", "state"
    )
    silent = Command.objects.filter(
        state__in=[CommandState.RECEIVED, CommandState.STARTED], not_after__lt=moment - ANSWER_GRACE
    ).values_list("pk", "state", "not_after", "timeout_ms")
    overdue = list(late[:500])
    for pk, state, not_after, timeout_ms in silent[:2000]:
        # It began before `not_after` at the latest.
        if not_after + timedelta(milliseconds=timeout_ms) + ANSWER_GRACE < moment:
            overdue.append((pk, state))
    return overdue
