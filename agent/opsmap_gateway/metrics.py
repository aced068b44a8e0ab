"""What a monitoring system may ask a gateway: Prometheus metrics, and whether it does its work.

Nobody has to say who they are, so it listens on this machine's own addresses only.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from types import TracebackType
from typing import Self

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.http11 import Request, Response

from opsmap_daemon.door import Door
from opsmap_gateway import __version__
from opsmap_gateway.agent_server import AgentServer
from opsmap_gateway.backend_link import BackendLink
from opsmap_gateway.buffer import Buffer
from opsmap_gateway.counters import Counters
from opsmap_gateway.delivery import Delivery
from opsmap_gateway.outbox import Quota
from opsmap_gateway.registry import Registry

_logger = logging.getLogger(__name__)

HEALTH_PATH = "/healthz"
_MAX_CONNECTIONS = 16
_TIMEOUT_S = 5.0
_PREFIX = "opsmap_gateway_"


@dataclass(frozen=True, slots=True)
class Instruments:
    """The parts of a gateway that are looked at; each counts for itself."""

    registry: Registry
    server: AgentServer
    link: BackendLink
    delivery: Delivery
    counters: Counters
    waiting: Quota
    buffer: Buffer


class GatewayCollector(Collector):
    """Reads the instruments when asked: nothing is counted twice, and nothing costs while nobody asks."""

    def __init__(self, instruments: Instruments, *, gateway_id: str, zone: str) -> None:
        self._instruments = instruments
        self._names = {"gateway": gateway_id, "zone": zone, "version": __version__}

    def collect(self) -> Iterator[Metric]:
        yield InfoMetricFamily(f"{_PREFIX}build", "Which gateway this is.", self._names)
        yield from self._agents()
        yield from self._backend()
        yield from self._frames()
        yield from self._discovery()

    def _agents(self) -> Iterator[Metric]:
        seen = self._instruments
        yield _gauge("connected_agents", "Agents that have registered and are here.", len(seen.registry))
        yield _gauge("unregistered_connections", "Connections that have not said who they are.", seen.server.knocking)
        yield _counter("sessions_refused", "Agents that were not let in.", "reason", seen.server.refused)
        yield _counter(
            "commands",
            "Commands by what became of them: forwarded, or the code of their refusal. One that was forwarded "
            "is refused later if its agent leaves before taking it.",
            "outcome",
            seen.delivery.commands,
        )
        yield _gauge("waiting_frames", "Frames that wait for agents.", seen.waiting.used)
        yield _counter("losses", "What was not passed on.", "reason", seen.counters.totals())

    def _backend(self) -> Iterator[Metric]:
        link = self._instruments.link
        yield _gauge("backend_up", "Whether the backend is connected.", float(link.is_up))
        if link.silent_s is not None:
            yield _gauge("backend_silent_seconds", "Since the last frame of the backend.", link.silent_s)

    def _frames(self) -> Iterator[Metric]:
        traffic = self._instruments.counters.traffic
        flows = {
            ("agents", "in"): traffic.from_agents,
            ("agents", "out"): traffic.to_agents,
            ("backend", "in"): traffic.from_backend,
            ("backend", "out"): traffic.to_backend,
        }
        labels = ("link", "direction")
        frames = CounterMetricFamily(f"{_PREFIX}frames", "Frames of sessions that were carried.", labels=labels)
        sizes = CounterMetricFamily(f"{_PREFIX}frame_bytes", "The bytes in them.", labels=labels)
        for (link, direction), flow in flows.items():
            frames.add_metric((link, direction), flow.frames)
            sizes.add_metric((link, direction), flow.total_bytes)
        yield frames
        yield sizes

    def _discovery(self) -> Iterator[Metric]:
        buffer = self._instruments.buffer
        yield _gauge("buffer_bytes", "What the buffer takes for batches that are not acknowledged.", buffer.used_bytes)
        yield _gauge("buffer_records", "Discovery results in them.", buffer.records)


class MetricsServer:
    """An asynchronous context manager: answers inside.

    The WebSocket library's own reading of requests is bounded and enough for a GET, which is all there is.

    Args:
        path: where the metrics are; health is at `/healthz`.
    """

    def __init__(
        self, *, host: str, port: int, path: str, collector: GatewayCollector, instruments: Instruments
    ) -> None:
        self._address = host, port
        self._path = path
        self._instruments = instruments
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
        told = {
            "status": "ok" if reason is None else "unavailable",
            "reason": reason,
            "agents": len(self._instruments.registry),
        }
        return _with_type(socket.respond(status, json.dumps(told) + "\n"), "application/json")

    def _why_not_well(self) -> str | None:
        if self._instruments.delivery.is_draining:
            return "the gateway is stopping"
        if not self._instruments.link.is_up:
            return "the backend is not connected"
        return None


async def _never_reached(socket: ServerConnection) -> None:
    raise AssertionError("every request is answered without becoming a WebSocket")


def _with_type(response: Response, content_type: str) -> Response:
    del response.headers["Content-Type"]
    response.headers["Content-Type"] = content_type
    return response


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(_PREFIX + name, text, value)


def _counter(name: str, text: str, label: str, totals: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(_PREFIX + name, text, labels=(label,))
    items: Iterable[tuple[str, int]] = sorted(totals.items())
    for value, total in items:
        family.add_metric((value,), total)
    return family
