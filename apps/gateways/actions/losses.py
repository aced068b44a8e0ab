"""Events that an agent had to drop because its buffer was full: counted at the agent, and told to people once."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime

from django.db.models import F

from apps.audit.actions import record_event
from apps.audit.actor import Actor
from apps.gateways.models import Agent
from opsmap_protocol import messages

_MAX_COUNT = 10**9
"""What one gap may claim: a host's word, and no column must overflow by it."""

_MAX_KINDS = 10


def note_lost_events(losses: Mapping[uuid.UUID, Sequence[messages.EventsLost]], now: datetime) -> None:
    """One audit event for each agent of a batch, however many gaps it tells of. Called with the agents locked."""
    for agent in Agent.objects.filter(pk__in=losses).only("pk", "agent_id", "organization_id").order_by("pk"):
        gaps = losses[agent.pk]
        kinds = _count(gaps)
        total = min(kinds.total(), _MAX_COUNT)
        Agent.objects.filter(pk=agent.pk).update(lost_events=F("lost_events") + total, lost_events_at=now)
        record_event(
            "agent.events_lost",
            actor=Actor.agent(agent.agent_id),
            organization_id=agent.organization_id,
            target={"type": "agent", "agentId": agent.agent_id},
            details={"events": total, "kinds": dict(kinds.most_common(_MAX_KINDS)), "reason": gaps[-1].reason[:300]},
        )


def _count(gaps: Sequence[messages.EventsLost]) -> Counter[str]:
    kinds: Counter[str] = Counter()
    for gap in gaps:
        for kind, count in list(gap.kinds.items())[:_MAX_KINDS]:
            kinds[kind[:40]] += min(max(count, 0), _MAX_COUNT)
    return kinds
