"""One command for many agents: a row for each, one audit event and one hint a gateway for all of them."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

from django.db import connection, transaction
from django.utils import timezone

from apps.audit.actions import record_event
from apps.audit.actor import Actor
from apps.gateways.actions.commands import tell_ended
from apps.gateways.actions.requests import DELIVERY_TIME, personal_key
from apps.gateways.dispatch import check_command, wake_gateway_on_commit
from apps.gateways.enums import OPEN_STATES, CommandState
from apps.gateways.exceptions import AgentQuarantinedError, IdempotencyKeyReusedError
from apps.gateways.filters import FleetFilter
from apps.gateways.models import Agent, Broadcast, Command
from opsmap.lib.uuid7 import uuid7


@transaction.atomic
def start_broadcast(
    *,
    organization_id: uuid.UUID,
    agents: Sequence[Agent],
    wanted: FleetFilter,
    name: str,
    spec: dict[str, Any],
    execution: dict[str, Any],
    timeout_ms: int,
    actor: Actor,
    idempotency_key: str | None = None,
) -> Broadcast:
    """Write one command for each agent, with one audit event that names them all; their gateways are told on commit.

    Agents that are away get theirs too: it runs if they come back in time, and is `expired` if not. So whoever was
    meant is in the result, and nobody is left out silently. Agents in quarantine or revoked get none: `left_out`.

    Raises:
        AgentQuarantinedError: all of them are in quarantine or revoked.
        InvalidCommandError: the spec has a fault.
        IdempotencyKeyReusedError: the person has used the key for another broadcast.
    """
    check_command(spec, execution)
    reached = [agent for agent in agents if agent.quarantined_at is None and agent.revoked_at is None]
    left_out = sorted({agent.agent_id for agent in agents} - {agent.agent_id for agent in reached})
    if not reached:
        raise AgentQuarantinedError(
            f"All {len(agents)} agents that this filter means are in quarantine or revoked: nothing was sent."
        )
    facts = {
        "name": name,
        "filter": wanted.as_json(),
        "left_out": left_out,
        "spec": spec,
        "execution": execution,
        "timeout_ms": timeout_ms,
        "requested_by": actor.as_json(),
    }
    key = personal_key(actor, idempotency_key)
    if key is None:
        broadcast, is_new = Broadcast.objects.create(organization_id=organization_id, **facts), True
    else:
        broadcast, is_new = Broadcast.objects.get_or_create(
            organization_id=organization_id, idempotency_key=key, defaults=facts
        )
    if not is_new:
        check_is_repeated(broadcast, wanted=wanted, spec=spec, execution=execution)
        return broadcast
    _create_commands(broadcast, reached)
    record_event(
        "broadcast.requested",
        actor=actor,
        organization_id=organization_id,
        target={"type": "broadcast", "broadcastId": str(broadcast.pk)},
        details={
            "name": name,
            "command": spec,
            "filter": broadcast.filter,
            "agents": [agent.agent_id for agent in reached],
            "leftOut": left_out,
        },
    )
    for gateway_id in {agent.gateway_id for agent in reached}:
        wake_gateway_on_commit(gateway_id)
    return broadcast


def check_is_repeated(
    broadcast: Broadcast, *, wanted: FleetFilter, spec: dict[str, Any], execution: dict[str, Any]
) -> None:
    """Raises IdempotencyKeyReusedError unless this is what the broadcast was about."""
    if (broadcast.filter, broadcast.spec, broadcast.execution) != (wanted.as_json(), spec, execution):
        raise IdempotencyKeyReusedError("You have used this Idempotency-Key for another broadcast.")


def _create_commands(broadcast: Broadcast, agents: Sequence[Agent]) -> None:
    """A command for the first agent, and copies of it for the others: the database makes ten thousand in one go."""
    first, *others = agents
    command = Command.objects.create(
        organization_id=broadcast.organization_id,
        agent_id=first.pk,
        broadcast=broadcast,
        name=broadcast.name,
        spec=broadcast.spec,
        execution=broadcast.execution,
        timeout_ms=broadcast.timeout_ms,
        not_after=timezone.now() + DELIVERY_TIME,
        requested_by=broadcast.requested_by,
    )
    with connection.cursor() as cursor:
        cursor.execute(_COPY_FOR_OTHERS, [[uuid7() for _ in others], [agent.pk for agent in others], command.pk])


def _copy_for_others() -> str:
    """SQL that copies a row for other agents. Parameters: new ids, agents, the id of the row."""
    columns = [str(field.column) for field in Command._meta.concrete_fields]
    values = [f"other.{column}" if column in {"id", "agent_id"} else f"template.{column}" for column in columns]
    return (
        f"INSERT INTO {Command._meta.db_table} ({', '.join(columns)}) SELECT {', '.join(values)} "  # noqa: S608
        f"FROM {Command._meta.db_table} AS template, unnest(%s::uuid[], %s::uuid[]) AS other (id, agent_id) "
        "WHERE template.id = %s"
    )


_COPY_FOR_OTHERS = _copy_for_others()


@transaction.atomic
def cancel_broadcast(*, broadcast: Broadcast, actor: Actor) -> None:
    """Ask for the end of all its commands. Those never sent are cancelled here and now; else the agents decide."""
    record_event(
        "broadcast.cancel_requested",
        actor=actor,
        organization_id=broadcast.organization_id,
        target={"type": "broadcast", "broadcastId": str(broadcast.pk)},
    )
    # Locked in the order in which claims lock them.
    open_commands = Command.objects.select_for_update(no_key=True).filter(broadcast=broadcast, state__in=OPEN_STATES)
    rows = list(open_commands.order_by("pk").values_list("pk", "state", "agent_id"))
    unsent = [pk for pk, state, _ in rows if state == CommandState.QUEUED]
    Command.objects.filter(pk__in=unsent).update(
        state=CommandState.CANCELLED, finished_at=timezone.now(), lease_until=None, next_poll_at=None
    )
    tell_ended(unsent, with_subject=[])
    sent = {pk: agent_id for pk, state, agent_id in rows if state != CommandState.QUEUED}
    Command.objects.filter(pk__in=sent).update(is_cancel_requested=True)
    for gateway_id in set(Agent.objects.filter(pk__in=sent.values()).values_list("gateway_id", flat=True)):
        wake_gateway_on_commit(gateway_id)
