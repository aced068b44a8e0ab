"""Who is connected: sessions of gateways and agents."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import Q
from django.db.models.functions import Now
from django.utils import timezone

from apps.audit.actions import record_event
from apps.audit.actor import Actor
from apps.gateways.actions import session_sql
from apps.gateways.actions.arrivals import choose_sessions
from apps.gateways.dispatch import wake_gateway_on_commit
from apps.gateways.models import Agent, AgentSession, Gateway
from apps.gateways.signals import agents_lost
from opsmap_protocol import messages

GATEWAY_SILENCE = timedelta(seconds=35)
"""Gateways speak every 10 s (aggregated heartbeats): three missed ones and a little."""

RETURN_TIME = timedelta(seconds=15)
"""How long the agents of a gateway that reconnected have to be announced again."""

MAX_LOSS_REASONS = 50
"""There are a dozen; a gateway that invents more is not believed more."""


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
def open_gateway_session(
    *, gateway: Gateway, hello: messages.GatewayRegister, certificate_sha256: str = ""
) -> uuid.UUID:
    """The gateway is here, by a new connection that replaces any older one. Returns the session's id.

    Its agents have to prove themselves anew. Those with another session go on by that; the others are not called lost
    for a moment, but nothing is sent to them.
    """
    session_id = uuid.uuid4()
    now = timezone.now()
    # Agents first, as whoever opens their sessions does. A new certificate changes a key of the gateway's row, which
    # waits for them; a gateway that was renewed comes while its former connection is still carrying such.
    agents = _lock_agents_of(gateway)
    Gateway.objects.filter(pk=gateway.pk).update(
        session_id=session_id,
        zone=hello.zone[:80],
        labels=hello.labels,
        version=hello.version[:40],
        connected_at=now,
        last_seen_at=now,
        removed_at=None,
        certificate_sha256=certificate_sha256 or gateway.certificate_sha256,
    )
    AgentSession.objects.filter(gateway=gateway).delete()
    if agents:
        choose_sessions(agents)
        Agent.objects.filter(gateway=gateway, pk__in=agents).update(token="")
    return session_id


@transaction.atomic
def close_gateway_session(*, gateway: Gateway, session_id: uuid.UUID) -> None:
    """The connection ended. Unless a newer one replaced it, its agents go over to their other sessions; those that have
    none are out of reach: one event for all of them.
    """
    if not Gateway.objects.filter(pk=gateway.pk, session_id=session_id).update(session_id=None):
        return
    agents = _lock_agents_of(gateway)
    AgentSession.objects.filter(gateway=gateway).delete()
    _go_over_or_lose(agents, reason=f"gateway {gateway.gateway_id} is not connected")


def _lock_agents_of(gateway: Gateway) -> list[uuid.UUID]:
    """The agents that are here by this gateway or could be: of two gateways that end at once, the second sees what the
    first has done, or each would hand its agents over to the other.
    """
    standing_by = AgentSession.objects.filter(gateway=gateway).values("agent_id")
    agents = Agent.objects.filter(Q(gateway=gateway, session_id__isnull=False) | Q(pk__in=standing_by))
    return list(agents.select_for_update(no_key=True).order_by("pk").values_list("pk", flat=True))


def _go_over_or_lose(agents: Sequence[uuid.UUID], *, reason: str) -> None:
    """Sessions of these agents ended. They are locked."""
    if not agents:
        return
    choose_sessions(agents)
    without = Agent.objects.filter(pk__in=agents, session_id__isnull=False, sessions__isnull=True).order_by("pk")
    if lost := list(without):
        Agent.objects.filter(pk__in=[agent.pk for agent in lost]).update(session_id=None, token="", changed_at=Now())
        agents_lost.send(sender=Agent, agents=lost, reason=reason)


@transaction.atomic
def drain_gateway_session(*, gateway: Gateway, session_id: uuid.UUID) -> None:
    """The gateway stops soon: its agents go over to their other sessions, if they have some."""
    if not Gateway.objects.filter(pk=gateway.pk, session_id=session_id).exists():
        return
    agents = _lock_agents_of(gateway)
    AgentSession.objects.filter(gateway=gateway).update(is_draining=True)
    if agents:
        choose_sessions(agents)


@dataclass(frozen=True, slots=True)
class Offline:
    """What a gateway says of a session that ended."""

    agent_id: str
    session_id: str
    reason: str


@transaction.atomic
def close_agent_session(*, gateway: Gateway, offline: Offline) -> None:
    """An agent's connection ended. A late word about a session that was replaced means nothing."""
    agent = (
        Agent.objects.select_for_update(no_key=True)
        .filter(organization_id=gateway.organization_id, agent_id=offline.agent_id)
        .only("pk", "gateway_id", "session_id")
        .first()
    )
    if agent is None:
        return
    ended, _ = AgentSession.objects.filter(agent=agent, gateway=gateway, session_id=offline.session_id).delete()
    if ended and (agent.gateway_id, agent.session_id) == (gateway.pk, offline.session_id):
        _go_over_or_lose([agent.pk], reason=f"agent {offline.agent_id}: {offline.reason}"[:300])


