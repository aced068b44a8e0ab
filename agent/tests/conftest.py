"""What the tests of agent, gateway and protocol share: ports, and peers that follow a script.

Everything is real but the peers' wits: certificates, TLS, sockets, WebSockets.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.connection import Connection
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from opsmap_agent.agent import Agent
from opsmap_agent.checks.probes import Prober
from opsmap_agent.commands.sync import SyncRunner
from opsmap_agent.configuration import Buffer as JournalPlace
from opsmap_agent.configuration import Configuration as AgentConfiguration
from opsmap_agent.configuration import DetachedExecution, Discovery, Scripts, Watchdog
from opsmap_agent.configuration import Gateway as AgentGateway
from opsmap_agent.configuration import Tls as AgentTls
from opsmap_agent.jobs.folder import JobFolder
from opsmap_agent.journal.journal import Journal
from opsmap_agent.native import NativeContext
from opsmap_agent.rules.policy import Policy
from opsmap_agent.rules.reach import Reach
from opsmap_daemon import tls
from opsmap_daemon.backoff import Reconnect
from opsmap_gateway.configuration import (
    AgentRegistry,
    AgentServer,
    BackendConnection,
    ClientTls,
    Configuration,
    GatewaySection,
    Metrics,
    Persistence,
    ServerTls,
)
from opsmap_gateway.configuration import Buffer as GatewayBuffer
from opsmap_gateway.gateway import Gateway
from opsmap_protocol import MAX_FRAME_BYTES, PROTOCOL_VERSION
from opsmap_protocol.codec import encode
from opsmap_protocol.messages import (
    SEALED_BY_AGENT,
    SEALED_BY_BACKEND,
    Challenge,
    Command,
    EventsAck,
    GatewayRegistered,
    OsInfo,
    Register,
    Registered,
    Resume,
    Trust,
)
from opsmap_protocol.specs import CommandSpec, ExecutionMode, SyncMode
from opsmap_trust.keys import VerifyingKey
from opsmap_trust.seals import Sealer, check_seal
from testing_natives import RunNative
from testing_pki import Leaf, Pki


@pytest.fixture(scope="session", autouse=True)
def _usual_umask() -> Iterator[None]:
    """An agent runs no script that its group may change; some people's umask makes all files like that."""
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture
def free_port() -> int:
    """A port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


DEADLINE_S = 10.0
"""How long a test waits for something that should come at once: long, because nobody waits unless it fails."""


class Wire:
    """One end of a WebSocket in the hands of a test."""

    def __init__(self, socket: Connection) -> None:
        self.socket = socket

    async def send(self, message: Any) -> None:
        """A message of the protocol, or any text or bytes as they are."""
        await self.socket.send(message if isinstance(message, str | bytes) else encode(message))

    async def next(self, *expected: str) -> dict[str, Any]:
        """The next frame, which must be of that type (or one of those)."""
        data: dict[str, Any] = json.loads(await self.next_frame())
        assert data["type"] in expected, data
        return data

    async def next_frame(self) -> str | bytes:
        async with asyncio.timeout(DEADLINE_S):
            return await self.socket.recv()

    async def close_code(self) -> int | None:
        """Wait for the other side to close."""
        async with asyncio.timeout(DEADLINE_S):
            await self.socket.wait_closed()
        return self.socket.close_code


class ScriptedServer:
    """The listening end of a link: accepts whom TLS lets in, and leaves the rest to the test."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._arrivals: asyncio.Queue[Wire] = asyncio.Queue()

    async def accept(self) -> Wire:
        async with asyncio.timeout(DEADLINE_S):
            return await self._arrivals.get()

    async def serve(self, socket: ServerConnection) -> None:
        self._arrivals.put_nowait(Wire(socket))
        await socket.wait_closed()


@asynccontextmanager
async def _listen(leaf: Leaf, client_ca: Path, port: int = 0) -> AsyncIterator[ScriptedServer]:
    context = tls.server_context(leaf.cert, leaf.key, client_ca)
    scripted = ScriptedServer(port)
    options: dict[str, Any] = {"ssl": context, "compression": None, "close_timeout": 0.5, "max_size": MAX_FRAME_BYTES}
    async with serve(scripted.serve, "127.0.0.1", port, **options) as server:
        scripted.port = server.sockets[0].getsockname()[1]
        yield scripted


@asynccontextmanager
async def _dial(url: str, leaf: Leaf, ca: Path) -> AsyncIterator[Wire]:
    context = tls.client_context(leaf.cert, leaf.key, ca)
    async with connect(url, ssl=context, compression=None, proxy=None, close_timeout=0.5) as socket:
        yield Wire(socket)


Listen = Callable[..., AbstractAsyncContextManager[ScriptedServer]]
Dial = Callable[[str, Leaf, Path], AbstractAsyncContextManager[Wire]]


