"""Which protocol goes where: HTTP to Django, browsers behind session and Origin, gateways behind their certificate."""

from __future__ import annotations

from typing import Any

from channels.auth import AuthMiddlewareStack
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import AllowedHostsOriginValidator
from django.urls import path

from apps.gateways.routing import websocket_urlpatterns as gateway_sockets
from apps.operations.routing import websocket_urlpatterns as browser_sockets
from opsmap.lib.origins import RequireOrigin


def protocols(http: Any) -> ProtocolTypeRouter:
    # Daphne lets a null Origin through by itself, and Channels' validator a missing one: browsers must send a real one.
    browsers = RequireOrigin(AllowedHostsOriginValidator(AuthMiddlewareStack(URLRouter(browser_sockets))))
    return ProtocolTypeRouter(
        {"http": http, "websocket": URLRouter([*gateway_sockets, path("ws/", browsers)])},
    )
