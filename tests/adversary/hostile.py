"""A gateway that was taken over, between the real link consumer and a real agent.

It holds a valid certificate and key, and does what a test tells it with whatever passes through. Everything else is
real: the agent with its journal and shim, the backend's delivery with its database, the sealed frames between them.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from channels.db import database_sync_to_async
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from apps.gateways.models import Agent as AgentRow
from apps.gateways.models import Command
from apps.gateways.pki import ensure_authorities, ensure_leaf
from apps.gateways.tests.factories import SYNC, queue
from apps.gateways.tests.sockets import Communicator, LinkPki, connected
from opsmap_agent.agent import Agent
from opsmap_agent.configuration import Buffer, Configuration, DetachedExecution, Gateway, Scripts, Tls
from opsmap_daemon import tls
from opsmap_daemon.backoff import Reconnect
from opsmap_protocol import codec
from opsmap_protocol.enums import PeerRole
from opsmap_protocol.identity import Identity
from opsmap_protocol.messages import AgentOffline, AgentOnline, Registered

DEADLINE_S = 10.0

Meddling = Callable[[dict[str, Any], str], list[Any]]
"""What becomes of a frame that passes: frames to send in its place, as texts or objects."""


def honestly(_: dict[str, Any], frame: str) -> list[Any]:
    return [frame]


async def until(condition: Callable[[], Any], deadline_s: float = DEADLINE_S) -> None:
    async with asyncio.timeout(deadline_s):
        while not condition():  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.005)


@dataclass
class HostileGateway:
    """Carries frames between one agent at a time and the backend; `to_agent` and `to_backend` may meddle with them."""

    gateway_id: str
    backend: Communicator
    port: int = 0
    to_agent: Meddling = honestly
    to_backend: Meddling = honestly
    is_announced: bool = True
    """Whether it tells the backend of the agents that come."""

    from_agent: list[dict[str, Any]] = field(default_factory=list)
    from_backend: list[dict[str, Any]] = field(default_factory=list)
    agent: ServerConnection | None = None
    session_id: str = ""

    async def serve_agent(self, socket: ServerConnection) -> None:
        self.agent = socket
        self.session_id = session_id = f"s-{uuid.uuid4()}"
        register = json.loads(await socket.recv())
        self.from_agent.append(register)
        await socket.send(codec.encode(Registered(session_id, datetime.now(UTC))))
        if self.is_announced:
            await self.tell_backend(AgentOnline(self.gateway_id, session_id, register))
        with suppress(ConnectionClosed):
            while True:
                frame = str(await socket.recv())
                data = json.loads(frame)
                self.from_agent.append(data)
                for each in self.to_backend(data, frame):
                    await self.tell_backend(each)
        if self.agent is socket:
            self.agent = None
        await self.tell_backend(AgentOffline(self.gateway_id, register["agent_id"], session_id, "connection lost"))

    async def carry_down(self) -> None:
        """From the backend to the agent, until cancelled."""
        while True:
            output = await self.backend.output_queue.get()
            if output["type"] == "websocket.close":
                raise AssertionError(f"the backend has closed the link: {output}")
            data = json.loads(output["text"])
            self.from_backend.append(data)
            if "target_agent" in data:
                for each in self.to_agent(data, output["text"]):
                    await self.tell_agent(each)

    async def tell_agent(self, frame: Any) -> None:
        if self.agent is not None:
            with suppress(ConnectionClosed):
                await self.agent.send(frame if isinstance(frame, str) else codec.encode(frame))

    async def tell_backend(self, frame: Any) -> None:
        await self.backend.send_to(frame if isinstance(frame, str) else codec.encode(frame))

    def heard(self, kind: str) -> list[dict[str, Any]]:
        """What the agent has said of that kind."""
        return [frame for frame in self.from_agent if frame["type"] == kind]

    def sent(self, kind: str) -> list[dict[str, Any]]:
        """What the backend has sent of that kind."""
        return [frame for frame in self.from_backend if frame["type"] == kind]


@dataclass
class Place:
    """An organization's PKI and folders, from which agents and gateways are made."""

    pki: LinkPki
    organization: Any
    folder: Path

    def __post_init__(self) -> None:
        self.marks.touch()
        script = self.folder / "mark.sh"
        # One short write in append mode: lines of scripts that run at once do not mix.
        script.write_text(f'#!/bin/sh\necho "$1" >> {self.marks}\nexit "${{2:-0}}"\n')
        script.chmod(0o700)

    @property
    def marks(self) -> Path:
        return self.folder / "marks"

    def executed(self) -> list[str]:
        """What the host has really done, in order."""
        return self.marks.read_text().split()

    def _leaf(self, role: PeerRole, name: str, hosts: list[str]) -> tuple[Path, Path]:
        folder, authority = self.pki.folder / "leaf", ensure_authorities(self.pki.folder / "ca")[role]
        uri = Identity(str(self.organization.pk), role, name).uri
        stem = f"{self.organization.slug}-{role}-{name}"
        ensure_leaf(folder, stem, authority, uri=uri, hosts=hosts, seals=role is PeerRole.AGENT)
        return folder / f"{stem}.crt", folder / f"{stem}.key"

    @asynccontextmanager
    async def gateway(self, name: str = "gw-1", **settings: Any) -> AsyncIterator[HostileGateway]:
        """A gateway with a registered certificate and an open link. Honest, until a test changes it."""
        pem = await database_sync_to_async(self.pki.gateway_pem)(self.organization, name)
        cert, key = self._leaf(PeerRole.GATEWAY, f"{name}.tls", ["localhost"])
        context = tls.server_context(cert, key, self.pki.folder / "ca" / "agent.crt")
        async with connected(pem, name) as communicator:
            gateway = HostileGateway(name, communicator, **settings)
            options: dict[str, Any] = {"ssl": context, "compression": None, "close_timeout": 0.5}
            async with serve(gateway.serve_agent, "127.0.0.1", 0, **options) as server:
                gateway.port = server.sockets[0].getsockname()[1]
                carrying = asyncio.create_task(gateway.carry_down())
                try:
                    yield gateway
                    if carrying.done():
                        carrying.result()
                finally:
                    carrying.cancel()
                    await asyncio.wait([carrying])

    @asynccontextmanager
    async def host(
        self, *gateways: HostileGateway, name: str = "srv-1", is_waited_for: bool = True
    ) -> AsyncIterator[Host]:
        """A running agent, by default one that the backend sees."""
        agent = Agent(self._configuration(name, gateways))
        running = asyncio.create_task(agent.run())
        host = Host(self, name, agent, running)
        try:
            if is_waited_for:
                await host.until_online()
            yield host
            assert not running.done(), "the agent has ended by itself"
        finally:
            running.cancel()
            await asyncio.wait([running])

    def _configuration(self, name: str, gateways: tuple[HostileGateway, ...]) -> Configuration:
        cert, key = self._leaf(PeerRole.AGENT, name, [])
        first, *others = [f"wss://localhost:{gateway.port}/agent/" for gateway in gateways]
        authorities = self.pki.folder / "ca"
        return Configuration(
            gateway=Gateway(url=first, fallback_urls=others, reconnect=Reconnect(initial_delay_ms=20, max_delay_ms=50)),
            tls=Tls(
                cert_file=cert,
                key_file=key,
                ca_file=authorities / "gateway.crt",
                backend_ca_file=authorities / "backend.crt",
            ),
            scripts=Scripts(allowed_paths=[self.folder]),
            detached_execution=DetachedExecution(log_dir=self.folder / name / "detached"),
            buffer=Buffer(path=self.folder / name / "buffer"),
        )


