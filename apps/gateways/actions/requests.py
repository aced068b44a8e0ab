"""What people and the apps above ask for: commands, and the end of commands."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any

from django.db import transaction
from django.utils import timezone

from apps.audit.actions import create_with_event, record_event
from apps.audit.actor import Actor
from apps.gateways.actions.commands import change_state
from apps.gateways.actions.quarantine import why_quarantined
from apps.gateways.dispatch import check_command, wake_gateway_on_commit
from apps.gateways.enums import OPEN_STATES, CommandState
from apps.gateways.exceptions import AgentQuarantinedError, AgentUnavailableError, IdempotencyKeyReusedError
from apps.gateways.models import Agent, Command
from opsmap.lib.problems import ProblemError

DELIVERY_TIME = timedelta(seconds=60)
"""How long a command may be on its way before it must not begin any more."""


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
    must_be_online: bool = False,
) -> Command:
    """Write a command with its audit event; the agent's gateway is told on commit.

    With an idempotency key that this person used before, the command of that time is returned instead: also when the
    agent has gone away since, or the same request comes twice at the same time.

    Raises:
        InvalidCommandError: the spec has a fault.
        IdempotencyKeyReusedError: the command of that time was another one.
        AgentQuarantinedError: the agent gets no commands.
        AgentUnavailableError: the agent `must_be_online` and is not.
    """
    check_command(spec, execution)
    command = Command(
        organization_id=agent.organization_id,
        agent=agent,
        name=name,
        subject=subject,
        epoch=epoch,
        spec=spec,
        execution=execution,
        timeout_ms=timeout_ms,
        not_after=timezone.now() + DELIVERY_TIME,
        requested_by=actor.as_json(),
        idempotency_key=personal_key(actor, idempotency_key),
    )
    if refusal := _refusal(agent, must_be_online=must_be_online):
        if repeated := _find_repeated(command):
            return repeated
        raise refusal
    is_new = create_with_event(
        command,
        "command.requested",
        actor=actor,
        organization_id=agent.organization_id,
        target={"type": "command", "commandId": str(command.pk), "agentId": agent.agent_id},
        details={"name": name, "subject": str(subject) if subject else None, "command": spec},
    )
    if not is_new:
        repeated = _find_repeated(command)
        assert repeated is not None, "only its key can be in the way of a new command, and commands stay"
        return repeated
    wake_gateway_on_commit(agent.gateway_id)
    return command


def _refusal(agent: Agent, *, must_be_online: bool) -> ProblemError | None:
    if agent.quarantined_at is not None:
        return AgentQuarantinedError(why_quarantined(agent))
    if must_be_online and not agent.is_online:
        return AgentUnavailableError(f"The agent {agent.agent_id} is not connected.")
    return None


def personal_key(actor: Actor, idempotency_key: str | None) -> str | None:
    """Two people may choose the same key without meaning the same thing."""
    return f"{actor.id}:{idempotency_key}" if idempotency_key else None


def _find_repeated(wanted: Command) -> Command | None:
    """The command that has its key already. Raises IdempotencyKeyReusedError if that is another one."""
    if wanted.idempotency_key is None:
        return None
    found = Command.objects.filter(
        organization_id=wanted.organization_id, idempotency_key=wanted.idempotency_key
    ).first()
    if found and any(getattr(found, name) != getattr(wanted, name) for name in ("agent_id", "spec", "execution")):
        raise IdempotencyKeyReusedError("You have used this Idempotency-Key for another command.")
    return found


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