@transaction.atomic
def greet_again(*, agents: Sequence[uuid.UUID]) -> None:
    """These tell events by a session that is not in use: by the one that is, they are told once more to resume.

    An agent obeys the `resume` that came last. Two gateways carry them, so that may not be the one that was sent last.
    """
    for gateway_id in session_sql.begin_anew(agents):
        wake_gateway_on_commit(gateway_id)


def record_heartbeats(
    *, gateway: Gateway, heartbeats: Sequence[messages.Heartbeat], losses: Mapping[str, int] | None = None
) -> None:
    """The newest heartbeat of each agent whose session with this gateway is the one in use, and the gateway's load.

    `losses` is what it did not pass on since it started, by reason. A gateway may tell of its agents in several parts,
    so that how many there are comes from their sessions.
    """
    now = timezone.now()
    loads = {
        beat.agent_id: {
            "uptimeSecs": beat.uptime_secs,
            "load": beat.load,
            "memoryPercent": beat.memory_percent,
            "activeCommands": beat.active_commands,
        }
        for beat in heartbeats
    }
    if loads:
        session_sql.record_loads(gateway.pk, loads, now)
    session_sql.record_gateway_load(gateway.pk, dict(list((losses or {}).items())[:MAX_LOSS_REASONS]), now)


def is_gateway_session(*, gateway: Gateway, session_id: uuid.UUID) -> bool:
    """Whether the database still counts this session: a sweep may have closed it, by a clock that was wrong."""
    return Gateway.objects.filter(pk=gateway.pk, session_id=session_id).exists()


def sweep_sessions(*, now: datetime | None = None) -> None:
    """Close the sessions of gateways that fell silent, and of agents that a returning gateway did not bring back.

    Only repairs what no disconnection told: a link server that was killed, a cable that was cut.
    """
    moment = now or timezone.now()
    for gateway in Gateway.objects.filter(session_id__isnull=False, last_seen_at__lt=moment - GATEWAY_SILENCE):
        assert gateway.session_id is not None
        close_gateway_session(gateway=gateway, session_id=gateway.session_id)
    with transaction.atomic():
        # An empty token: its gateway came anew, and it did not.
        stale = list(
            Agent.objects.select_for_update(of=("self",), skip_locked=True, no_key=True)
            .filter(session_id__isnull=False, token="", gateway__connected_at__lt=moment - RETURN_TIME)
            .order_by("pk")
        )
        if stale:
            Agent.objects.filter(pk__in=[agent.pk for agent in stale]).update(session_id=None, changed_at=Now())
            agents_lost.send(sender=Agent, agents=stale, reason="did not come back with its gateway")
