"""Sockets of browsers must say where their page came from."""

from __future__ import annotations

from typing import Any

from channels.security.websocket import WebsocketDenier


class RequireOrigin:
    """Denies a WebSocket whose Origin header is missing or "null"; what it says is checked further in."""

    # Tells Channels' router that the rest of the path is routed further in.
    _path_routing = True

    def __init__(self, application: Any) -> None:
        self.application = application

    async def __call__(self, scope: Any, receive: Any, send: Any) -> Any:
        origins = [value for name, value in scope["headers"] if name == b"origin"]
        if len(origins) != 1 or origins[0] in {b"", b"null"}:
            return await WebsocketDenier()(scope, receive, send)
        return await self.application(scope, receive, send)