@pytest.fixture
def listen() -> Listen:
    """`async with listen(leaf, client_ca) as server`: a scripted server; a third argument asks for a port."""
    return _listen


@pytest.fixture
def dial() -> Dial:
    """`async with dial(url, leaf, ca) as wire`: a scripted client."""
    return _dial


# A gateway between a scripted backend and scripted agents

GATEWAY_ID = "gw-1"


@dataclass
class Zone:
    """A running gateway; `link` is the backend's end of its connection once it is greeted."""

    pki: Pki
    gateway: Gateway
    backend: ScriptedServer
    running: asyncio.Task[None]
    link: Wire = field(init=False)

    @property
    def url(self) -> str:
        return f"wss://localhost:{self.gateway.server.port}/agent/"

    @asynccontextmanager
    async def dial(self, leaf: Leaf) -> AsyncIterator[Wire]:
        """A connection that has said nothing yet."""
        async with _dial(self.url, leaf, self.pki.gateway_ca.ca) as wire:
            yield wire

    @asynccontextmanager
    async def agent(self, name: str, **fields: Any) -> AsyncIterator[Wire]:
        """An agent that has registered, with `fields` said of itself, and that the backend has heard of."""
        async with self.dial(self.pki.agent(name)) as wire:
            await wire.send(self.registration(name, **fields))
            registered = await wire.next("registered")
            online = await self.link.next("agent_online")
            assert online["session_id"] == registered["session_id"]
            yield wire

    async def greet(self) -> Wire:
        """Accept the gateway that is dialling, as a backend does."""
        self.link = await self.backend.accept()
        hello = await self.link.next("gateway_register")
        assert hello["gateway_id"] == GATEWAY_ID
        await self.link.send(GatewayRegistered(session_id="link-1"))
        return self.link

    async def stop(self) -> None:
        """Stop the gateway as a signal does, and wait for it."""
        self.running.cancel()
        await asyncio.wait([self.running])
        if not self.running.cancelled():
            self.running.result()

    @staticmethod
    async def until(condition: Callable[[], bool]) -> None:
        """Wait for what nothing announces."""
        async with asyncio.timeout(DEADLINE_S):
            while not condition():  # noqa: ASYNC110 - there is no event to wait for
                await asyncio.sleep(0.002)

    def registration(self, name: str, **fields: Any) -> str:
        """The sealed `register` of an agent; `fields` replace what it says."""
        return _registration(self.pki.agent(name), name, **fields)


def _registration(leaf: Leaf, name: str, protocol_version: int = PROTOCOL_VERSION, **fields: Any) -> str:
    said: dict[str, Any] = {
        "agent_id": name,
        "hostname": f"{name}.example",
        "os": OsInfo(os_type="linux", os_release="12", kernel="6.1", arch="x86_64"),
        "labels": {"tier": "data"},
        "capabilities": ["native"],
        "version": "0.1.0",
        "certificate": leaf.encoded(),
        "nonce": uuid.uuid4().hex,
        "protocol_version": protocol_version,
        "protocol_min": protocol_version,
    }
    return leaf.sealer("agent").seal(Register(**said | fields))


Registration = Callable[[str], str]


@pytest.fixture
def registration(pki: Pki) -> Registration:
    """`registration(name)`: the sealed first frame of an agent."""
    return lambda name: _registration(pki.agent(name), name)


OpenZone = Callable[..., AbstractAsyncContextManager[Zone]]


@pytest.fixture
def gateway_configuration(pki: Pki, tmp_path: Path) -> Configuration:
    """A gateway on a free port that dials nobody yet and comes back quickly."""
    leaf = pki.gateway(GATEWAY_ID)
    return Configuration(
        gateway=GatewaySection(id=GATEWAY_ID, zone="test"),
        agent_server=AgentServer(
            bind_address="127.0.0.1:0",
            tls=ServerTls(cert_file=leaf.cert, key_file=leaf.key, client_ca_file=pki.agent_ca.ca),
        ),
        backend_connection=BackendConnection(
            url="wss://localhost:1",
            tls=ClientTls(cert_file=leaf.cert, key_file=leaf.key, ca_file=pki.backend_ca.ca),
            reconnect=Reconnect(initial_delay_ms=10, max_delay_ms=20),
        ),
        agent_registry=AgentRegistry(persistence=Persistence(file=tmp_path / "registry.json")),
        buffer=GatewayBuffer(path=tmp_path / "buffer"),
        metrics=Metrics(enabled=False),
    )


