"""What there is: gateways and agents."""

from __future__ import annotations

from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.gateways.selectors import describe_agent, describe_gateway, list_agents, list_gateways
from apps.orgs.authentication import person_of


class AgentsView(APIView):
    """GET the agents I may see."""

    def get(self, request: Request) -> Response:
        return Response({"results": [describe_agent(agent) for agent in list_agents(person_of(request))]})


class GatewaysView(APIView):
    """GET the gateways I may see."""

    def get(self, request: Request) -> Response:
        return Response({"results": [describe_gateway(gateway) for gateway in list_gateways(person_of(request))]})