@dataclass
class Host:
    """A real agent, and what the backend knows of it."""

    place: Place
    name: str
    agent: Agent
    running: asyncio.Task[None]

    async def row(self) -> AgentRow | None:
        rows = AgentRow.objects.filter(organization_id=self.place.organization.pk, agent_id=self.name)
        return await rows.afirst()

    async def is_online(self) -> bool:
        row = await self.row()
        return row is not None and row.is_online

    async def until_online(self) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not await self.is_online():  # noqa: ASYNC110 - the database tells nobody
                await asyncio.sleep(0.01)

    async def ask(self, mark: str, exit_code: int = 0, **changes: Any) -> Command:
        """Queue a command that leaves `mark` on the host."""
        spec = {"type": "script", "path": str(self.place.folder / "mark.sh"), "args": [mark, str(exit_code)]}
        row = await self.row()
        assert row is not None
        return await database_sync_to_async(queue)(row, **{"spec": spec, "execution": SYNC} | changes)

    async def end_of(self, command: Command, deadline_s: float = DEADLINE_S) -> str:
        """The state in which the backend sees the command end."""
        async with asyncio.timeout(deadline_s):
            while True:
                await command.arefresh_from_db()
                if command.finished_at is not None:
                    return str(command.state)
                await asyncio.sleep(0.01)


async def state_of(command: Command) -> str:
    await command.arefresh_from_db()
    return str(command.state)