@pytest.fixture
def open_zone(pki: Pki, gateway_configuration: Configuration) -> OpenZone:
    """`async with open_zone() as zone`; keyword arguments replace sections of the configuration."""

    @asynccontextmanager
    async def open_(registration_timeout_s: float = 10.0, **sections: Any) -> AsyncIterator[Zone]:
        async with _listen(pki.backend(), pki.gateway_ca.ca) as backend:
            base = gateway_configuration.backend_connection
            connection = replace(base, url=f"wss://localhost:{backend.port}")
            configuration = replace(gateway_configuration, backend_connection=connection, **sections)
            gateway = Gateway(configuration, registration_timeout_s=registration_timeout_s)
            zone = Zone(pki, gateway, backend, asyncio.create_task(gateway.run()))
            try:
                await zone.greet()
                yield zone
            finally:
                await zone.stop()

    return open_


# An agent under a scripted gateway

AGENT_ID = "srv-1"
_AGENT_DEADLINE_S = 8.0


class GatewaySide:
    """The gateway and backend of one agent in the hands of a test: gives commands, collects what comes back.

    What it says is sealed as the backend does it, and what the agent says has to be.
    """

    def __init__(self, server: ScriptedServer, pki: Pki) -> None:
        self.server = server
        self.signer = pki.signer()
        self.sealer: Sealer = self.signer.sealer("backend")
        self.registration: dict[str, Any] = {}
        self.presence: dict[str, Any] = {}
        self.token = ""
        self.events: list[dict[str, Any]] = []
        self.received: list[str] = []
        self.heartbeats: list[dict[str, Any]] = []
        self.replies: list[dict[str, Any]] = []
        self.discoveries: list[dict[str, Any]] = []
        self.wire: Wire
        self._agent_key: VerifyingKey = pki.agent(AGENT_ID).verifying_key()
        self._news = asyncio.Condition()
        self._reading: asyncio.Task[None] | None = None

    async def welcome(self, acked_seq: int | None = 0, incarnation: str | None = None) -> dict[str, Any]:
        """Accept the agent, begin the backend's session, and with `acked_seq` let it send its events.

        Gives its `presence`; its `register` is in `registration`.
        """
        await self.register()
        await self.challenge()
        if acked_seq is not None:
            await self.resume(acked_seq, incarnation)
        return self.presence

    async def register(self) -> dict[str, Any]:
        """Accept the agent as its gateway does; its `register`."""
        self.wire = await self.server.accept()
        self.registration = await self.wire.next("register")
        check_seal(self.registration, self._agent_key)
        await self.wire.send(Registered(session_id="s-1", server_time=datetime.now(UTC)))
        if self._reading is not None:
            self._reading.cancel()
        self._reading = asyncio.create_task(self._read(self.wire))
        return self.registration

    async def challenge(self) -> dict[str, Any]:
        """Begin a session as the backend does; the agent's `presence`."""
        self.token, self.presence = uuid.uuid4().hex, {}
        await self.wire.send(Trust(AGENT_ID, [self.signer.encoded()]))
        await self.tell(Challenge(AGENT_ID, self.registration["nonce"], self.token))
        await self.until(lambda: bool(self.presence))
        return self.presence

    async def tell(self, message: Any) -> None:
        """Send what the backend says, sealed as it has to be."""
        await self.wire.send(self.sealer.seal(message) if message.type in SEALED_BY_BACKEND else message)

    async def resume(self, acked_seq: int, incarnation: str | None = None) -> None:
        own = str(self.presence["incarnation"])
        await self.tell(Resume(AGENT_ID, self.token, incarnation or own, acked_seq, datetime.now(UTC)))

    async def acknowledge(self, seq: int) -> None:
        await self.tell(EventsAck(AGENT_ID, str(self.presence["incarnation"]), seq))

    async def command(self, spec: CommandSpec, mode: ExecutionMode | None = None, **fields: Any) -> str:
        """Send a command; its request id. Sync with 5 s unless told otherwise."""
        fields.setdefault("request_id", str(uuid.uuid4()))
        fields.setdefault("issued_at", datetime.now(UTC))
        fields.setdefault("not_after", datetime.now(UTC) + timedelta(seconds=60))
        message = Command(
            target_agent=AGENT_ID,
            command=spec,
            execution_mode=mode or SyncMode(timeout_ms=5_000),
            timeout_ms=5_000,
            **fields,
        )
        await self.tell(message)
        return message.request_id

    async def body(self, kind: str, about: str, timeout_s: float = _AGENT_DEADLINE_S) -> dict[str, Any]:
        """The body of the first event of that type about a request or health check."""

        def find() -> dict[str, Any] | None:
            for event in self.events:
                body: dict[str, Any] = event["body"]
                if body["type"] == kind and about in (body.get("request_id"), body.get("check_id")):
                    return body
            return None

        await self.until(lambda: find() is not None, timeout_s)
        found = find()
        assert found is not None
        return found

    async def run(self, spec: CommandSpec, mode: ExecutionMode | None = None, **fields: Any) -> dict[str, Any]:
        """Send a command and wait for its `command_result`."""
        return await self.body("command_result", await self.command(spec, mode, **fields))

    async def until(self, condition: Callable[[], bool], timeout_s: float = _AGENT_DEADLINE_S) -> None:
        """Wait until what has arrived fulfils a condition."""
        async with asyncio.timeout(timeout_s), self._news:
            await self._news.wait_for(condition)

    def forget(self) -> None:
        """Begin to collect anew."""
        self.events.clear()
        self.received.clear()
        self.replies.clear()

    async def leave(self) -> None:
        """Stop reading, after the agent is gone."""
        if self._reading is not None:
            self._reading.cancel()

    async def _read(self, wire: Wire) -> None:
        with suppress(ConnectionClosed):
            while True:
                data = json.loads(await wire.socket.recv())
                async with self._news:
                    self._sort(data)
                    self._news.notify_all()

    def _sort(self, data: dict[str, Any]) -> None:
        if data["type"] in SEALED_BY_AGENT:
            check_seal(data, self._agent_key)
            assert data["type"] == "discovery_result" or data["token"] == self.token, data
        match data["type"]:
            case "presence":
                self.presence = data
            case "events":
                self.events.extend(data["events"])
            case "command_received":
                self.received.append(data["request_id"])
            case "heartbeat":
                self.heartbeats.append(data)
            case "discovery_result":
                self.discoveries.append(data)
            case _:
                self.replies.append(data)


