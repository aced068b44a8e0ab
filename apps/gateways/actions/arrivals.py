"""Agents that have proven themselves: their rows, their sessions, and which of these is in use."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.db import transaction
from django.utils import timezone

from apps.audit.actions import record_event
from apps.audit.actor import Actor
from apps.gateways.actions import session_sql
from apps.gateways.actions.certificates import record_shown
from apps.gateways.actions.revocation_reads import find_revoked
from apps.gateways.dispatch import wake_gateway_on_commit
from apps.gateways.models import Agent, AgentSession, Gateway
from apps.gateways.signals import agents_lost, agents_online
from opsmap_protocol import codec, messages

MAX_POSITIVE = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Arrival:
    """A session that an agent proved to be its own. `hello` is its `register`."""

    hello: messages.Register
    session_id: str
    token: str
    certificate_sha256: str
    credits: int


@transaction.atomic
def open_agent_sessions(
    *, gateway: Gateway, session_id: uuid.UUID, arrivals: Sequence[Arrival]
) -> dict[str, uuid.UUID]:
    """Agents came in by this gateway; those that are new register themselves. Returns their rows by agent id.

    None if the gateway's connection `session_id` does not count any more; and none of those that were revoked: their
    rows are locked, so that a revocation at the same moment comes either before this or after it.
    """
    # A gateway that comes anew, or goes, waits for this: else it would leave sessions behind that nobody ends.
    here = Gateway.objects.select_for_update(no_key=True).filter(pk=gateway.pk, session_id=session_id)
    if not here.exists():
        return {}
    latest = {arrival.hello.agent_id: arrival for arrival in arrivals}
    agents = _without_revoked(_find_or_register(gateway, latest), latest)
    moved = [agent for agent in agents if _is_moved(agent, latest[agent.agent_id].hello)]
    _leave_former_places(moved)
    away = [agent for agent in agents if agent.session_id is None]
    now = timezone.now()
    shown = {agent.agent_id: latest[agent.agent_id] for agent in agents}
    record_shown(
        gateway.organization_id,
        {name: (arrival.certificate_sha256, arrival.hello.certificate) for name, arrival in shown.items()},
    )
    session_sql.update_agents([_as_row(agent, latest[agent.agent_id]) for agent in agents], now)
    AgentSession.objects.bulk_create(
        [
            AgentSession(
                organization_id=gateway.organization_id,
                agent=agent,
                gateway=gateway,
                session_id=latest[agent.agent_id].session_id,
                token=latest[agent.agent_id].token,
                is_preferred=latest[agent.agent_id].hello.is_preferred,
                credits=min(latest[agent.agent_id].credits, MAX_POSITIVE),
                opened_at=now,
            )
            for agent in agents
        ],
        update_conflicts=True,
        unique_fields=["agent", "gateway"],
        update_fields=["session_id", "token", "is_preferred", "is_draining", "credits", "opened_at"],
    )
    choose_sessions([agent.pk for agent in agents])
    if away:
        fresh = Agent.objects.filter(pk__in=[agent.pk for agent in away]).order_by("pk")
        agents_online.send(sender=Agent, agents=list(fresh))
    return {agent.agent_id: agent.pk for agent in agents}


def choose_sessions(agents: Sequence[uuid.UUID]) -> None:
    """Bring the best session of each agent into use; what was on its way by another one is sent again at once."""
    changed = session_sql.choose(agents)
    if changed:
        session_sql.release_commands(list(changed))
        for gateway_id in sorted(set(changed.values())):
            wake_gateway_on_commit(gateway_id)


def _find_or_register(gateway: Gateway, arrivals: dict[str, Arrival]) -> list[Agent]:
    """The rows, locked in the order of their ids."""
    mine = Agent.objects.filter(organization_id=gateway.organization_id, agent_id__in=arrivals)
    known = set(mine.values_list("agent_id", flat=True))
    for agent_id in sorted(arrivals.keys() - known):
        hostname = arrivals[agent_id].hello.hostname[:253]
        _, is_new = Agent.objects.get_or_create(
            organization_id=gateway.organization_id, agent_id=agent_id, defaults={"hostname": hostname}
        )
        if is_new:
            record_event(
                "agent.registered",
                actor=Actor.agent(agent_id),
                organization_id=gateway.organization_id,
                target={"type": "agent", "agentId": agent_id},
                details={"hostname": hostname, "gateway": gateway.gateway_id},
            )
    return list(mine.defer("health_checks").select_for_update(no_key=True).order_by("pk"))


def _without_revoked(agents: Sequence[Agent], arrivals: dict[str, Arrival]) -> list[Agent]:
    if not agents:
        return []
    shown = {agent.agent_id: arrivals[agent.agent_id].certificate_sha256 for agent in agents}
    revoked = find_revoked(agents[0].organization_id, shown)
    return [agent for agent in agents if agent.agent_id not in revoked]


def _is_moved(agent: Agent, hello: messages.Register) -> bool:
    is_known = bool(agent.certificate_sha256)
    return is_known and (agent.hostname, agent.labels) != (hello.hostname[:253], hello.labels)


def _leave_former_places(agents: Sequence[Agent]) -> None:
    """Whatever was found by the agents' former hostnames or labels is out of reach by them."""
    for agent in agents:
        Agent.objects.filter(pk=agent.pk).update(session_id=None, token="")
        agent.session_id = None
        reason = f"agent {agent.agent_id} has another hostname or other labels"
        agents_lost.send(sender=Agent, agents=[agent], reason=reason)


def _as_row(agent: Agent, arrival: Arrival) -> dict[str, Any]:
    hello = arrival.hello
    return {
        "id": str(agent.pk),
        "hostname": hello.hostname[:253],
        "certificate": hello.certificate,
        "certificate_sha256": arrival.certificate_sha256,
        "os": codec.to_plain(hello.os),
        "labels": hello.labels,
        "capabilities": hello.capabilities,
        "version": hello.version[:40],
    }
