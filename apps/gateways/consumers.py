"""The backend's end of a gateway's socket: dispatcher of commands, ingester of reports.

Three tasks share a connection: the consumer itself reads frames into a bounded inbox, `_ingest` stores them in batches,
`_dispatch` sends what is due, woken by hints and by itself every second.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncWebsocketConsumer
from django.db import DataError

from apps.gateways.access import get_gateway_by_certificate
from apps.gateways.actions import commands, reports, sessions
from apps.gateways.dispatch import (
    error_frame,
    gateway_group,
    health_checks_frame,
    read_frame,
    registered_frame,
)
from apps.gateways.exceptions import LinkRefusedError
from apps.gateways.models import Agent, Gateway
from apps.gateways.pki import gateway_of_peer
from opsmap_protocol import PROTOCOL_VERSION, messages
from opsmap_protocol.errors import CloseCode, ProtocolError

logger = logging.getLogger(__name__)

INBOX_FRAMES = 1000
BATCH_FRAMES = 100
TICK_S = 1.0
RECEIPT_PAUSE_S = 0.004
REST_INTERVAL_S = 0.2
REGISTER_TIMEOUT_S = 10.0

T = TypeVar("T")


async def _in_database(function: Callable[..., T], /, **arguments: Any) -> T:
    """Run in a pool thread: one slow gateway must not hold up the others, as one shared thread would."""
    result: T = await database_sync_to_async(function, thread_sensitive=False)(**arguments)
    return result


class LinkConsumer(AsyncWebsocketConsumer):  # type: ignore[misc]  # Channels has no types
    """One gateway's connection. Only what TLS verified says who it is."""

    async def connect(self) -> None:
        self.gateway: Gateway | None = None
        self.session_id: uuid.UUID | None = None
        self.inbox: asyncio.Queue[Any] = asyncio.Queue(INBOX_FRAMES)
        self.wake = asyncio.Event()
        self.tasks: list[asyncio.Task[None]] = []
        # Health checks told to each agent by this connection, as revisions.
        self.told_checks: dict[str, str] = {}
        await self.accept()
        try:
            self.gateway = await _in_database(self._authenticate)
        except LinkRefusedError as error:
            logger.warning("link refused: %s", error)
            await self.close(CloseCode.UNAUTHENTICATED)
            return
        self.tasks.append(asyncio.create_task(self._close_unless_registered()))

    def _authenticate(self) -> Gateway:
        tls = self.scope.get("extensions", {}).get("tls") or {}
        chain = tls.get("client_cert_chain") or []
        if not chain:
            raise LinkRefusedError("no client certificate; gateways connect to the link server")
        identity, fingerprint = gateway_of_peer(chain[0])
        gateway = get_gateway_by_certificate(identity.organization_id, identity.name, fingerprint)
        if gateway is None:
            raise LinkRefusedError(f"gateway {identity.name} is unknown or has another certificate")
        return gateway

    async def _close_unless_registered(self) -> None:
        await asyncio.sleep(REGISTER_TIMEOUT_S)
        if self.session_id is None:
            await self.close(CloseCode.UNAUTHENTICATED)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        if self.gateway is None:
            return
        try:
            message = read_frame(text_data or bytes_data or "")
        except ProtocolError as error:
            logger.warning("frame of %s refused: %s", self.gateway.gateway_id, error)
            await self.send(error_frame(error.code, str(error)))
            return
        if isinstance(message, messages.GatewayRegister):
            await self._register(message)
        elif self.session_id is not None:
            # A full inbox stops the reading here, and through uvicorn the sender.
            await self.inbox.put(message)

    async def _register(self, hello: messages.GatewayRegister) -> None:
        assert self.gateway is not None
        if hello.protocol_version != PROTOCOL_VERSION:
            reason = f"this backend speaks protocol {PROTOCOL_VERSION}, the gateway {hello.protocol_version}"
            await self.send(error_frame("version_unsupported", reason))
            await self.close(CloseCode.VERSION_UNSUPPORTED)
            return
        if hello.gateway_id != self.gateway.gateway_id:
            await self.close(CloseCode.IDENTITY_MISMATCH)
            return
        if self.session_id is not None:
            return
        self.session_id = await _in_database(sessions.open_gateway_session, gateway=self.gateway, hello=hello)
        await self.channel_layer.group_add(gateway_group(self.gateway.pk), self.channel_name)
        await self.send(registered_frame(self.session_id))
        self.tasks += [asyncio.create_task(self._run(work)) for work in (self._ingest, self._dispatch)]
        logger.info("gateway %s is connected", self.gateway.gateway_id)

    async def _run(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """A fault of ours must not leave a connection that looks alive: it ends, and the gateway comes anew.

        Nothing of what was not committed is acknowledged, so agents send it again.
        """
        assert self.gateway is not None
        try:
            await work()
        except Exception:
            logger.exception("the link to %s failed", self.gateway.gateway_id)
            await self.close(1011)

    async def link_wake(self, event: dict[str, Any]) -> None:
        """A hint: there is something to send."""
        self.wake.set()

    async def link_send(self, event: dict[str, Any]) -> None:
        """Frames made elsewhere, such as the polls of the safety net."""
        for frame in event["frames"]:
            await self.send(frame)

    async def _ingest(self) -> None:
        """Store what comes in, in the order it came: alone when idle, in batches under load."""
        while True:
            batch = [await self.inbox.get()]
            if isinstance(batch[0], messages.CommandReceived) and self.inbox.empty():
                # A quick command's result is right behind its receipt: one transaction instead of two.
                await asyncio.sleep(RECEIPT_PAUSE_S)
            while len(batch) < BATCH_FRAMES and not self.inbox.empty():
                batch.append(self.inbox.get_nowait())
            await self._ingest_in_order(batch)

    async def _ingest_in_order(self, batch: list[Any]) -> None:
        pending: list[reports.Report] = []
        for message in batch:
            if isinstance(message, reports.Report):
                pending.append(message)
            else:
                await self._store(pending)
                pending = []
                try:
                    await self._apply_session_message(message)
                except DataError:
                    assert self.gateway is not None
                    logger.exception("a message of %s cannot be stored", self.gateway.gateway_id)
        await self._store(pending)

    async def _store(self, pending: list[reports.Report]) -> None:
        """Store reports together. One that no column can hold is left out: its agent must not stop a whole zone."""
        if not pending:
            return
        assert self.gateway is not None
        try:
            frames = await _in_database(reports.ingest_reports, gateway=self.gateway, reports=pending)
        except DataError:
            if len(pending) > 1:
                for report in pending:
                    await self._store([report])
            else:
                logger.exception("a report through %s cannot be stored", self.gateway.gateway_id)
            return
        for frame in frames:
            await self.send(frame)

    async def _apply_session_message(self, message: Any) -> None:
        assert self.gateway is not None
        match message:
            case messages.AgentOnline():
                await self.send(await _in_database(sessions.open_agent_session, gateway=self.gateway, online=message))
                self.told_checks.pop(message.agent.agent_id, None)
                self.wake.set()
            case messages.AgentOffline():
                await _in_database(sessions.close_agent_session, gateway=self.gateway, offline=message)
            case messages.AggregatedHeartbeat():
                await _in_database(sessions.record_heartbeats, gateway=self.gateway, heartbeats=message.agents)
            case messages.Error():
                logger.warning("%s reports: %s (%s)", self.gateway.gateway_id, message.reason, message.code)

    async def _dispatch(self) -> None:
        """Send what is due. A lost hint costs at most one tick."""
        assert self.gateway is not None
        assert self.session_id is not None
        loop = asyncio.get_running_loop()
        rest_due_at = loop.time()
        while True:
            try:
                async with asyncio.timeout(TICK_S):
                    await self.wake.wait()
            except TimeoutError:
                pass  # nobody called: look anyway
            self.wake.clear()
            session = {"gateway_id": self.gateway.pk, "session_id": self.session_id}
            frames = await _in_database(commands.claim_commands, **session)
            for frame in frames:
                await self.send(frame)
            if len(frames) >= commands.CLAIM_BATCH:
                self.wake.set()
            # Commands first, as they are what people wait for; the rest when there are none, and now and then.
            if not frames or loop.time() >= rest_due_at:
                await self._dispatch_rest(session)
                rest_due_at = loop.time() + REST_INTERVAL_S

    async def _dispatch_rest(self, session: dict[str, uuid.UUID]) -> None:
        """Cancellations and changed health checks."""
        assert self.gateway is not None
        for frame in await _in_database(commands.claim_cancellations, **session):
            await self.send(frame)
        for frame in await _in_database(_changed_checks, gateway=self.gateway, told=self.told_checks):
            await self.send(frame)

    async def disconnect(self, code: int) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        if self.gateway is not None and self.session_id is not None:
            await self.channel_layer.group_discard(gateway_group(self.gateway.pk), self.channel_name)
            await _in_database(sessions.close_gateway_session, gateway=self.gateway, session_id=self.session_id)
            logger.info("gateway %s is gone (%s)", self.gateway.gateway_id, code)


def _changed_checks(*, gateway: Gateway, told: dict[str, str]) -> list[str]:
    """The health checks of each agent that this connection has not told it, or that changed since."""
    online = Agent.objects.filter(gateway=gateway, session_id__isnull=False)
    revisions = online.values_list("agent_id", "health_checks_revision")
    changed = [agent_id for agent_id, revision in revisions if told.get(agent_id) != revision]
    frames = []
    for agent in online.filter(agent_id__in=changed) if changed else ():
        frames.append(health_checks_frame(agent))
        told[agent.agent_id] = agent.health_checks_revision
    return frames
