"""The agent's Prometheus metrics, for this machine alone; loaded only if they are switched on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import NoReturn

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from opsmap_agent.upkeep.diagnosis import find_troubles
from opsmap_agent.upkeep.status import Status
from opsmap_daemon.metrics_server import MetricsServer

PATH = "/metrics"
_PREFIX = "opsmap_agent_"
_LOOK_INTERVAL_S = 5.0


async def serve_metrics(
    host: str,
    port: int,
    look: Callable[[], Awaitable[Status]],
    *,
    on_listening: Callable[[int], None] = lambda port: None,
) -> NoReturn:
    """Answer until cancelled, by what was seen at most 5 s ago. `on_listening` hears the port.

    Raises:
        OSError: the address cannot be had.
    """
    collector = StatusCollector(await look())
    server = MetricsServer(
        host=host, port=port, path=PATH, collector=collector, why_not_well=lambda: _first_trouble(collector.status)
    )
    async with server:
        on_listening(server.port)
        while True:
            await asyncio.sleep(_LOOK_INTERVAL_S)
            collector.status = await look()


class StatusCollector(Collector):
    """The same that `opsmap-agent status` tells, as numbers."""

    def __init__(self, status: Status) -> None:
        self.status = status

    def collect(self) -> Iterator[Metric]:
        status, now = self.status, datetime.now(UTC)
        names = {"agent": status.agent_id, "version": status.version}
        yield InfoMetricFamily(f"{_PREFIX}build", "Which agent this is.", names)
        yield _gauge("connected_gateways", "Gateways that it has a session with.", len(status.gateways))
        is_in_use = any(gateway.is_in_use for gateway in status.gateways)
        yield _gauge("in_use", "Whether the backend uses one of the sessions.", is_in_use)
        left_s = (status.certificate.not_after - now).total_seconds()
        yield _gauge("certificate_seconds_left", "Until the certificate ends.", left_s)
        yield _gauge("buffer_events", "Events that the backend has not acknowledged.", status.buffer.events)
        yield _gauge("buffer_bytes", "What the journal takes.", status.buffer.size_bytes)
        yield _gauge("buffer_quota_bytes", "What it may take.", status.buffer.quota_bytes)
        yield _gauge("running_commands", "Commands that are being run, without jobs.", status.running_commands)
        yield _gauge("jobs", "Detached processes whose end is open.", status.jobs)
        yield _gauge("health_checks", "Health checks that it runs.", status.health_checks)
        yield _gauge("watchdog_restarts_last_hour", "How often it stood still.", status.watchdog.restarts_last_hour)
        yield _counter("commands", "Commands that have ended, by outcome.", "outcome", status.done_commands)
        yield _counter("refusals", "Commands and frames that were refused, by kind.", "kind", status.refused)
        lost = CounterMetricFamily(f"{_PREFIX}lost_events", "Events dropped because the buffer was full.")
        lost.add_metric((), status.buffer.lost_events)
        yield lost


def _first_trouble(status: Status) -> str | None:
    troubles = find_troubles(status, datetime.now(UTC))
    return str(troubles[0]) if troubles else None


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(_PREFIX + name, text, value)


def _counter(name: str, text: str, label: str, totals: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(_PREFIX + name, text, labels=(label,))
    for value, total in sorted(totals.items()):
        family.add_metric((value,), total)
    return family
