"""Putting a gateway together from its configuration, and the order in which it starts and stops."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any

from opsmap_daemon import lifecycle, service_manager, tls
from opsmap_daemon.configuration import split_address
from opsmap_daemon.connection import Dialler, Keepalive, with_default_path
from opsmap_daemon.door import MAX_UNFINISHED
from opsmap_daemon.metrics_server import MetricsServer
from opsmap_daemon.renewal import Renewer
from opsmap_gateway import __version__
from opsmap_gateway.agent_server import AgentServer, ServerSettings
from opsmap_gateway.backend_link import DEFAULT_PATH, BackendLink
from opsmap_gateway.buffer import Buffer
from opsmap_gateway.certificates import verify_backend
from opsmap_gateway.configuration import Configuration
from opsmap_gateway.counters import Counters
from opsmap_gateway.credentials import Credentials
from opsmap_gateway.delivery import Delivery
from opsmap_gateway.discovery import Discovery
from opsmap_gateway.drain import Drain
from opsmap_gateway.enrolment_door import EnrolmentDoor, EnrolmentSettings
from opsmap_gateway.heartbeats import Heartbeats
from opsmap_gateway.metrics import GatewayCollector, Instruments, metrics_server
from opsmap_gateway.outbox import Quota
from opsmap_gateway.registry import Registry
from opsmap_gateway.renewal import Renewal, Trustees
from opsmap_gateway.router import Router
from opsmap_protocol.messages import (
    Authorities,
    EnrolmentAnswer,
    GatewayRegister,
    GatewayRenewed,
    RenewalRefused,
    RevokeAgent,
)

_REGISTRATION_TIMEOUT_S = 10.0
_OTHER_FILES = 128 + MAX_UNFINISHED
"""Everything that is no connection of an agent: those that are just being closed, the backend, logs, the event loop."""


class Gateway:
    """All parts of one gateway.

    Args:
        registration_timeout_s: how long a connected agent may take to register.

    Raises:
        ConfigurationError: certificates that cannot be used or belong to somebody else.
    """

    def __init__(
        self, configuration: Configuration, *, registration_timeout_s: float = _REGISTRATION_TIMEOUT_S
    ) -> None:
        self.credentials = credentials = Credentials(configuration)
        identity = credentials.identity
        name = identity.name
        self._max_connections = configuration.agent_server.max_connections
        waiting = Quota(configuration.routing.command_queue_size)
        self.counters = Counters()
        self.registry = _registry(configuration)
        self.link = BackendLink(
            make_dialler=lambda: _dialler(configuration, credentials),
            hello=_hello(configuration),
            counters=self.counters,
            has_fallback=bool(configuration.backend_connection.fallback_urls),
        )
        self.heartbeats = Heartbeats(
            gateway_id=name,
            interval_s=configuration.aggregation.heartbeat_aggregation_secs,
            forward=self.link.put,
            counters=self.counters,
        )
        self.buffer = _buffer(configuration, self.counters)
        self.discovery = Discovery(
            gateway_id=name,
            batch_size=configuration.aggregation.discovery_batch_size,
            batch_timeout_s=configuration.aggregation.discovery_batch_timeout_ms / 1000,
            buffer=self.buffer,
            link=self.link,
            counters=self.counters,
        )
        self.delivery = Delivery(
            gateway_id=name, registry=self.registry, link=self.link, counters=self.counters, waiting=waiting
        )
        self.trustees = Trustees(credentials)
        self.renewal = Renewal(credentials=credentials, send=self.link.put, on_renewed=self._renew_link)
        self._renewer = Renewer(validity=lambda: credentials.validity, renew=self.renewal.renew)
        self.enrolment = self._enrolment_door(configuration)
        self.router = Router(
            gateway_id=name,
            registry=self.registry,
            link=self.link,
            delivery=self.delivery,
            heartbeats=self.heartbeats,
            discovery=self.discovery,
            counters=self.counters,
            own=self._own_messages(),
        )
        self.server = AgentServer(
            settings=_server_settings(configuration, credentials, registration_timeout_s),
            router=self.router,
            registry=self.registry,
            counters=self.counters,
            waiting=waiting,
        )
        self.metrics = _metrics(
            configuration,
            Instruments(
                registry=self.registry,
                server=self.server,
                link=self.link,
                delivery=self.delivery,
                counters=self.counters,
                waiting=waiting,
                buffer=self.buffer,
            ),
        )
        self._drain = Drain(
            server=self.server,
            registry=self.registry,
            link=self.link,
            delivery=self.delivery,
            traffic=self.counters.traffic,
            waiting=waiting,
        )

    async def run(self) -> None:
        """Serve until cancelled.

        It stops in another order than it starts. First the backend link closes, so that the backend sees one
        gateway leave and not each of its agents; then the registry is written, with all agents still in it;
        then the agents are sent away, and look for another gateway; then what they said last is saved.

        Raises:
            OSError: an address to listen on cannot be had.
        """
        tls.limit_read_buffer()
        lifecycle.allow_open_files(2 * self._max_connections + _OTHER_FILES)
        self.registry.load()
        self.buffer.load()
        async with AsyncExitStack() as servers:
            if self.metrics is not None:
                await servers.enter_async_context(self.metrics)
            servers.callback(self.discovery.save)
            await servers.enter_async_context(self.server)
            if self.enrolment is not None:
                await servers.enter_async_context(self.enrolment)
            try:
                async with asyncio.TaskGroup() as tasks:
                    for part in self._parts():
                        tasks.create_task(part())
                    service_manager.tell_ready()
            finally:
                self.registry.save()

    async def drain(self) -> None:
        """Before `run` is cancelled: no new work, and what is on its way arrives, in a few seconds."""
        await self._drain.run()

    def _parts(self) -> list[Callable[[], Coroutine[Any, Any, None]]]:
        return [
            service_manager.give_signs_of_life,
            self._run_link,
            self.heartbeats.run,
            self.discovery.run,
            self.registry.run,
            self.counters.run,
            self.trustees.run,
            self._renewer.run,
        ]

    def _own_messages(self) -> dict[str, Callable[[Any], None]]:
        """What takes the messages of the backend that are for the gateway itself."""
        return {
            Authorities.type: self.trustees.tell,
            RevokeAgent.type: self._revoke,
            EnrolmentAnswer.type: self._answer_enrolment,
            GatewayRenewed.type: self.renewal.answered,
            RenewalRefused.type: self.renewal.answered,
        }

    def _revoke(self, revocation: RevokeAgent) -> None:
        self.server.revoke(revocation)

    def _answer_enrolment(self, answer: EnrolmentAnswer) -> None:
        if self.enrolment is not None:
            self.enrolment.answered(answer)

    def _enrolment_door(self, configuration: Configuration) -> EnrolmentDoor | None:
        settings = configuration.agent_server.enrolment
        if not settings.enabled:
            return None
        host, port = split_address(settings.bind_address)
        return EnrolmentDoor(
            settings=EnrolmentSettings(host, port, self.credentials.for_enrolling, self.credentials.identity),
            authorities=lambda: self.trustees.checked,
            send=self.link.put,
            counters=self.counters,
        )

    async def _renew_link(self) -> None:
        self.link.renew()

    async def _run_link(self) -> None:
        await self.link.run(self.router.backend_frame, self.router.announcements)


def _registry(configuration: Configuration) -> Registry:
    settings = configuration.agent_registry
    return Registry(
        file=settings.persistence.file if settings.persistence.enabled else None,
        agent_timeout_s=settings.agent_timeout_secs,
        cleanup_interval_s=settings.cleanup_interval_secs,
    )


def _buffer(configuration: Configuration, counters: Counters) -> Buffer:
    settings = configuration.buffer
    folder = settings.path if settings.enabled else None
    return Buffer(folder=folder, max_bytes=settings.max_size_mb * 1024 * 1024, counters=counters)


def _metrics(configuration: Configuration, instruments: Instruments) -> MetricsServer | None:
    settings = configuration.metrics
    if not settings.enabled:
        return None
    host, port = split_address(settings.bind_address)
    collector = GatewayCollector(instruments, gateway_id=configuration.gateway.id, zone=configuration.gateway.zone)
    return metrics_server(collector, instruments, host=host, port=port, path=settings.path)


def _dialler(configuration: Configuration, credentials: Credentials) -> Dialler:
    settings = configuration.backend_connection
    return Dialler(
        urls=[with_default_path(url, DEFAULT_PATH) for url in (settings.url, *settings.fallback_urls)],
        tls_context=credentials.for_backend,
        verify_peer=verify_backend,
        reconnect=settings.reconnect,
        keepalive=Keepalive(settings.heartbeat_interval_secs, settings.heartbeat_interval_secs / 2),
    )


def _hello(configuration: Configuration) -> GatewayRegister:
    settings = configuration.gateway
    labels = dict(settings.labels)
    if settings.datacenter:
        labels.setdefault("datacenter", settings.datacenter)
    return GatewayRegister(gateway_id=settings.id, zone=settings.zone, labels=labels, version=__version__)


def _server_settings(
    configuration: Configuration, credentials: Credentials, registration_timeout_s: float
) -> ServerSettings:
    host, port = split_address(configuration.agent_server.bind_address)
    return ServerSettings(
        host=host,
        port=port,
        tls_context=credentials.for_agents,
        organization_id=credentials.identity.organization_id,
        max_connections=configuration.agent_server.max_connections,
        agent_timeout_s=configuration.agent_registry.agent_timeout_secs,
        registration_timeout_s=registration_timeout_s,
    )
