"""The man in the middle: transparent until told otherwise, and never the author of a frame."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from testing_pki import Pki
from tests.chaos.meddler import Meddler
from tests.chaos.network import Side

FRAMES = [f"frame {number}" for number in range(60)]


@dataclass
class Between:
    meddler: Meddler
    client: ClientConnection

    async def exchange(self) -> list[str]:
        """What the server heard of `FRAMES`, as it says them again one by one."""
        for frame in FRAMES:
            await self.client.send(frame)
        await self.client.send("end")
        heard = []
        while (frame := await self.client.recv()) != "end":
            heard.append(str(frame))
        return heard


@pytest.fixture
async def between(tmp_path: Path) -> AsyncIterator[Between]:
    """A client, the meddler, and a server that tells all that it heard when it hears "end"."""
    pki = Pki(tmp_path)
    agent, gateway = pki.agent("srv-1"), pki.gateway("gateway-1")
    plays_gateway = Side(gateway.cert.with_suffix(""), pki.agent_ca.ca)
    plays_agent = Side(agent.cert.with_suffix(""), pki.gateway_ca.ca)
    async with serve(_tell, "127.0.0.1", 0, ssl=plays_gateway.server()) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        meddler = Meddler(plays_gateway.server(), plays_agent.client(), f"127.0.0.1:{port}", random.Random(1))
        url = f"wss://127.0.0.1:{await meddler.listen()}/agent/"
        async with connect(url, ssl=plays_agent.client(), proxy=None) as client:
            yield Between(meddler, client)
        await meddler.close()


async def _tell(socket: ServerConnection) -> None:
    if socket.request is not None and socket.request.path != "/agent/":
        await socket.close(4400, "another path")
    heard = []
    async for frame in socket:
        if frame == "end":
            break
        heard.append(frame)
        if frame == "refuse me":
            await socket.close(4401, "refused")
    for frame in (*heard, "end"):
        await socket.send(frame)


async def test_he_carries_everything_as_it_was(between: Between) -> None:
    assert await between.exchange() == FRAMES
    assert between.meddler.deeds == 0


async def test_he_repeats_frames(between: Between) -> None:
    between.meddler.duplicates = 0.2
    counts = Counter(await between.exchange())
    assert set(counts) == set(FRAMES)
    assert max(counts.values()) > 1
    assert between.meddler.deeds > 0


async def test_he_changes_their_order_and_loses_none(between: Between) -> None:
    between.meddler.reorders = 0.3
    for frame in FRAMES:
        await between.client.send(frame)
    await asyncio.sleep(0.2)  # he keeps a frame back for less
    between.meddler.behave()
    heard = await between.exchange()
    assert Counter(heard) == Counter(FRAMES * 2)
    assert heard[: len(FRAMES)] != FRAMES
    assert heard[len(FRAMES) :] == FRAMES


async def test_a_close_arrives_with_its_code(between: Between) -> None:
    await between.client.send("refuse me")
    with pytest.raises(ConnectionClosed) as closed:
        await between.client.recv()
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4401, "refused")
