"""What an agent does about itself, beside its work: watchdog, status file, signs of life, metrics."""

from __future__ import annotations

import asyncio
import logging
import os
from datetime import UTC, datetime

from opsmap_agent import __version__
from opsmap_agent.configuration import Configuration
from opsmap_agent.sessions.session import Desk
from opsmap_agent.upkeep.status import (
    BufferStatus,
    CertificateStatus,
    GatewayStatus,
    Status,
    WatchdogStatus,
    keep_status_file,
)
from opsmap_agent.upkeep.watchdog import RestartRecord, Watchdog
from opsmap_daemon import service_manager
from opsmap_daemon.configuration import split_address

_logger = logging.getLogger(__name__)


class Upkeep:
    """`start` once the parts of the agent are there. `restarts` says what the watchdog did before."""

    def __init__(self, configuration: Configuration, desk: Desk, restarts: RestartRecord) -> None:
        self._configuration = configuration
        self._desk = desk
        self._restarts = restarts
        self._started_at = datetime.now(UTC)

    def start(self, group: asyncio.TaskGroup) -> None:
        settings = self._configuration
        if settings.watchdog.enabled:
            watchdog = Watchdog(settings.watchdog.timeout_secs, self._restarts)
            group.create_task(watchdog.watch(), name="watchdog")
        group.create_task(service_manager.give_signs_of_life(), name="signs of life")
        group.create_task(keep_status_file(settings.buffer.path, self.look), name="status")
        if settings.metrics.enabled:
            group.create_task(self._serve_metrics(), name="metrics")

    async def look(self) -> Status:
        """How the agent is at this moment."""
        desk, tally, watchdog = self._desk, self._desk.tally, self._configuration.watchdog
        credentials = desk.credentials
        jobs = desk.jobs.active_count
        return Status(
            agent_id=desk.agent_id,
            organization_id=credentials.identity.organization_id,
            version=__version__,
            pid=os.getpid(),
            started_at=self._started_at,
            written_at=datetime.now(UTC),
            certificate=CertificateStatus(credentials.validity.begins, credentials.validity.ends),
            gateways=self._gateways(),
            buffer=await self._buffer(),
            watchdog=WatchdogStatus(watchdog.enabled, watchdog.timeout_secs, len(self._restarts.recent)),
            running_commands=desk.dispatcher.active_count - jobs,
            jobs=jobs,
            health_checks=desk.health.check_count,
            done_commands=dict(tally.done),
            refused=dict(tally.refused),
            latest_refusals=list(tally.latest_refusals),
            last_contact=tally.last_contact,
            clock_ahead_s=tally.clock_ahead_s,
            last_discovery=tally.last_discovery,
            remote_settings=desk.settings.describe(),
        )

    def _gateways(self) -> list[GatewayStatus]:
        sessions = sorted(self._desk.switchboard.sessions, key=lambda each: each.connected_since)
        return [
            GatewayStatus(each.gateway, each.gets_events, each.connected_since, each.last_contact) for each in sessions
        ]

    async def _buffer(self) -> BufferStatus:
        settings = self._configuration.buffer
        held = await self._desk.journal.occupancy()
        quota = settings.max_size_mb * 1024 * 1024
        return BufferStatus(held.events, held.size_bytes, quota, held.oldest, self._desk.journal.lost_events)

    async def _serve_metrics(self) -> None:
        """Loaded only if they are wanted: the library takes 3 MB."""
        from opsmap_agent.upkeep.metrics import serve_metrics

        host, port = split_address(self._configuration.metrics.bind)
        try:
            await serve_metrics(host, port, self.look)
        except OSError as error:
            # A port that somebody else has is no reason for an agent to end.
            _logger.error("there are no metrics: %s cannot be had: %s", self._configuration.metrics.bind, error)
