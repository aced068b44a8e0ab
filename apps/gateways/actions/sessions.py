"""Who is connected: sessions of gateways and agents."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.db.models import F
from django.utils import timezone

from apps.audit.actions import record_event
from apps.audit.actor import Actor
from apps.gateways.dispatch import resume_frame, wake_gateway_on_commit
from apps.gateways.enums import CommandState
from apps.gateways.models import Agent, Command, Gateway
from apps.gateways.signals import agents_lost, agents_online
from opsmap_protocol import codec, messages

GATEWAY_SILENCE = timedelta(seconds=35)
"""Gateways speak every 10 s (aggregated heartbeats): three missed ones and a little."""

RETURN_TIME = timedelta(seconds=15)
"""How long the agents of a gateway that reconnected have to be announced again."""


@transaction.atomic
def register_gateway(*, organization_id: uuid.UUID, gateway_id: str, certificate_sha256: str, actor: Actor) -> Gateway:
    """Make a gateway known, or give a known one its new certificate."""
    gateway, is_new = Gateway.objects.update_or_create(
        organization_id=organization_id,
        gateway_id=gateway_id,
        defaults={"certificate_sha256": certificate_sha256},
    )
    record_event(
        "gateway.registered" if is_new else "gateway.certificate_renewed",
        actor=actor,
        organization_id=organization_id,
        target={"type": "gateway", "gatewayId": gateway_id},
        details={"certificateSha256": certificate_sha256},
    )
    return gateway


@transaction.atomic
def open_gateway_session(*, gateway: Gateway, hello: messages.GatewayRegister) -> uuid.UUID:
    """The gateway is here, by a new connection that replaces any older one. Returns the session's id."""
    session_id = uuid.uuid4()
    now = timezone.now()
    Gateway.objects.filter(pk=gateway.pk).update(
        session_id=session_id,
        zone=hello.zone[:80],
        labels=hello.labels,
        version=hello.version[:40],
        connected_at=now,
        last_seen_at=now,
    )
    return session_id


@transaction.atomic
def close_gateway_session(*, gateway: Gateway, session_id: uuid.UUID) -> None:
    """The connection ended. Unless a newer one replaced it, its agents are out of reach: one event for all of them."""
    if not Gateway.objects.filter(pk=gateway.pk, session_id=session_id).update(session_id=None):
        return
    lost = list(
        Agent.objects.select_for_update(no_key=True).filter(gateway=gateway, session_id__isnull=False).order_by("pk")
    )
    Agent.objects.filter(pk__in=[agent.pk for agent in lost]).update(session_id=None)
    if lost:
        agents_lost.send(sender=Gateway, agents=lost, reason=f"gateway {gateway.gateway_id} is not connected")


@transaction.atomic
def open_agent_session(*, gateway: Gateway, online: messages.AgentOnline) -> str:
    """An agent came in by this gateway; it registers itself if it is new. Returns the frame that greets it."""
    hello = online.agent
    now = timezone.now()
    agent, is_new = Agent.objects.select_for_update(no_key=True).get_or_create(
        organization_id=gateway.organization_id,
        agent_id=hello.agent_id,
        defaults={"hostname": hello.hostname[:253]},
    )
    if is_new:
        record_event(
            "agent.registered",
            actor=Actor.agent(hello.agent_id),
            organization_id=gateway.organization_id,
            target={"type": "agent", "agentId": hello.agent_id},
            details={"hostname": hello.hostname[:253], "gateway": gateway.gateway_id},
        )
    elif (agent.hostname, agent.labels) != (hello.hostname[:253], hello.labels):
        _leave_former_place(agent)
    if agent.incarnation != hello.incarnation:
        agent.incarnation, agent.acked_seq = hello.incarnation, 0
    # What the agent no longer holds was acknowledged once, by a database that is gone: it cannot come again.
    agent.acked_seq = max(agent.acked_seq, hello.first_seq - 1)
    agent.gateway = gateway
    agent.session_id = online.session_id
    agent.hostname = hello.hostname[:253]
    agent.certificate_sha256 = online.certificate_sha256[:64]
    agent.os = codec.to_plain(hello.os)
    agent.labels, agent.capabilities, agent.version = hello.labels, hello.capabilities, hello.version[:40]
    agent.connected_at = agent.last_seen_at = now
    agent.save()
    # What was on its way when the old session ended is sent again at once instead of after its lease.
    Command.objects.filter(agent=agent, state=CommandState.SENT).update(lease_until=None)
    agents_online.send(sender=Agent, agents=[agent])
    return resume_frame(agent)


