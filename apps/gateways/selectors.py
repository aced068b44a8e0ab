"""Reads about gateways, agents and commands, as the API shows them (camelCase)."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any

from django.db.models import Count, F

from apps.gateways.enums import OPEN_STATES, CommandState
from apps.gateways.models import Agent, AgentDiscovery, Broadcast, Command, Gateway
from apps.orgs.models import User
from opsmap.lib.prepared import Lookup

_ONLY_IN_DETAIL = (
    "spec",
    "execution",
    "result",
    "check_result",
    "log_tail",
    "output",
    "agent__os",
    "agent__labels",
    "agent__capabilities",
    "agent__load",
    "agent__health_checks",
)
"""Columns that a list does not show and that may be long."""


_LEFT_OUT_SHOWN = 20


@dataclass(frozen=True, slots=True)
class HistoryFilter:
    """Which commands of the past: those that are all of what is given."""

    agent_id: uuid.UUID | None = None
    broadcast_id: uuid.UUID | None = None
    subject: uuid.UUID | None = None
    states: tuple[str, ...] = ()
    before: uuid.UUID | None = None


def describe_command(command: Command) -> dict[str, Any]:
    """Everything about a command, but what it printed beyond its result (`read_output`)."""
    return {
        **_describe_delivery(command),
        "agentId": str(command.agent_id),
        "result": command.result,
        "check": command.check_result,
        "pid": command.pid,
        "output": command.output,
        "logTail": command.log_tail,
        "isCancelRequested": command.is_cancel_requested,
    }


def describe_command_briefly(command: Command) -> dict[str, Any]:
    """A line of a list: without what the host answered."""
    return {**_describe_delivery(command), "agent": describe_agent_briefly(command.agent)}


def _describe_delivery(command: Command) -> dict[str, Any]:
    return {
        "id": str(command.pk),
        "name": command.name,
        "broadcastId": str(command.broadcast_id) if command.broadcast_id else None,
        "subject": str(command.subject) if command.subject else None,
        "state": command.state,
        "detail": command.detail,
        "exitCode": command.exit_code,
        "createdAt": command.created_at,
        "notAfter": command.not_after,
        "sentAt": command.sent_at,
        "receivedAt": command.received_at,
        # Only jobs have a moment of their own at which they began.
        "startedAt": command.started_at or command.received_at,
        "finishedAt": command.finished_at,
        "durationMs": command.duration_ms,
        "requestedBy": command.requested_by.get("email") or command.requested_by.get("id", ""),
    }


def describe_broadcast(broadcast: Broadcast) -> dict[str, Any]:
    """A broadcast and how many of its commands are in each state, all states included.

    `offline` is how many have not been sent because their agent is away.
    """
    of_broadcast = Command.objects.filter(broadcast=broadcast).values("state").order_by()
    counted = {row["state"]: row["count"] for row in of_broadcast.annotate(count=Count("pk"))}
    unsent = Command.objects.filter(broadcast=broadcast, state=CommandState.QUEUED)
    return {
        "id": str(broadcast.pk),
        "name": broadcast.name,
        "filter": broadcast.filter,
        "command": broadcast.spec,
        "execution": broadcast.execution,
        "timeoutMs": broadcast.timeout_ms,
        "createdAt": broadcast.created_at,
        "requestedBy": broadcast.requested_by.get("email") or broadcast.requested_by.get("id", ""),
        "total": sum(counted.values()),
        "states": {state.value: counted.get(state, 0) for state in CommandState},
        # Agents that the filter means and that got none: in quarantine, or revoked.
        "leftOut": len(broadcast.left_out),
        "leftOutAgents": broadcast.left_out[:_LEFT_OUT_SHOWN],
        "offline": unsent.filter(agent__session_id=None).count(),
        "isOver": not OPEN_STATES & counted.keys(),
    }


def describe_agent_briefly(agent: Agent) -> dict[str, Any]:
    return {
        "id": str(agent.pk),
        "agentId": agent.agent_id,
        "hostname": agent.hostname,
        "isOnline": agent.is_online,
    }


REVOKED_FIRST = F("revoked_at").asc(nulls_last=True)
"""For agents that are put into a dictionary: whoever comes later counts."""


def get_agents_by_host(organization_id: uuid.UUID) -> dict[str, Agent]:
    """The agents of an organization by agent id and by hostname; an agent id counts before a hostname.

    A revoked agent stands for its host until another one has come in its place.
    """
    here = Agent.objects.filter(organization_id=organization_id, removed_at=None)
    agents = list(here.defer("health_checks").order_by(REVOKED_FIRST, "agent_id"))
    by_host = {agent.hostname: agent for agent in agents}
    by_host.update({agent.agent_id: agent for agent in agents})
    return by_host


def get_discovery(agent: Agent) -> AgentDiscovery | None:
    """What is known of the agent's host; None if it has not told anything yet."""
    return AgentDiscovery.objects.filter(agent_id=agent.pk).first()


def describe_discovery(discovery: AgentDiscovery) -> dict[str, Any]:
    """Findings as lists by kind, in order of their keys. A kind that could not be looked at has a fault instead."""
    return {
        "discoveryId": discovery.discovery_id,
        "discoveredAt": discovery.discovered_at,
        "findings": {
            kind: [found for _, found in sorted(by_key.items())] for kind, by_key in sorted(discovery.findings.items())
        },
        "faults": discovery.faults,
    }


def get_latest_job(subject: uuid.UUID) -> Command | None:
    """The newest command about a subject that became a job: the one whose log people want to see."""
    return Command.objects.select_related("agent").filter(subject=subject).exclude(job_id="").order_by("-id").first()


_COMMAND = Lookup(Command, where="id = %s::uuid")


def get_command(command_id: uuid.UUID) -> Command:
    """Raises DoesNotExist."""
    command = _COMMAND.first(command_id)
    if command is None:
        raise Command.DoesNotExist
    return command


def list_commands(user: User, wanted: HistoryFilter, *, limit: int) -> tuple[list[Command], uuid.UUID | None]:
    """A page of the commands that a person may see, newest first, and `before` of the next page if there is one.

    Ids grow with time, so that a page is a range of an index however long the history is.
    """
    commands = Command.objects.filter(organization__memberships__user=user)
    if wanted.agent_id is not None:
        commands = commands.filter(agent_id=wanted.agent_id)
    if wanted.broadcast_id is not None:
        commands = commands.filter(broadcast_id=wanted.broadcast_id)
    if wanted.subject is not None:
        commands = commands.filter(subject=wanted.subject)
    if wanted.states:
        commands = commands.filter(state__in=wanted.states)
    if wanted.before is not None:
        commands = commands.filter(pk__lt=wanted.before)
    shown = commands.select_related("agent").defer(*_ONLY_IN_DETAIL).order_by("-pk")
    page = list(shown[: limit + 1])
    return page[:limit], page[limit - 1].pk if len(page) > limit else None


def get_repeated_broadcast(organization_id: uuid.UUID, personal_key: str | None) -> Broadcast | None:
    """The broadcast that this key already stands for."""
    if personal_key is None:
        return None
    return Broadcast.objects.filter(organization_id=organization_id, idempotency_key=personal_key).first()


def list_open_commands(broadcast_id: uuid.UUID) -> list[uuid.UUID]:
    return list(Command.objects.filter(broadcast_id=broadcast_id, state__in=OPEN_STATES).values_list("pk", flat=True))


def count_online() -> dict[str, int]:
    """For the health endpoint."""
    return {
        "gateways_online": Gateway.objects.filter(session_id__isnull=False).count(),
        "agents_online": Agent.objects.filter(session_id__isnull=False).count(),
    }
