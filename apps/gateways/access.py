"""The doors to gateways, agents and commands. Missing and foreign both answer 404."""

from __future__ import annotations

import uuid

from django.core.exceptions import PermissionDenied
from django.http import Http404

from apps.gateways.models import Agent, Command, Gateway
from apps.orgs.models import User


def access_agent(user: User, agent_id: uuid.UUID, *, perm: str = "agent:view") -> Agent:
    """Raises Http404 if there is none or it may not be seen, PermissionDenied if it is seen but `perm` is not given."""
    agent = Agent.objects.select_related("gateway").filter(pk=agent_id, organization__memberships__user=user.pk).first()
    if agent is None or not user.has_perm("agent:view", agent):
        raise Http404
    if perm != "agent:view" and not user.has_perm(perm, agent):
        raise PermissionDenied(f"You may not do this on {agent.agent_id} ({perm}).")
    return agent


def access_command(user: User, command_id: uuid.UUID) -> Command:
    """Whoever may see the agent may see how a command on it went."""
    command = (
        Command.objects.select_related("agent").filter(pk=command_id, organization__memberships__user=user.pk).first()
    )
    if command is None or not user.has_perm("agent:view", command.agent):
        raise Http404
    return command


def get_gateway_by_certificate(organization_id: str, gateway_id: str, certificate_sha256: str) -> Gateway | None:
    """The gateway that this very certificate was registered for."""
    return Gateway.objects.filter(
        organization_id=organization_id, gateway_id=gateway_id, certificate_sha256=certificate_sha256
    ).first()
