"""The backend's end of a gateway's socket.

Four tasks share a connection: the consumer itself reads frames into a bounded inbox, `_ingest` stores them in batches,
`_acknowledge` tells agents of it, `_dispatch` sends what is due, woken by hints and by itself every second.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any
from weakref import WeakSet

from channels.consumer import get_handler_name
from channels.generic.websocket import AsyncWebsocketConsumer
from cryptography import x509
from django.conf import settings

from apps.gateways.access import get_gateway_by_certificate, is_gateway_revoked
from apps.gateways.actions import sessions
from apps.gateways.actions.certificates import record_certificate
from apps.gateways.dispatch import error_frame, gateway_group
from apps.gateways.exceptions import LinkRefusedError, PkiError
from apps.gateways.link.database import LinkDatabase
from apps.gateways.link.identity import Watch
from apps.gateways.link.inbound import Inbound
from apps.gateways.link.inbox import Inbox
from apps.gateways.link.outbound import Outbound
from apps.gateways.link.peer import Peer
from apps.gateways.models import Gateway
from apps.gateways.pki import fingerprint, gateway_of_peer
from apps.gateways.sealing import current_signer
from opsmap_daemon.sparing import SparingLog
from opsmap_protocol import codec, messages
from opsmap_protocol.errors import CloseCode, FatalError, ProtocolError
from opsmap_protocol.session import BACKEND_OF_GATEWAY, Phase, Session

logger = logging.getLogger(__name__)

TICK_S = 1.0
REST_INTERVAL_S = 0.2
ACK_INTERVAL_S = 0.5
"""Nobody waits for an acknowledgement: agents only forget by it. One for each event would be a frame to seal, carry and
check for each event."""

REGISTER_TIMEOUT_S = 10.0
SEND_TIMEOUT_S = 10.0
"""A gateway that does not read for so long is given up: what it was sent comes again by another way."""

GOODBYE_TIMEOUT_S = 1.0
INTERNAL_ERROR = 1011


_registered: WeakSet[LinkConsumer] = WeakSet()
"""The gateways that are connected to this process."""


async def say_goodbye(reason: str) -> None:
    """Tell the gateways of this event loop that this end stops soon. One that does not read is not waited for."""
    here = [consumer for consumer in _registered if consumer.loop is asyncio.get_running_loop()]
    await asyncio.gather(*(consumer.leave(reason) for consumer in here), return_exceptions=True)


class LinkConsumer(AsyncWebsocketConsumer):  # type: ignore[misc]  # Channels has no types
    """One gateway's connection. Only what TLS verified says who it is."""

    has_begun = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            # After a fault no `disconnect` comes, and the gateway would seem connected.
            await self._clean_up("a fault")

    async def connect(self) -> None:
        self.gateway: Gateway | None = None
        self.peer: Peer | None = None
        self.session = Session(BACKEND_OF_GATEWAY)
        self.database = LinkDatabase()
        self.inbox = Inbox()
        self.wake = asyncio.Event()
        self.is_rest_due = False
        self.tasks: list[asyncio.Task[None]] = []
        self.loop = asyncio.get_running_loop()
        self.log = SparingLog(logger, logging.WARNING)
        self.has_begun = True
        await self.accept()
        try:
            self.gateway, self.certificate = await self.database.run(self._authenticate)
        except LinkRefusedError as error:
            logger.warning("link refused: %s", error)
            await self.close(error.close_code)
            return
        self.tasks.append(asyncio.create_task(self._close_unless_registered()))

    async def dispatch(self, message: dict[str, Any]) -> None:
        """As Channels does it, but for looking after Django's connections before each frame.

        That is a hop to a thread and back, a quarter of this server's time under load. Frames do not touch them: the
        database is used by `LinkDatabase`, which looks after its own.
        """
        await getattr(self, get_handler_name(message))(message)

    @property
    def _server(self) -> dict[str, Callable[[], None]]:
        """What the link server lets us do with the connection; other servers have nothing of that kind."""
        ways: dict[str, Callable[[], None]] = self.scope.get("extensions", {}).get("opsmap.link") or {}
        return ways

    def _authenticate(self) -> tuple[Gateway, x509.Certificate]:
        """The gateway that TLS verified, and its certificate. Raises LinkRefusedError."""
        tls = self.scope.get("extensions", {}).get("tls") or {}
        chain = tls.get("client_cert_chain") or []
        if not chain:
            raise LinkRefusedError("no client certificate; gateways connect to the link server")
        identity, certificate = gateway_of_peer(chain[0])
        shown = fingerprint(certificate)
        gateway = get_gateway_by_certificate(identity.organization_id, identity.name, shown)
        if gateway is None:
            raise LinkRefusedError(f"gateway {identity.name} is unknown or has another certificate")
        # It may have been registered before certificates were recorded, and nothing else can be revoked.
        record_certificate(identity, certificate)
        if is_gateway_revoked(gateway.pk, shown):
            raise LinkRefusedError(f"gateway {identity.name} or its certificate was revoked", CloseCode.REVOKED)
        return gateway, certificate

    async def _close_unless_registered(self) -> None:
        await asyncio.sleep(REGISTER_TIMEOUT_S)
        if self.peer is None:
            await self.close(CloseCode.UNAUTHENTICATED)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        if self.gateway is None or self.session.phase is Phase.CLOSED:
            # It is told to go; what it still says, perhaps a flood, is not looked at.
            return
        frame = text_data if text_data is not None else bytes_data or b""
        try:
            data = self.session.read(frame)
            if self.peer is None:
                await self._register(self.session.understand(data))
            else:
                # A full inbox stops the reading here, and through uvicorn the sender.
                await self.inbox.put(data, len(frame))
        except FatalError as error:
            await self._give_up(error)
        except ProtocolError as error:
            self.log.write("frame of %s refused: %s", self.gateway.gateway_id, error)
            await self._send_all([error_frame(error.code, str(error))])

    async def _register(self, hello: messages.GatewayRegister) -> None:
        assert self.gateway is not None
        if hello.gateway_id != self.gateway.gateway_id:
            reason = f"the certificate is of {self.gateway.gateway_id}"
            raise FatalError(CloseCode.IDENTITY_MISMATCH, "identity_mismatch", reason)
        try:
            current_signer(settings.PKI_DIR / "leaf")
        except PkiError as error:
            logger.error("nothing can be sealed, so no gateway is of use: %s", error)
            await self.close(INTERNAL_ERROR)
            return
        session_id = await self.database.run(
            sessions.open_gateway_session,
            gateway=self.gateway,
            hello=hello,
            certificate_sha256=fingerprint(self.certificate),
        )
        self.peer = Peer(self.gateway, session_id, settings.PKI_DIR, self.certificate, self.session, self.database)
        await self.channel_layer.group_add(gateway_group(self.gateway.pk), self.channel_name)
        # It has said who it is: nobody who has not pushes it out any more.
        self._server.get("admit", lambda: None)()
        _registered.add(self)
        await self._send_all([codec.encode(messages.GatewayRegistered(str(session_id), self.session.version))])
        self.inbound, self.outbound = Inbound(self.peer), Outbound(self.peer)
        self.watch = Watch(self.peer, self.inbound.take_back)
        works = (self._ingest, self._acknowledge, self._dispatch)
        self.tasks += [asyncio.create_task(self._run(work)) for work in works]
        logger.info("gateway %s is connected", self.gateway.gateway_id)

    async def _give_up(self, error: FatalError) -> None:
        """The frame was such that the session cannot go on: say why, and end it."""
        assert self.gateway is not None
        logger.warning("the link to %s ends: %s", self.gateway.gateway_id, error)
        self.session.close()
        await self._send_all([error_frame(error.code, str(error))])
        await self.close(error.close_code)

    async def _run(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """A fault of ours must not leave a connection that looks alive: it ends, and the gateway comes anew.

        Nothing of what was not committed is acknowledged, so agents send it again.
        """
        assert self.gateway is not None
        try:
            await work()
        except FatalError as error:
            await self._give_up(error)
        except TimeoutError:
            logger.warning("the link to %s ends: it does not read", self.gateway.gateway_id)
            # A word of farewell would wait for it to read, too.
            if abort := self._server.get("abort"):
                abort()
            else:
                await self.close(INTERNAL_ERROR)
        except Exception:
            logger.exception("the link to %s failed", self.gateway.gateway_id)
            await self.close(INTERNAL_ERROR)

    async def _send_all(self, frames: Sequence[str]) -> None:
        """Raises TimeoutError if the gateway does not read."""
        async with asyncio.timeout(SEND_TIMEOUT_S):
            for frame in frames:
                await self.send(frame)

    async def leave(self, reason: str) -> None:
        """This end stops soon: the gateway shall look for another one."""
        async with asyncio.timeout(GOODBYE_TIMEOUT_S):
            await self.send(codec.encode(messages.GoAway(reason)))

    # Hints

    async def link_wake(self, event: dict[str, Any]) -> None:
        """There is something to send."""
        self.wake.set()

    async def link_ask(self, event: dict[str, Any]) -> None:
        """Agents have to be asked about jobs and commands: the safety net says which."""
        if self.peer is not None:
            await self._send_all(self.outbound.questions(event["jobs"], event["probes"]))

    # The tasks

    async def _ingest(self) -> None:
        """Store what comes in, in the order it came: alone when idle, in batches under load."""
        assert self.peer is not None
        while True:
            batch = await self.inbox.take()
            await self._send_all(await self.inbound.process(batch))
            if self.peer.doubtful:
                self.is_rest_due = True
            if self.peer.doubtful or self.peer.links.has_scarce:
                self.wake.set()

    async def _acknowledge(self) -> None:
        """Say what is stored, once for all that an agent has told meanwhile."""
        while True:
            await asyncio.sleep(ACK_INTERVAL_S)
            await self._send_all(await self.inbound.acknowledge())

    async def _dispatch(self) -> None:
        """Send what is due. A lost hint costs at most one tick."""
        assert self.peer is not None
        loop = asyncio.get_running_loop()
        rest_due_at = loop.time()
        # Whom to trust it hears before anything else.
        await self._send_all(await self.watch.look())
        while True:
            try:
                async with asyncio.timeout(TICK_S):
                    await self.wake.wait()
            except TimeoutError:
                pass  # nobody called: look anyway
            self.wake.clear()
            await self._send_all(await self.watch.look())
            if self.is_rest_due:
                self.is_rest_due = False
                await self._send_all(await self.outbound.next_news())
            frames, has_more = await self.outbound.next_commands()
            await self._send_all(frames)
            self.is_rest_due = bool(self.peer.doubtful)
            if has_more or self.is_rest_due:
                self.wake.set()
            # Commands first, as they are what people wait for; the rest when there are none, and now and then.
            if not frames or loop.time() >= rest_due_at:
                await self._send_all(await self.outbound.next_news())
                await self._send_all(await self.inbound.challenge_again())
                rest_due_at = loop.time() + REST_INTERVAL_S

    async def disconnect(self, code: int) -> None:
        await self._clean_up(code)

    async def _clean_up(self, code: object) -> None:
        if not self.has_begun:
            return
        self.has_begun = False
        self.session.close()
        _registered.discard(self)
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        # What was claimed at the last moment is released below.
        await self.database.settle()
        if self.gateway is not None and self.peer is not None:
            await self.channel_layer.group_discard(gateway_group(self.gateway.pk), self.channel_name)
            await self.database.run(
                sessions.close_gateway_session, gateway=self.gateway, session_id=self.peer.session_id
            )
            logger.info("gateway %s is gone (%s)", self.gateway.gateway_id, code)
        await self.database.close()
