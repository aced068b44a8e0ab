"""Agents as rows, for tests of what people ask: many at once, and nothing of how they came in."""

from __future__ import annotations

from typing import Any

from django.utils import timezone

from apps.gateways.models import Agent, Gateway


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
