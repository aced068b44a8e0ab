"""What there is: gateways and agents, page by page and one by one."""

from __future__ import annotations

import uuid
from typing import Any

from rest_framework import status
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.gateways.access import access_agent, access_gateway
from apps.gateways.actions.removal import remove_agent, remove_gateway
from apps.gateways.api.bodies import read_query
from apps.gateways.api.fleet_bodies import RegistryQuery
from apps.gateways.payloads import describe_agent, describe_agent_fully, describe_gateway, describe_gateway_fully
from apps.gateways.registry import Cursor, get_agent, get_gateway, page_of_agents, page_of_gateways
from apps.orgs.authentication import actor_of, person_of
from apps.orgs.selectors import list_organization_ids


def _describe_page(shown: list[dict[str, Any]], following: Cursor | None) -> Response:
    """`next` is the `after` of the page that follows, null at the end."""
    return Response({"results": shown, "next": str(following) if following else None})


class AgentsView(APIView):
    """GET the agents I may see, by hostname.

    `?state=&gateway=&zone=&label=role=db&name=web-*&version=&certificateEndsBefore=&after=&limit=`
    """

    def get(self, request: Request) -> Response:
        query = read_query(RegistryQuery, request)
        fields = query.validated_data
        wanted = query.as_filter(list_organization_ids(person_of(request)))
        page = page_of_agents(wanted, after=fields.get("after"), limit=fields["limit"])
        return _describe_page([describe_agent(agent) for agent in page.rows], page.next)


class AgentView(APIView):
    """GET everything about one agent · DELETE it from the lists, once it is revoked or long gone."""

    def get(self, request: Request, agent_id: uuid.UUID) -> Response:
        access_agent(person_of(request), agent_id)
        return Response(describe_agent_fully(get_agent(agent_id)))

    def delete(self, request: Request, agent_id: uuid.UUID) -> Response:
        agent = access_agent(person_of(request), agent_id, perm="agent:admin")
        remove_agent(agent=agent, actor=actor_of(request))
        return Response(status=status.HTTP_204_NO_CONTENT)


class GatewaysView(APIView):
    """GET the gateways I may see, by name.

    `?state=&zone=&label=site=a&name=gw-*&version=&certificateEndsBefore=&after=&limit=`
    """

    def get(self, request: Request) -> Response:
        query = read_query(RegistryQuery, request)
        fields = query.validated_data
        wanted = query.as_filter(list_organization_ids(person_of(request)))
        page = page_of_gateways(wanted, after=fields.get("after"), limit=fields["limit"])
        return _describe_page([describe_gateway(gateway) for gateway in page.rows], page.next)


class GatewayView(APIView):
    """GET everything about one gateway · DELETE it from the lists, once it is revoked or long gone."""

    def get(self, request: Request, gateway_id: uuid.UUID) -> Response:
        access_gateway(person_of(request), gateway_id)
        return Response(describe_gateway_fully(get_gateway(gateway_id)))

    def delete(self, request: Request, gateway_id: uuid.UUID) -> Response:
        gateway = access_gateway(person_of(request), gateway_id, perm="gateway:admin")
        remove_gateway(gateway=gateway, actor=actor_of(request))
        return Response(status=status.HTTP_204_NO_CONTENT)
