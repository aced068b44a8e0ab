"""The API of gateways, agents, commands and broadcasts."""

from django.urls import path

from apps.gateways.api import broadcasts, commands, discovery, enrolment_tokens, enrolments, fleet, settings, standing

api_urlpatterns = [
    path("agents", fleet.AgentsView.as_view()),
    path("agents/<uuid:agent_id>", fleet.AgentView.as_view()),
    path("agents/<uuid:agent_id>/quarantine", standing.AgentQuarantineView.as_view()),
    path("agents/<uuid:agent_id>/revoke", standing.AgentRevokeView.as_view()),
    path("agents/<uuid:agent_id>/settings", settings.AgentSettingsView.as_view()),
    path("agents/<uuid:agent_id>/discovery", discovery.AgentDiscoveryView.as_view()),
    path("agents/<uuid:agent_id>/discover", discovery.AgentDiscoverView.as_view()),
    path("agents/<uuid:agent_id>/commands", commands.AgentCommandsView.as_view()),
    path("gateways", fleet.GatewaysView.as_view()),
    path("gateways/<uuid:gateway_id>", fleet.GatewayView.as_view()),
    path("gateways/<uuid:gateway_id>/revoke", standing.GatewayRevokeView.as_view()),
    path("enrolments", enrolments.EnrolmentsView.as_view()),
    path("fleet/settings", settings.FleetSettingsView.as_view()),
    path("fleet/discover", discovery.FleetDiscoverView.as_view()),
    path("enrolment-tokens", enrolment_tokens.EnrolmentTokensView.as_view()),
    path("enrolment-tokens/<uuid:enrolment_token_id>", enrolment_tokens.EnrolmentTokenView.as_view()),
    path("commands", commands.CommandsView.as_view()),
    path("commands/<uuid:command_id>", commands.CommandView.as_view()),
    path("commands/<uuid:command_id>/cancel", commands.CommandCancelView.as_view()),
    path("commands/<uuid:command_id>/output", commands.CommandOutputView.as_view()),
    path("broadcasts", broadcasts.BroadcastsView.as_view()),
    path("broadcasts/<uuid:broadcast_id>", broadcasts.BroadcastView.as_view()),
    path("broadcasts/<uuid:broadcast_id>/cancel", broadcasts.BroadcastCancelView.as_view()),
]
