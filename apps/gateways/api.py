"""Gateways, agents and single commands over REST."""

from __future__ import annotations

import uuid
from typing import Any

from rest_framework import serializers, status
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.gateways.access import access_agent, access_command
from apps.gateways.actions.commands import cancel_command, queue_command
from apps.gateways.exceptions import AgentUnavailableError
from apps.gateways.models import Command
from apps.gateways.selectors import (
    describe_agent,
    describe_command,
    describe_gateway,
    list_agents,
    list_gateways,
    wait_for_end,
)
from apps.orgs.authentication import actor_of, person_of

MAX_WAIT_S = 30.0


class CommandBody(serializers.Serializer[Any]):
    command = serializers.DictField()
    execution = serializers.DictField(required=False)
    timeoutMs = serializers.IntegerField(min_value=100, max_value=3_600_000, default=30_000)  # noqa: N815


class AgentsView(APIView):
    """GET the agents I may see."""

    def get(self, request: Request) -> Response:
        return Response({"results": [describe_agent(agent) for agent in list_agents(person_of(request))]})


class GatewaysView(APIView):
    """GET the gateways I may see."""

    def get(self, request: Request) -> Response:
        return Response({"results": [describe_gateway(gateway) for gateway in list_gateways(person_of(request))]})


def _waited_for(command: Command, request: Request) -> Command:
    """The command when it has ended, or after the seconds that `?wait=` asks for; at once without it."""
    wait = request.query_params.get("wait", "")
    if not command.is_open or not wait.isdecimal():
        return command
    return wait_for_end(command.pk, timeout_s=min(float(wait[:6]), MAX_WAIT_S))


class AgentCommandsView(APIView):
    """POST one command to one agent; answers 202 at once, or with `?wait=5` when it has ended (200).

    `Idempotency-Key` makes a repeated request harmless.
    """

    def post(self, request: Request, agent_id: uuid.UUID) -> Response:
        agent = access_agent(person_of(request), agent_id, perm="agent:execute")
        body = CommandBody(data=request.data)
        body.is_valid(raise_exception=True)
        if not agent.is_online:
            raise AgentUnavailableError(f"The agent {agent.agent_id} is not connected.")
        fields = body.validated_data
        timeout_ms = fields["timeoutMs"]
        command = queue_command(
            agent=agent,
            name=str(fields["command"].get("name") or fields["command"].get("type") or "command")[:80],
            spec=fields["command"],
            execution=fields.get("execution") or {"type": "sync", "timeout_ms": min(timeout_ms, 60_000)},
            timeout_ms=timeout_ms,
            actor=actor_of(request),
            idempotency_key=request.headers.get("Idempotency-Key", "")[:120] or None,
        )
        command = _waited_for(command, request)
        done = status.HTTP_202_ACCEPTED if command.is_open else status.HTTP_200_OK
        return Response(describe_command(command), status=done)


class CommandView(APIView):
    """GET how a command stands; `?wait=5` answers when it has ended, or after that many seconds."""

    def get(self, request: Request, command_id: uuid.UUID) -> Response:
        command = access_command(person_of(request), command_id)
        return Response(describe_command(_waited_for(command, request)))


class CommandCancelView(APIView):
    """POST asks for the end of a command."""

    def post(self, request: Request, command_id: uuid.UUID) -> Response:
        command = access_command(person_of(request), command_id)
        access_agent(person_of(request), command.agent_id, perm="agent:execute")
        cancel_command(command=command, actor=actor_of(request))
        return Response(
            describe_command(access_command(person_of(request), command_id)), status=status.HTTP_202_ACCEPTED
        )
