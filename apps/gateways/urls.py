"""The API of gateways, agents and commands."""

from django.urls import path

from apps.gateways import api

api_urlpatterns = [
    path("agents", api.AgentsView.as_view()),
    path("agents/<uuid:agent_id>/commands", api.AgentCommandsView.as_view()),
    path("gateways", api.GatewaysView.as_view()),
    path("commands/<uuid:command_id>", api.CommandView.as_view()),
    path("commands/<uuid:command_id>/cancel", api.CommandCancelView.as_view()),
]
