"""Sockets of browsers."""

from django.urls import path

from apps.operations.consumers import MapConsumer, MapListConsumer

websocket_urlpatterns = [
    path("maps/", MapListConsumer.as_asgi()),
    path("maps/<uuid:map_id>/", MapConsumer.as_asgi()),
]