@dataclass
class Host:
    """An agent that runs inside the test, and the gateway it talks to."""

    agent: Agent
    configuration: AgentConfiguration
    gateway: GatewaySide
    running: asyncio.Task[None]
    pki: Pki

    async def stop(self) -> None:
        """Stop the agent as a signal does, and wait for it."""
        self.running.cancel()
        await asyncio.wait([self.running])
        if not self.running.cancelled():
            self.running.result()

    async def start_again(self, acked_seq: int | None = 0) -> dict[str, Any]:
        """A new life of the same agent; its `presence`."""
        self.agent = Agent(self.configuration)
        self.running = asyncio.create_task(self.agent.run())
        return await self.gateway.welcome(acked_seq)


OpenHost = Callable[..., AbstractAsyncContextManager[Host]]


@pytest.fixture
def gateway_side() -> type[GatewaySide]:
    """For tests that run an agent of their own."""
    return GatewaySide


@pytest.fixture
def agent_configuration(pki: Pki, tmp_path: Path) -> AgentConfiguration:
    """An agent with everything under the test's folder, allowed to run scripts of its folder `scripts`."""
    leaf = pki.agent(AGENT_ID)
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts").chmod(0o755)
    return AgentConfiguration(
        gateway=AgentGateway(url="wss://localhost:1", reconnect=Reconnect(initial_delay_ms=10, max_delay_ms=20)),
        tls=AgentTls(leaf.cert, leaf.key, ca_file=pki.gateway_ca.ca, backend_ca_file=pki.backend_ca.ca),
        scripts=Scripts(allowed_paths=[tmp_path / "scripts"]),
        detached_execution=DetachedExecution(log_dir=tmp_path / "detached"),
        buffer=JournalPlace(path=tmp_path / "buffer"),
        discovery=Discovery(on_startup=False),
        # It would start the test run anew if somebody stops it in a debugger.
        watchdog=Watchdog(enabled=False),
    )


@pytest.fixture
def open_host(pki: Pki, agent_configuration: AgentConfiguration) -> OpenHost:
    """`async with open_host() as host`: registered and resumed; keyword arguments replace sections."""

    @asynccontextmanager
    async def open_(**sections: Any) -> AsyncIterator[Host]:
        async with _listen(pki.gateway(GATEWAY_ID), pki.agent_ca.ca) as server:
            section = replace(agent_configuration.gateway, url=f"wss://localhost:{server.port}")
            configuration = replace(agent_configuration, gateway=section, **sections)
            agent = Agent(configuration)
            host = Host(agent, configuration, GatewaySide(server, pki), asyncio.create_task(agent.run()), pki)
            try:
                await host.gateway.welcome()
                yield host
            finally:
                await host.stop()
                await host.gateway.leave()

    return open_


@pytest.fixture
async def native(agent_configuration: AgentConfiguration, tmp_path: Path) -> AsyncIterator[RunNative]:
    """`await native("file_stat", path="/")`: a native command of an agent whose journal is under the test's folder."""
    folder = agent_configuration.buffer.path
    folder.mkdir()
    journal = await Journal.open(folder)
    with ThreadPoolExecutor(2) as executor:
        prober = Prober(Policy(agent_configuration), SyncRunner(executor, 1000), executor, Reach())
        private = (str(agent_configuration.tls.key_file), str(folder))
        yield RunNative(NativeContext(prober, journal, lambda name: JobFolder(tmp_path / name), private))
    await journal.close()
