"""The states of commands, and closing those that nobody will answer."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from apps.gateways.actions.claims import next_probe_at, poll_interval
from apps.gateways.dispatch import announce_ends_on_commit
from apps.gateways.enums import OPEN_STATES, PREDECESSORS, CommandState
from apps.gateways.models import Agent, Command
from apps.gateways.signals import commands_ended

ANSWER_GRACE = timedelta(seconds=30)
"""How long after its own time limit a command that has begun may stay unanswered."""

_LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


def change_state(
    command_id: uuid.UUID,
    state: CommandState,
    *,
    from_states: set[CommandState] | frozenset[CommandState] | None = None,
    agent: Agent | None = None,
    **fields: Any,
) -> bool:
    """Compare-and-set: enter `state` if the present one allows it. False if it does not.

    The end of a command is told to the apps above and to whoever waits for it.

    With an `agent`, only a command of that agent: whoever reports can speak of its own commands alone.
    Must run inside a transaction, so that what the receivers write belongs to the change.
    """
    allowed = PREDECESSORS[state] if from_states is None else from_states
    if state not in OPEN_STATES:
        fields = {"next_poll_at": None, "lease_until": None} | fields
    allowed_rows = Command.objects.filter(pk=command_id, state__in=allowed)
    if agent is not None:
        allowed_rows = allowed_rows.filter(agent=agent)
    if not allowed_rows.update(state=state, **fields):
        return False
    if state not in OPEN_STATES:
        tell_ended([command_id], with_subject=[command_id])
    return True


def tell_ended(command_ids: Sequence[uuid.UUID], *, with_subject: Sequence[uuid.UUID]) -> None:
    """Commands have ended: tell the apps above of those that are about something, and whoever waits of all."""
    announce_ends_on_commit(command_ids)
    about_something = Command.objects.filter(pk__in=with_subject, subject__isnull=False) if with_subject else ()
    if commands := [*about_something]:
        commands_ended.send(sender=Command, commands=commands)


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
            ask_at = next_probe_at(moment, moment) if outcome is CommandState.UNKNOWN else None
            closed += change_state(
                command_id,
                outcome,
                from_states={CommandState(state)},
                detail=detail,
                finished_at=moment,
                next_poll_at=ask_at,
            )
    return closed


def _overdue(moment: datetime) -> Sequence[tuple[uuid.UUID, str]]:
    late = Command.objects.filter(state__in=[CommandState.QUEUED, CommandState.SENT], not_after__lt=moment).values_list(
        "pk", "state"
    )
    silent = Command.objects.filter(
        Q(heard_at=None) | Q(heard_at__lt=moment - ANSWER_GRACE),
        state__in=[CommandState.RECEIVED, CommandState.STARTED],
        not_after__lt=moment - ANSWER_GRACE,
    ).values_list("pk", "state", "not_after", "timeout_ms", "heard_at", "execution")
    overdue = list(late[:500])
    for pk, state, not_after, timeout_ms, heard_at, execution in silent[:2000]:
        # It began before `not_after` at the latest. A job that still answers when asked is late, but not unknown.
        answers_until = max(not_after + timedelta(milliseconds=timeout_ms), _answered_until(heard_at, execution))
        if answers_until + ANSWER_GRACE < moment:
            overdue.append((pk, state))
    return overdue


def _answered_until(heard_at: datetime | None, execution: dict[str, Any]) -> datetime:
    """Until when silence means nothing: twice the time between two questions."""
    return _LONG_AGO if heard_at is None else heard_at + 2 * poll_interval(execution)
