"""What a gateway costs: 1,000 agents over real mutual TLS, at rest.

A real `opsmap-gateway run` process between a scripted backend and scripted agents, which register and send heartbeats
as real ones do. The agents live in processes of their own, so that only the gateway's memory and time are measured:

- `connect_s`: from the first connection to the last agent that the backend has heard of
- `kb_per_agent`: resident memory of the gateway afterwards, less what it was before, by agents
- `cpu_percent_idle`: of one core, over `--idle-s` with heartbeats every 30 s and pings

Needs none of the services of `deploy.embedded`. `--agents 1000 --idle-s 20`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import secrets
import ssl
import sys
import tempfile
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import psutil
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "agent" / "tests"))

from bench.measuring import report, say
from opsmap_daemon import lifecycle, tls
from opsmap_protocol import MAX_FRAME_BYTES
from opsmap_protocol.codec import encode
from opsmap_protocol.messages import GatewayRegistered, Heartbeat, OsInfo, Register
from testing_pki import Leaf, Pki

_AGENT_FOLDER = Path(__file__).resolve().parent.parent / "agent"
_GATEWAY_ID = "gw-1"
_FLEETS = 2
_CONNECTING_AT_ONCE = 50
_HEARTBEAT_S = 30.0
_SETTLE_S = 3.0
_DEADLINE_S = 120.0


class Backend:
    """Accepts the gateway, and counts the agents it hears of."""

    def __init__(self) -> None:
        self.is_linked = asyncio.Event()
        self.online = 0
        self._news = asyncio.Condition()

    async def serve(self, socket: ServerConnection) -> None:
        await socket.recv()
        await socket.send(encode(GatewayRegistered(session_id="link-1")))
        self.is_linked.set()
        async for frame in socket:
            if json.loads(frame)["type"] == "agent_online":
                async with self._news:
                    self.online += 1
                    self._news.notify_all()

    async def has_heard_of(self, agents: int) -> None:
        async with asyncio.timeout(_DEADLINE_S), self._news:
            await self._news.wait_for(lambda: self.online >= agents)


async def measure(agents: int, idle_s: float) -> dict[str, float]:
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="opsmap-bench-")))
        pki = Pki(folder / "pki")
        (folder / "pki").mkdir()
        say(f"certificates for {agents} agents …")
        fleets = _write_fleets(pki, folder, agents)
        backend, port = await stack.enter_async_context(_backend(pki))
        gateway = await stack.enter_async_context(_gateway(pki, folder, backend_port=port, agents=agents))
        async with asyncio.timeout(_DEADLINE_S):
            await backend.is_linked.wait()
        process = psutil.Process(gateway.pid)
        await asyncio.sleep(_SETTLE_S)
        before_bytes = process.memory_info().rss
        say(f"the gateway takes {before_bytes / 1024 / 1024:.1f} MB; {agents} agents connect …")

        url = f"wss://localhost:{_listening_port(process)}/agent/"
        started = [await stack.enter_async_context(_fleet(fleet, url, pki.gateway_ca.ca)) for fleet in fleets]
        began = time.perf_counter()
        for fleet in started:
            assert fleet.stdin is not None
            fleet.stdin.write(b"go\n")
        await backend.has_heard_of(agents)
        connect_s = time.perf_counter() - began

        await asyncio.sleep(_SETTLE_S)
        after_bytes = process.memory_info().rss
        say(f"connected in {connect_s:.1f} s, it takes {after_bytes / 1024 / 1024:.1f} MB; {idle_s:g} s of rest …")
        process.cpu_percent()
        await asyncio.sleep(idle_s)
        cpu_percent = process.cpu_percent()
        if backend.online != agents or process.num_fds() < agents:
            raise RuntimeError("agents were lost while it was measured")
    return {
        "agents": agents,
        "connect_s": round(connect_s, 2),
        "kb_per_agent": round((after_bytes - before_bytes) / 1024 / agents, 1),
        "cpu_percent_idle": round(cpu_percent, 1),
    }


def _write_fleets(pki: Pki, folder: Path, agents: int) -> list[Path]:
    """A file for each process of agents: a line for each agent, with its name and files."""
    lines = [f"srv-{number:04d}" for number in range(agents)]
    leaves = {name: pki.agent(name) for name in lines}
    files = []
    for index in range(_FLEETS):
        file = folder / f"fleet-{index}"
        mine = [[name, str(leaves[name].cert), str(leaves[name].key)] for name in lines[index::_FLEETS]]
        file.write_text(json.dumps(mine))
        files.append(file)
    return files


@asynccontextmanager
async def _backend(pki: Pki) -> AsyncIterator[tuple[Backend, int]]:
    leaf = pki.backend()
    context = tls.server_context(leaf.cert, leaf.key, pki.gateway_ca.ca)
    backend = Backend()
    async with serve(
        backend.serve, "127.0.0.1", 0, ssl=context, compression=None, max_size=MAX_FRAME_BYTES, ping_interval=None
    ) as server:
        yield backend, server.sockets[0].getsockname()[1]


@asynccontextmanager
async def _gateway(pki: Pki, folder: Path, *, backend_port: int, agents: int) -> AsyncIterator[Process]:
    leaf = pki.gateway(_GATEWAY_ID)
    file = folder / "gateway.yaml"
    file.write_text(f"""\
