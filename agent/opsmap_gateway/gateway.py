"""Putting a gateway together from its configuration, and the order in which it starts and stops."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from opsmap_daemon import lifecycle, tls
from opsmap_daemon.configuration import split_address
from opsmap_daemon.connection import Dialler, Keepalive, with_default_path
from opsmap_gateway import __version__
from opsmap_gateway.agent_server import AgentServer, ServerSettings
from opsmap_gateway.backend_link import DEFAULT_PATH, BackendLink
from opsmap_gateway.certificates import client_context, own_identity, server_context, verify_backend
from opsmap_gateway.configuration import Configuration
from opsmap_gateway.counters import Counters
from opsmap_gateway.heartbeats import Heartbeats
from opsmap_gateway.outbox import Quota
from opsmap_gateway.registry import Registry
from opsmap_gateway.router import Router
from opsmap_protocol.messages import GatewayRegister

_REGISTRATION_TIMEOUT_S = 10.0
_OTHER_FILES = 128
"""Everything that is no connection of a registered agent: some who knock, the backend, logs, the event loop."""


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
        identity = own_identity(configuration)
        self._max_connections = configuration.agent_server.max_connections
        waiting = Quota(configuration.routing.command_queue_size)
        self.counters = Counters()
        self.registry = _registry(configuration)
        self.link = BackendLink(dialler=_dialler(configuration), hello=_hello(configuration), counters=self.counters)
        self.heartbeats = Heartbeats(
            gateway_id=identity.name,
            interval_s=configuration.aggregation.heartbeat_aggregation_secs,
            forward=self.link.put,
            counters=self.counters,
        )
        self.router = Router(
            gateway_id=identity.name,
            registry=self.registry,
            link=self.link,
            heartbeats=self.heartbeats,
            counters=self.counters,
            waiting=waiting,
        )
        self.server = AgentServer(
            settings=_server_settings(configuration, identity.organization_id, registration_timeout_s),
            router=self.router,
            registry=self.registry,
            counters=self.counters,
            waiting=waiting,
        )

    async def run(self) -> None:
        """Serve until cancelled.

        It stops in another order than it starts. First the backend link closes, so that the backend sees one
        gateway leave and not each of its agents; then the registry is written, with all agents still in it;
        then the agents are sent away, and look for another gateway.

        Raises:
            OSError: the address to listen on cannot be had.
        """
        tls.limit_read_buffer()
        lifecycle.allow_open_files(self._max_connections + _OTHER_FILES)
        self.registry.load()
        async with self.server:
            try:
                async with asyncio.TaskGroup() as tasks:
                    for part in self._parts():
                        tasks.create_task(part())
            finally:
                self.registry.save()

    def _parts(self) -> list[Callable[[], Coroutine[Any, Any, None]]]:
        return [self._run_link, self.heartbeats.run, self.registry.run, self.counters.run]

    async def _run_link(self) -> None:
        await self.link.run(self.router.backend_frame, self.router.announcements)


def _registry(configuration: Configuration) -> Registry:
    settings = configuration.agent_registry
    return Registry(
        file=settings.persistence.file if settings.persistence.enabled else None,
        agent_timeout_s=settings.agent_timeout_secs,
        cleanup_interval_s=settings.cleanup_interval_secs,
    )


def _dialler(configuration: Configuration) -> Dialler:
    settings = configuration.backend_connection
    return Dialler(
        urls=[with_default_path(url, DEFAULT_PATH) for url in (settings.url, *settings.fallback_urls)],
        tls_context=client_context(configuration),
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
    configuration: Configuration, organization_id: str, registration_timeout_s: float
) -> ServerSettings:
    host, port = split_address(configuration.agent_server.bind_address)
    return ServerSettings(
        host=host,
        port=port,
        tls_context=server_context(configuration),
        organization_id=organization_id,
        max_connections=configuration.agent_server.max_connections,
        agent_timeout_s=configuration.agent_registry.agent_timeout_secs,
        registration_timeout_s=registration_timeout_s,
    )
