"""What is set on agents from here, one by one and for as many as a filter means."""

from __future__ import annotations

import uuid

from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.gateways.access import access_agent, access_fleet
from apps.gateways.actions.settings import change_settings
from apps.gateways.api.bodies import read_body
from apps.gateways.api.fleet_bodies import FleetSettingsBody, SettingsField
from apps.gateways.api.organizations import organization_of
from apps.gateways.payloads import describe_settings
from apps.gateways.registry import get_agent
from apps.orgs.authentication import actor_of, person_of


class AgentSettingsView(APIView):
    """GET what is set on an agent · PATCH some keys of it; null gives one back to the host's own file."""

    def get(self, request: Request, agent_id: uuid.UUID) -> Response:
        access_agent(person_of(request), agent_id)
        return Response(describe_settings(get_agent(agent_id).settings))

    def patch(self, request: Request, agent_id: uuid.UUID) -> Response:
        agent = access_agent(person_of(request), agent_id, perm="agent:admin")
        changes = SettingsField().run_validation(request.data)
        actor = actor_of(request)
        change_settings(organization_id=agent.organization_id, agents=[agent], changes=changes, actor=actor)
        return Response(describe_settings(get_agent(agent_id).settings))


class FleetSettingsView(APIView):
    """PATCH {filter, settings}: the same for all agents that a filter means, as of a broadcast. Answers how many."""

    def patch(self, request: Request) -> Response:
        body = read_body(FleetSettingsBody, request)
        person = person_of(request)
        organization_id = organization_of(person, body.validated_data.get("organizationId"))
        agents = access_fleet(person, organization_id, body.as_filter(), perm="agent:admin")
        changed = change_settings(
            organization_id=organization_id,
            agents=agents,
            changes=body.validated_data["settings"],
            actor=actor_of(request),
        )
        return Response({"total": len(agents), "changed": len(changed)})
