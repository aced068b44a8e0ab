"""What a monitoring system may ask a gateway: Prometheus metrics, and whether it does its work."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from opsmap_daemon.metrics_server import MetricsServer
from opsmap_gateway import __version__
from opsmap_gateway.agent_server import AgentServer
from opsmap_gateway.backend_link import BackendLink
from opsmap_gateway.buffer import Buffer
from opsmap_gateway.counters import Counters
from opsmap_gateway.delivery import Delivery
from opsmap_gateway.outbox import Quota
from opsmap_gateway.registry import Registry

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


def metrics_server(
    collector: GatewayCollector, instruments: Instruments, *, host: str, port: int, path: str
) -> MetricsServer:
    """Metrics at `path`, and `/healthz`, which answers 503 while the gateway does not do its work."""

    def why_not_well() -> str | None:
        if instruments.delivery.is_draining:
            return "the gateway is stopping"
        if not instruments.link.is_up:
            return "the backend is not connected"
        return None

    return MetricsServer(
        host=host,
        port=port,
        path=path,
        collector=collector,
        why_not_well=why_not_well,
        describe=lambda: {"agents": len(instruments.registry)},
    )


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(_PREFIX + name, text, value)


def _counter(name: str, text: str, label: str, totals: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(_PREFIX + name, text, labels=(label,))
    items: Iterable[tuple[str, int]] = sorted(totals.items())
    for value, total in items:
        family.add_metric((value,), total)
    return family
