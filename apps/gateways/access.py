"""The doors to gateways, agents, tokens, commands and broadcasts. Missing and foreign both answer 404."""

from __future__ import annotations

import uuid

from django.core.exceptions import PermissionDenied
from django.db.models import Exists, Q
from django.http import Http404

from apps.gateways.exceptions import FleetSizeError
from apps.gateways.filters import FleetFilter, find_agents
from apps.gateways.models import Agent, Broadcast, Certificate, Command, EnrolmentToken, Gateway
from apps.orgs.models import User
from opsmap.lib.prepared import Lookup
from opsmap_protocol.enums import PeerRole

MAX_FLEET = 10_000
"""The most agents that one request concerns."""

_ENOUGH_TO_COMMAND = (
    "organization_id",
    "gateway_id",
    "agent_id",
    "hostname",
    "session_id",
    "quarantined_at",
    "quarantine_reason",
    "revoked_at",
)
"""The rest is long (health checks, load), and this is on the path of every command."""

_AGENT_OF_MEMBER = Lookup(
    Agent,
    columns=("id", *_ENOUGH_TO_COMMAND),
    where="""id = %s::uuid AND EXISTS (
        SELECT FROM orgs_membership member
        WHERE member.organization_id = gateways_agent.organization_id AND member.user_id = %s::uuid
    )""",
)


def access_agent(user: User, agent_id: uuid.UUID, *, perm: str = "agent:view") -> Agent:
    """Raises Http404 if there is none or it may not be seen, PermissionDenied if it is seen but `perm` is not given."""
    agent = _AGENT_OF_MEMBER.first(agent_id, user.pk)
    if agent is None:
        raise Http404
    _check_may(user, perm, agent, f"on {agent.agent_id}")
    return agent


def access_command(user: User, command_id: uuid.UUID, *, perm: str = "agent:view") -> Command:
    """Whoever may see the agent may see how a command on it went; `perm` as for `access_agent`."""
    command = (
        Command.objects.select_related("agent").filter(pk=command_id, organization__memberships__user=user.pk).first()
    )
    if command is None:
        raise Http404
    _check_may(user, perm, command.agent, f"on {command.agent.agent_id}")
    return command


def access_gateway(user: User, gateway_id: uuid.UUID, *, perm: str = "agent:view") -> Gateway:
    """Whoever may see agents may see by what they come; `perm` as for `access_agent`."""
    gateway = Gateway.objects.filter(pk=gateway_id, organization__memberships__user=user.pk).first()
    if gateway is None:
        raise Http404
    _check_may(user, perm, gateway, f"with {gateway.gateway_id}")
    return gateway


def access_enrolment_token(user: User, token_id: uuid.UUID, *, perm: str = "agent:view") -> EnrolmentToken:
    """What is shown of a token is no secret: who sees agents sees by what they came."""
    tokens = EnrolmentToken.objects.select_related("gateway")
    token = tokens.filter(pk=token_id, organization__memberships__user=user.pk).first()
    if token is None:
        raise Http404
    _check_may(user, perm, token, "with this enrolment token")
    return token


def check_may_enrol(user: User, organization_id: uuid.UUID) -> None:
    """Whether the person may let gateways and agents into an organization of theirs. Raises PermissionDenied."""
    _check_may(user, "enrolment:admin", EnrolmentToken(organization_id=organization_id), "in this organization")


def access_fleet(
    user: User, organization_id: uuid.UUID, wanted: FleetFilter, *, perm: str = "agent:execute"
) -> list[Agent]:
    """The agents that a filter means, with each of which the person may do what `perm` says.

    The organization must be one of the person's. What a person may do with agents is given for all agents of an
    organization (there are no grants on single ones), so that one answer holds for ten thousand.

    Raises:
        FleetSizeError: there are none, or too many.
        UnknownAgentsError: the filter names agents that are not there.
        PermissionDenied: some may be seen but no more; the message says how many.
    """
    found = find_agents(organization_id, wanted).only(*_ENOUGH_TO_COMMAND)
    agents = list(found[: MAX_FLEET + 1])
    if len(agents) > MAX_FLEET:
        raise FleetSizeError(f"At most {MAX_FLEET} agents can be reached at once, and this filter means more.")
    if not agents:
        raise FleetSizeError("There is no agent that this filter means.")
    _check_may(user, perm, agents[0], f"on {len(agents)} of {len(agents)} agents, so nothing was done")
    return agents


def access_broadcast(user: User, broadcast_id: uuid.UUID, *, perm: str = "agent:view") -> Broadcast:
    """Its agents are all of its organization, as what a person may do with them is; `perm` as for `access_agent`."""
    broadcast = Broadcast.objects.filter(pk=broadcast_id, organization__memberships__user=user.pk).first()
    if broadcast is None:
        raise Http404
    _check_may(user, perm, broadcast, "on the agents of this broadcast")
    return broadcast


def _check_may(user: User, perm: str, thing: Agent | Gateway | Broadcast | EnrolmentToken, where: str) -> None:
    """Raises Http404 or PermissionDenied. Every role that may do something with an agent may see it, so that one
    question is enough for who may, and only who may not is asked about twice.
    """
    if user.has_perm(perm, thing):
        return
    if perm == "agent:view" or not user.has_perm("agent:view", thing):
        raise Http404
    raise PermissionDenied(f"You may not do this {where} ({perm}).")


def get_gateway_by_certificate(organization_id: str, gateway_id: str, certificate_sha256: str) -> Gateway | None:
    """The gateway that this very certificate was recorded for, revoked or not: see `is_gateway_revoked`."""
    return (
        Gateway.objects.filter(organization_id=organization_id, gateway_id=gateway_id)
        .filter(
            Q(certificate_sha256=certificate_sha256)
            | Exists(
                Certificate.objects.filter(
                    organization_id=organization_id,
                    role=PeerRole.GATEWAY,
                    name=gateway_id,
                    fingerprint=certificate_sha256,
                )
            )
        )
        .first()
    )


def is_gateway_revoked(gateway_pk: uuid.UUID, certificate_sha256: str) -> bool:
    """Whether the gateway, or the certificate that it shows, does not count any more. As the database has it now."""
    return (
        Gateway.objects.filter(pk=gateway_pk, revoked_at__isnull=False).exists()
        or Certificate.objects.filter(fingerprint=certificate_sha256, revoked_at__isnull=False).exists()
    )