gateway: {{id: {_GATEWAY_ID}, zone: bench}}
agent_server:
  bind_address: 127.0.0.1:0
  max_connections: {agents}
  tls: {{cert_file: {leaf.cert}, key_file: {leaf.key}, client_ca_file: {pki.agent_ca.ca}}}
backend_connection:
  url: wss://localhost:{backend_port}
  tls: {{cert_file: {leaf.cert}, key_file: {leaf.key}, ca_file: {pki.backend_ca.ca}}}
agent_registry:
  persistence: {{file: registry.json}}
buffer: {{path: buffer}}
metrics: {{enabled: false}}
logging: {{file: gateway.log}}
""")
    program = "import sys; from opsmap_gateway.cli import main; sys.exit(main())"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, "run", "--config", str(file), cwd=_AGENT_FOLDER
    )
    try:
        yield process
    finally:
        await _end(process)


@asynccontextmanager
async def _fleet(file: Path, url: str, ca: Path) -> AsyncIterator[Process]:
    """A process with its agents' keys loaded, which connects them when it is told to."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, __file__, "--fleet", str(file), "--url", url, "--ca", str(ca), stdin=PIPE, stdout=PIPE
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(_DEADLINE_S):
            if await process.stdout.readline() != b"ready\n":
                raise RuntimeError("a process of agents did not start")
        yield process
    finally:
        await _end(process)


async def _end(process: Process) -> None:
    if process.returncode is None:
        process.terminate()
        try:
            async with asyncio.timeout(15):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


def _listening_port(process: psutil.Process) -> int:
    (port,) = {each.laddr.port for each in process.net_connections("tcp") if each.status == psutil.CONN_LISTEN}
    return int(port)


# In the processes of the agents


async def _run_fleet(members: list[list[str]], url: str, ca: Path) -> None:
    """`members`: name, certificate and key of each agent."""
    lifecycle.allow_open_files(len(members) + 100)
    leaves = [(name, Leaf(Path(cert), Path(key))) for name, cert, key in members]
    prepared = [(name, tls.client_context(leaf.cert, leaf.key, ca), _registration(name, leaf)) for name, leaf in leaves]
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    turn = asyncio.Semaphore(_CONNECTING_AT_ONCE)
    async with asyncio.TaskGroup() as tasks:
        for name, context, registration in prepared:
            tasks.create_task(_be_agent(name, url, context, registration, turn))


async def _be_agent(name: str, url: str, context: ssl.SSLContext, registration: str, turn: asyncio.Semaphore) -> None:
    async with turn:
        socket = await connect(url, ssl=context, compression=None, proxy=None, open_timeout=60, ping_interval=20)
        await socket.send(registration)
        registered = json.loads(await socket.recv())
        if registered["type"] != "registered":
            raise RuntimeError(registered)
    await _beat(name, socket)


async def _beat(name: str, socket: ClientConnection) -> None:
    began = time.monotonic()
    while True:
        uptime_s = int(time.monotonic() - began)
        await socket.send(encode(Heartbeat(name, uptime_s, [0.1, 0.2, 0.3], memory_percent=4.5, active_commands=0)))
        await asyncio.sleep(_HEARTBEAT_S)


def _registration(name: str, leaf: Leaf) -> str:
    message = Register(
        agent_id=name,
        hostname=f"{name}.example",
        os=OsInfo(os_type="linux", os_release="12", kernel="6.1", arch="x86_64"),
        labels={"tier": "data", "site": "paris"},
        capabilities=["native", "script", "execute", "service"],
        version="0.1.0",
        certificate=leaf.encoded(),
        nonce=secrets.token_hex(16),
    )
    return leaf.sealer("agent").seal(message)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", type=int, default=1_000)
    parser.add_argument("--idle-s", type=float, default=20.0)
    parser.add_argument("--fleet", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    parser.add_argument("--ca", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.fleet is not None:
        members = json.loads(options.fleet.read_text())
        lifecycle.run(lambda: _run_fleet(members, options.url, options.ca))
    else:
        report(asyncio.run(measure(options.agents, options.idle_s)))


if __name__ == "__main__":
    main()
