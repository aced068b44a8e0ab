"""What people decide about gateways and agents: quarantine, revocation. Deciding the same twice changes nothing."""

from __future__ import annotations

import uuid

from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.gateways.access import access_agent, access_gateway
from apps.gateways.actions.quarantine import quarantine_agent, release_agent
from apps.gateways.actions.revocation import revoke_agent, revoke_gateway
from apps.gateways.api.bodies import read_body
from apps.gateways.api.fleet_bodies import ReasonBody
from apps.gateways.payloads import describe_agent_fully, describe_gateway_fully
from apps.gateways.registry import get_agent, get_gateway
from apps.orgs.authentication import actor_of, person_of


class AgentQuarantineView(APIView):
    """POST {reason}: no more commands for this agent; it is watched on · DELETE: commands again."""

    def post(self, request: Request, agent_id: uuid.UUID) -> Response:
        agent = access_agent(person_of(request), agent_id, perm="agent:admin")
        reason = read_body(ReasonBody, request).validated_data["reason"]
        quarantine_agent(agent=agent, actor=actor_of(request), reason=reason)
        return Response(describe_agent_fully(get_agent(agent_id)))

    def delete(self, request: Request, agent_id: uuid.UUID) -> Response:
        agent = access_agent(person_of(request), agent_id, perm="agent:admin")
        release_agent(agent=agent, actor=actor_of(request))
        return Response(describe_agent_fully(get_agent(agent_id)))


class AgentRevokeView(APIView):
    """POST {reason}: its certificates do not count any more, its connections are cut, until it is enrolled anew."""

    def post(self, request: Request, agent_id: uuid.UUID) -> Response:
        agent = access_agent(person_of(request), agent_id, perm="agent:admin")
        reason = read_body(ReasonBody, request).validated_data["reason"]
        revoke_agent(agent=agent, actor=actor_of(request), reason=reason)
        return Response(describe_agent_fully(get_agent(agent_id)))


class GatewayRevokeView(APIView):
    """POST {reason}: as for agents. Its agents go over to other gateways, if they have some."""

    def post(self, request: Request, gateway_id: uuid.UUID) -> Response:
        gateway = access_gateway(person_of(request), gateway_id, perm="gateway:admin")
        reason = read_body(ReasonBody, request).validated_data["reason"]
        revoke_gateway(gateway=gateway, actor=actor_of(request), reason=reason)
        return Response(describe_gateway_fully(get_gateway(gateway_id)))
