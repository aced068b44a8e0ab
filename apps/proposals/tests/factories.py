"""Hosts that found things out about themselves, as their agents tell it."""

from __future__ import annotations

from typing import Any

from django.utils import timezone

from apps.gateways.models import Agent, AgentDiscovery, Gateway
from apps.gateways.tests.fleets import make_fleet
from apps.proposals.actions.looking import take_discovery
from apps.proposals.models import Proposal

POSTGRES = {
    "key": "postgresql:5432",
    "name": "postgresql",
    "component": "database",
    "version": "17.2",
    "ports": [5432],
    "process_name": "postgres",
    "service": "postgresql@17-main.service",
}
NGINX = {
    "key": "nginx:80",
    "name": "nginx",
    "component": "web",
    "version": "1.26.3",
    "ports": [80, 443],
    "process_name": "nginx",
    "service": "nginx.service",
}


def service(unit: str, *ports: int, is_enabled: bool = True) -> dict[str, Any]:
    return {"key": unit, "name": unit, "type": "systemd", "status": "running", "is_enabled": is_enabled} | (
        {"ports": list(ports)} if ports else {}
    )


def container(name: str, image: str, *published: int, **fields: Any) -> dict[str, Any]:
    ports = [{"port": 8000 + index, "protocol": "tcp", "published": port} for index, port in enumerate(published)]
    return {"key": f"docker:{name}", "engine": "docker", "id": "0123456789ab", "name": name, "image": image} | {
        "status": "running",
        "ports": ports,
        **fields,
    }


def call(address: str, port: int, *, unit: str = "", process: str = "app", own: str = "") -> dict[str, Any]:
    finding = {"key": f"out:{process}:{address}:{port}", "direction": "out", "process_name": process}
    finding |= {"remote_address": address, "remote_port": port}
    return finding | ({"service": unit} if unit else {}) | ({"local_address": own} if own else {})


def listens(port: int, address: str = "0.0.0.0") -> dict[str, Any]:  # noqa: S104
    return {"key": f"tcp:{address}:{port}", "protocol": "tcp", "address": address, "port": port}


def as_stored(**findings: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """By kind and key, as the backend keeps them."""
    return {kind: {each["key"]: each for each in found} for kind, found in findings.items()}


def tell(agent: Agent, **findings: list[dict[str, Any]]) -> None:
    """The host has found this, and nothing else; and the worker has made proposals of it."""
    keep(agent, **findings)
    take_discovery(agent.pk)


def keep(agent: Agent, **findings: list[dict[str, Any]]) -> None:
    """The same, before any worker."""
    number = AgentDiscovery.objects.filter(agent=agent).values_list("discovery_id", flat=True).first() or "d-0"
    AgentDiscovery.objects.update_or_create(
        agent=agent,
        defaults={
            "organization_id": agent.organization_id,
            "discovery_id": f"d-{int(number[2:]) + 1}",
            "discovered_at": timezone.now(),
            "findings": as_stored(**findings),
            "faults": {},
        },
    )


def make_host(gateway: Gateway, name: str = "srv-1", **findings: list[dict[str, Any]]) -> Agent:
    [agent] = make_fleet(gateway, name)
    if findings:
        tell(agent, **findings)
    return agent


def proposed(agent: Agent | None = None) -> dict[str, str]:
    """The status of each proposal by its name."""
    found = Proposal.objects.all() if agent is None else Proposal.objects.filter(agent=agent)
    return {each.name: f"{each.status}{' (dismissed)' if each.is_dismissed else ''}" for each in found}
