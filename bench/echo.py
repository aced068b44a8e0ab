"""The physical limit beside the delivery: frames that come back over the same mutual TLS WebSockets, and nothing else.

`python -m bench.echo <pki folder> <gateway> <agent>`: a server in a process of its own with the gateway's certificate,
a client with the agent's, the library and the TLS settings of the product. Prints
`{"echo_per_s", "echo_ms_p50"}`: with as many connections as there are agents, one frame on its way on each; and with
one frame on its way at all.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import subprocess
import sys
import time
from pathlib import Path

from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from bench.measuring import percentile, report
from opsmap_daemon import tls

CONNECTIONS = 200
SECONDS = 5.0
WARM_UP_S = 1.0
SINGLE_FRAMES = 2_000
# About what a sealed command is.
FRAME = "x" * 900


async def echo(socket: ServerConnection) -> None:
    try:
        async for frame in socket:
            await socket.send(frame)
    except ConnectionClosed:
        return


async def run_server(context: ssl.SSLContext) -> None:
    """Serve until standard input ends; the port is printed."""
    async with serve(echo, "127.0.0.1", 0, ssl=context, compression=None, ping_interval=None) as server:
        print(next(iter(server.sockets)).getsockname()[1], flush=True)
        await asyncio.to_thread(sys.stdin.read)


async def run_client(context: ssl.SSLContext, port: int) -> dict[str, float]:
    async def open_one() -> ClientConnection:
        return await connect(f"wss://127.0.0.1:{port}", ssl=context, compression=None, ping_interval=None, proxy=None)

    sockets = [await open_one() for _ in range(CONNECTIONS)]
    times = [await _round_trip_ms(sockets[0]) for _ in range(SINGLE_FRAMES)]
    per_s = await _rate(sockets)
    await asyncio.gather(*(socket.close() for socket in sockets))
    return {"echo_per_s": round(per_s), "echo_ms_p50": round(percentile(times, 0.5), 3)}


async def _round_trip_ms(socket: ClientConnection) -> float:
    began = time.perf_counter()
    await socket.send(FRAME)
    await socket.recv()
    return (time.perf_counter() - began) * 1000


async def _rate(sockets: list[ClientConnection]) -> float:
    count = 0

    async def go_round(socket: ClientConnection) -> None:
        nonlocal count
        while True:
            await _round_trip_ms(socket)
            count += 1

    tasks = [asyncio.create_task(go_round(socket)) for socket in sockets]
    await asyncio.sleep(WARM_UP_S)
    began, before = time.perf_counter(), count
    await asyncio.sleep(SECONDS)
    per_s = (count - before) / (time.perf_counter() - began)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return per_s


def main() -> None:
    pki, gateway, agent = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    leaf, authorities = pki / "leaf", pki / "ca"
    if "--serve" in sys.argv:
        asyncio.run(
            run_server(
                tls.server_context(leaf / f"{gateway}.crt", leaf / f"{gateway}.key", authorities / "agent.crt"),
            )
        )
        return
    command = [sys.executable, "-m", "bench.echo", *sys.argv[1:], "--serve"]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ)
    assert server.stdout is not None
    try:
        context = tls.client_context(
            leaf / f"agent-{agent}.crt", leaf / f"agent-{agent}.key", authorities / "gateway.crt"
        )
        report(asyncio.run(run_client(context, int(server.stdout.readline()))))
    finally:
        server.communicate()


if __name__ == "__main__":
    main()
