"""Where gateways connect."""

from django.urls import path

from apps.gateways.consumers import LinkConsumer

websocket_urlpatterns = [path("link/", LinkConsumer.as_asgi())]
