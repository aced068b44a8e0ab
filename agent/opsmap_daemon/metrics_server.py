"""Where a monitoring system asks a daemon: Prometheus metrics, and whether it does its work.

Nobody has to say who they are, so it listens on this machine's own addresses only.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.registry import Collector
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.http11 import Request, Response

from opsmap_daemon.door import Door

_logger = logging.getLogger(__name__)

HEALTH_PATH = "/healthz"
_MAX_CONNECTIONS = 16
_TIMEOUT_S = 5.0


class MetricsServer:
    """An asynchronous context manager: answers inside.

    The WebSocket library's own reading of requests is bounded and enough for a GET, which is all there is.

    Args:
        path: where the metrics are; health is at `/healthz`.
        why_not_well: the reason why the daemon does not do its work now; None if it does.
        describe: what the health answer tells besides.
    """

    def __init__(
        self,
        *,
        host: str,
        port: int,
        path: str,
        collector: Collector,
        why_not_well: Callable[[], str | None],
        describe: Callable[[], dict[str, Any]] = dict,
    ) -> None:
        self._address = host, port
        self._path = path
        self._why_not_well = why_not_well
        self._describe = describe
        self._registry = CollectorRegistry()
        self._registry.register(collector)
        ProcessCollector(registry=self._registry)
        self._server: Server | None = None

    @property
    def port(self) -> int:
        """Where it listens, also if the configuration said 0."""
        assert self._server is not None, "the server is not running"
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def __aenter__(self) -> Self:
        """Begin to listen. Raises OSError if the address cannot be had."""
        self._server = await serve(
            _never_reached,
            sock=Door(*self._address, limit=_MAX_CONNECTIONS, timeout_s=_TIMEOUT_S),
            open_timeout=_TIMEOUT_S,
            process_request=self._answer,
            server_header=None,
            compression=None,
        )
        _logger.info("metrics are at http://%s:%d%s", self._address[0], self.port, self._path)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()

    def _answer(self, socket: ServerConnection, request: Request) -> Response:
        path = request.path.partition("?")[0]
        if path == self._path:
            text = generate_latest(self._registry).decode()
            return _with_type(socket.respond(HTTPStatus.OK, text), CONTENT_TYPE_LATEST)
        if path == HEALTH_PATH:
            return self._tell_health(socket)
        return socket.respond(HTTPStatus.NOT_FOUND, f"There are {self._path} and {HEALTH_PATH}\n")

    def _tell_health(self, socket: ServerConnection) -> Response:
        reason = self._why_not_well()
        status = HTTPStatus.OK if reason is None else HTTPStatus.SERVICE_UNAVAILABLE
        told = {"status": "ok" if reason is None else "unavailable", "reason": reason, **self._describe()}
        return _with_type(socket.respond(status, json.dumps(told) + "\n"), "application/json")


async def _never_reached(socket: ServerConnection) -> None:
    raise AssertionError("every request is answered without becoming a WebSocket")


def _with_type(response: Response, content_type: str) -> Response:
    del response.headers["Content-Type"]
    response.headers["Content-Type"] = content_type
    return response