def _leave_former_place(agent: Agent) -> None:
    """Whatever was found by the agent's former hostname or labels is out of reach by them."""
    Agent.objects.filter(pk=agent.pk).update(session_id=None)
    reason = f"agent {agent.agent_id} has another hostname or other labels"
    agents_lost.send(sender=Agent, agents=[agent], reason=reason)


@transaction.atomic
def close_agent_session(*, gateway: Gateway, offline: messages.AgentOffline) -> None:
    """An agent's connection ended. A late word about a session that was replaced means nothing."""
    agent = (
        Agent.objects.select_for_update(no_key=True)
        .filter(organization_id=gateway.organization_id, agent_id=offline.agent_id, session_id=offline.session_id)
        .first()
    )
    if agent is not None:
        Agent.objects.filter(pk=agent.pk).update(session_id=None)
        agents_lost.send(sender=Agent, agents=[agent], reason=f"agent {agent.agent_id}: {offline.reason}"[:300])


def record_heartbeats(*, gateway: Gateway, heartbeats: Sequence[messages.Heartbeat]) -> None:
    now = timezone.now()
    by_id = {heartbeat.agent_id: heartbeat for heartbeat in heartbeats}
    agents = list(Agent.objects.filter(gateway=gateway, agent_id__in=by_id))
    for agent in agents:
        beat = by_id[agent.agent_id]
        agent.last_seen_at = now
        agent.load = {
            "uptimeSecs": beat.uptime_secs,
            "load": beat.load,
            "memoryPercent": beat.memory_percent,
            "activeCommands": beat.active_commands,
        }
    Agent.objects.bulk_update(agents, ["last_seen_at", "load"])
    Gateway.objects.filter(pk=gateway.pk).update(last_seen_at=now)


@transaction.atomic
def set_health_checks(*, agent: Agent, checks: list[dict[str, Any]]) -> bool:
    """What an agent should watch from now on; told to it on commit. False if it does so already."""
    revision = hashlib.sha256(json.dumps(checks, sort_keys=True).encode()).hexdigest()
    changed = Agent.objects.filter(pk=agent.pk).exclude(health_checks_revision=revision)
    if not changed.update(health_checks=checks, health_checks_revision=revision):
        return False
    wake_gateway_on_commit(agent.gateway_id)
    return True


def sweep_sessions(*, now: datetime | None = None) -> None:
    """Close the sessions of gateways that fell silent, and of agents that a returning gateway did not bring back.

    Only repairs what no disconnection told: a link server that was killed, a cable that was cut.
    """
    moment = now or timezone.now()
    for gateway in Gateway.objects.filter(session_id__isnull=False, last_seen_at__lt=moment - GATEWAY_SILENCE):
        assert gateway.session_id is not None
        close_gateway_session(gateway=gateway, session_id=gateway.session_id)
    with transaction.atomic():
        stale = list(
            Agent.objects.select_for_update(of=("self",), skip_locked=True, no_key=True).filter(
                session_id__isnull=False,
                connected_at__lt=F("gateway__connected_at"),
                gateway__connected_at__lt=moment - RETURN_TIME,
            )
        )
        Agent.objects.filter(pk__in=[agent.pk for agent in stale]).update(session_id=None)
        if stale:
            agents_lost.send(sender=Agent, agents=stale, reason="did not come back with its gateway")
