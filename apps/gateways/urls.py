"""The API of gateways, agents, commands and broadcasts."""

from django.urls import path

from apps.gateways.api import broadcasts, commands, fleet

api_urlpatterns = [
    path("agents", fleet.AgentsView.as_view()),
    path("agents/<uuid:agent_id>/commands", commands.AgentCommandsView.as_view()),
    path("gateways", fleet.GatewaysView.as_view()),
    path("commands", commands.CommandsView.as_view()),
    path("commands/<uuid:command_id>", commands.CommandView.as_view()),
    path("commands/<uuid:command_id>/cancel", commands.CommandCancelView.as_view()),
    path("commands/<uuid:command_id>/output", commands.CommandOutputView.as_view()),
    path("broadcasts", broadcasts.BroadcastsView.as_view()),
    path("broadcasts/<uuid:broadcast_id>", broadcasts.BroadcastView.as_view()),
    path("broadcasts/<uuid:broadcast_id>/cancel", broadcasts.BroadcastCancelView.as_view()),
]
