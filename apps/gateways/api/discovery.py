"""What hosts found out about themselves, and having them look around now."""

from __future__ import annotations

import uuid

from rest_framework import status
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.gateways.access import access_agent, access_fleet
from apps.gateways.actions.discoveries import request_discoveries, request_discovery
from apps.gateways.api.bodies import read_body
from apps.gateways.api.fleet_bodies import DiscoverBody, FleetDiscoverBody
from apps.gateways.api.organizations import organization_of
from apps.gateways.exceptions import NoDiscoveryError
from apps.gateways.selectors import describe_discovery, get_discovery
from apps.orgs.authentication import actor_of, person_of


class AgentDiscoveryView(APIView):
    """GET what a host told of itself last (304 by ETag if it has told nothing new)."""

    def get(self, request: Request, agent_id: uuid.UUID) -> Response:
        agent = access_agent(person_of(request), agent_id)
        discovery = get_discovery(agent)
        if discovery is None:
            raise NoDiscoveryError(f"The host of {agent.agent_id} has not told anything of itself yet.")
        etag = f'"{agent.pk.hex}-{discovery.discovered_at.timestamp():.6f}"'
        headers = {"ETag": etag, "Cache-Control": "private, no-cache"}
        if request.headers.get("If-None-Match") == etag:
            return Response(status=status.HTTP_304_NOT_MODIFIED, headers=headers)
        return Response(describe_discovery(discovery), headers=headers)


class AgentDiscoverView(APIView):
    """POST {types}: look around now; no types means everything. What is found comes by itself."""

    def post(self, request: Request, agent_id: uuid.UUID) -> Response:
        agent = access_agent(person_of(request), agent_id, perm="agent:execute")
        types = read_body(DiscoverBody, request).validated_data["types"]
        discovery_id = request_discovery(agent=agent, types=types, actor=actor_of(request))
        return Response({"discoveryId": discovery_id}, status=status.HTTP_202_ACCEPTED)


class FleetDiscoverView(APIView):
    """POST {filter, types}: the same for all agents that a filter means, as of a broadcast. Answers how many."""

    def post(self, request: Request) -> Response:
        body = read_body(FleetDiscoverBody, request)
        person = person_of(request)
        organization_id = organization_of(person, body.validated_data.get("organizationId"))
        agents = access_fleet(person, organization_id, body.as_filter())
        request_discoveries(agents=agents, types=body.validated_data["types"], actor=actor_of(request))
        return Response({"total": len(agents)}, status=status.HTTP_202_ACCEPTED)
