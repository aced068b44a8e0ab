"""Reads about gateways, agents and commands, as the API shows them (camelCase)."""

from __future__ import annotations

import time
import uuid
from typing import Any

from django.db.models import QuerySet

from apps.gateways.enums import OPEN_STATES
from apps.gateways.models import Agent, Command, Gateway
from apps.orgs.models import User


def describe_command(command: Command) -> dict[str, Any]:
    return {
        "id": str(command.pk),
        "name": command.name,
        "agentId": str(command.agent_id),
        "state": command.state,
        "detail": command.detail,
        "result": command.result,
        "check": command.check_result,
        "exitCode": command.exit_code,
        "pid": command.pid,
        "createdAt": command.created_at,
        "startedAt": command.started_at or command.received_at,
        "finishedAt": command.finished_at,
        "durationMs": command.duration_ms,
        "logTail": command.log_tail,
        "requestedBy": command.requested_by.get("email") or command.requested_by.get("id", ""),
    }


def describe_agent_briefly(agent: Agent) -> dict[str, Any]:
    return {
        "id": str(agent.pk),
        "agentId": agent.agent_id,
        "hostname": agent.hostname,
        "isOnline": agent.is_online,
    }


def describe_agent(agent: Agent) -> dict[str, Any]:
    return {
        **describe_agent_briefly(agent),
        "gateway": agent.gateway.gateway_id if agent.gateway else None,
        "os": agent.os,
        "labels": agent.labels,
        "capabilities": agent.capabilities,
        "version": agent.version,
        "load": agent.load,
        "connectedAt": agent.connected_at,
        "lastSeenAt": agent.last_seen_at,
    }


def describe_gateway(gateway: Gateway) -> dict[str, Any]:
    return {
        "id": str(gateway.pk),
        "gatewayId": gateway.gateway_id,
        "zone": gateway.zone,
        "labels": gateway.labels,
        "version": gateway.version,
        "isOnline": gateway.is_online,
        "connectedAt": gateway.connected_at,
        "lastSeenAt": gateway.last_seen_at,
    }


def list_agents(user: User) -> QuerySet[Agent]:
    return (
        Agent.objects.filter(organization__memberships__user=user)
        .select_related("gateway")
        .order_by("hostname", "agent_id")
    )


def list_gateways(user: User) -> QuerySet[Gateway]:
    return Gateway.objects.filter(organization__memberships__user=user).order_by("gateway_id")


def get_agents_by_host(organization_id: uuid.UUID) -> dict[str, Agent]:
    """The agents of an organization by agent id and by hostname; an agent id counts before a hostname."""
    agents = list(Agent.objects.filter(organization_id=organization_id).defer("health_checks").order_by("agent_id"))
    by_host = {agent.hostname: agent for agent in agents}
    by_host.update({agent.agent_id: agent for agent in agents})
    return by_host


def get_latest_job(subject: uuid.UUID) -> Command | None:
    """The newest command about a subject that became a job: the one whose log people want to see."""
    return Command.objects.select_related("agent").filter(subject=subject).exclude(job_id="").order_by("-id").first()


def wait_for_end(command_id: uuid.UUID, *, timeout_s: float) -> Command:
    """The command once it has ended, or as it is when the time is up. Looks often at first, then less."""
    deadline = time.monotonic() + timeout_s
    pause_s = 0.003
    is_open = Command.objects.filter(pk=command_id, state__in=OPEN_STATES)
    while (remaining_s := deadline - time.monotonic()) > 0 and is_open.exists():
        time.sleep(min(pause_s, remaining_s))
        pause_s = min(pause_s * 1.05, 0.05)
    return Command.objects.select_related("agent").get(pk=command_id)


def count_online() -> dict[str, int]:
    """For the health endpoint."""
    return {
        "gateways_online": Gateway.objects.filter(session_id__isnull=False).count(),
        "agents_online": Agent.objects.filter(session_id__isnull=False).count(),
    }
