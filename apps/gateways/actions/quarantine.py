"""Quarantine: an agent is watched and its jobs go on, but no command is sent to it.

What decides is the claim, which looks at the agent's row when it takes commands (`claims._DUE`). Whoever asks for a
command is refused before that if the quarantine is known by then. A command that was asked for at the very moment is
written and never sent; `sweep_quarantine` ends it. Nothing here locks an agent's row on behalf of whoever asks: an
operation holds its Map by then, and reports come in by agent first and Map second.
"""

from __future__ import annotations

import uuid

from django.db import transaction
from django.utils import timezone

from apps.audit.actions import record_event
from apps.audit.actor import Actor
from apps.gateways.actions.commands import tell_ended
from apps.gateways.enums import CommandState
from apps.gateways.models import Agent, Command

MAX_REASON = 300
_SWEPT_AGENTS = 200


@transaction.atomic
def quarantine_agent(*, agent: Agent, actor: Actor, reason: str) -> bool:
    """No more commands for this agent. Those in the queue end as cancelled; those that were sent go on.

    Returns False if it is in quarantine already: then nothing is changed, the reason neither.
    """
    free = Agent.objects.filter(pk=agent.pk, quarantined_at=None)
    if not free.update(quarantined_at=timezone.now(), quarantine_reason=reason[:MAX_REASON]):
        return False
    ended = _end_queued(agent.pk, reason[:MAX_REASON])
    record_event(
        "agent.quarantined",
        actor=actor,
        organization_id=agent.organization_id,
        target=_target(agent),
        details={"reason": reason[:MAX_REASON], "cancelledCommands": ended},
    )
    return True


@transaction.atomic
def release_agent(*, agent: Agent, actor: Actor) -> bool:
    """The quarantine is over. Returns False if there was none."""
    held = Agent.objects.filter(pk=agent.pk, quarantined_at__isnull=False)
    if not held.update(quarantined_at=None, quarantine_reason=""):
        return False
    record_event("agent.released", actor=actor, organization_id=agent.organization_id, target=_target(agent))
    return True


def sweep_quarantine() -> int:
    """End the commands that came into the queue of an agent while it was put in quarantine; how many there were."""
    waiting = Command.objects.filter(
        state=CommandState.QUEUED, agent__in=Agent.objects.filter(quarantined_at__isnull=False).values("pk")
    )
    ended = 0
    for agent_id, reason in set(waiting.values_list("agent_id", "agent__quarantine_reason")[:_SWEPT_AGENTS]):
        with transaction.atomic():
            ended += _end_queued(agent_id, reason)
    return ended


def why_quarantined(agent: Agent) -> str:
    """For whoever is refused."""
    return f"The agent {agent.agent_id} is in quarantine{_because(agent.quarantine_reason)}."


def _end_queued(agent_id: uuid.UUID, reason: str) -> int:
    # Locked in the order in which claims lock them. What a claim has taken meanwhile is not in the queue any more.
    queued = Command.objects.select_for_update(no_key=True).filter(agent_id=agent_id, state=CommandState.QUEUED)
    ended = list(queued.order_by("pk").values_list("pk", flat=True))
    Command.objects.filter(pk__in=ended).update(
        state=CommandState.CANCELLED,
        detail=f"It was not sent: the agent is in quarantine{_because(reason)}.",
        finished_at=timezone.now(),
        lease_until=None,
        next_poll_at=None,
    )
    tell_ended(ended, with_subject=ended)
    return len(ended)


def _because(reason: str) -> str:
    return f" ({reason})" if reason else ""


def _target(agent: Agent) -> dict[str, str]:
    return {"type": "agent", "id": str(agent.pk), "agentId": agent.agent_id}
