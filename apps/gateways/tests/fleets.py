"""Agents and what belongs to them as rows, for tests of what people ask: nothing of how they came in."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any

from django.utils import timezone

from apps.gateways.models import Agent, AgentDiscovery, Certificate, EnrolmentToken, Gateway
from apps.orgs.models import Organization


def make_fleet(gateway: Gateway, *names: str, is_online: bool = True, **fields: Any) -> list[Agent]:
    """Agents of these names behind the gateway, by default connected."""
    connection = {"session_id": "session", "connected_at": timezone.now()} if is_online else {}
    agents = [
        Agent(
            organization_id=gateway.organization_id,
            gateway=gateway,
            agent_id=name,
            **{"hostname": f"{name}.example"} | connection | fields,
        )
        for name in names
    ]
    return Agent.objects.bulk_create(agents)


def make_certificate(peer: Agent | Gateway, *, days_left: float, life_days: float = 365, **fields: Any) -> Certificate:
    """A certificate of an agent or gateway that ends in so many days."""
    role, name = ("agent", peer.agent_id) if isinstance(peer, Agent) else ("gateway", peer.gateway_id)
    not_after = timezone.now() + timedelta(days=days_left)
    return Certificate.objects.create(
        organization_id=peer.organization_id,
        role=role,
        name=name,
        serial="01",
        not_before=not_after - timedelta(days=life_days),
        not_after=not_after,
        **{"fingerprint": uuid.uuid4().hex * 2} | fields,
    )


def make_enrolment_token(organization: Organization, **fields: Any) -> EnrolmentToken:
    facts = {"role": "agent", "prefix": "opsmap-enrol-abc", "digest": uuid.uuid4().hex * 2}
    return EnrolmentToken.objects.create(
        organization=organization, **facts | {"expires_at": timezone.now() + timedelta(hours=1)} | fields
    )


def make_discovery(agent: Agent, **fields: Any) -> AgentDiscovery:
    findings = {"ports": {"tcp:0.0.0.0:5432": {"key": "tcp:0.0.0.0:5432", "port": 5432}}}
    return AgentDiscovery.objects.create(
        agent=agent,
        organization_id=agent.organization_id,
        **{"discovery_id": "d-1", "discovered_at": timezone.now(), "findings": findings} | fields,
    )
