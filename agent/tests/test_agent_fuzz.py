"""Whatever a gateway sends, an agent goes on, and what the backend did not seal leaves no trace in its journal."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import uuid
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, closing, suppress
from dataclasses import replace
from typing import Any

import psutil
from hypothesis import given
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed

from opsmap_agent.agent import Agent
from opsmap_agent.configuration import Configuration, NativeCommands, Scripts
from opsmap_protocol.messages import SEALED_BY_BACKEND
from opsmap_protocol.specs import NativeCommand
from testing_frames import FUZZ, GOLDEN, changed, hostile_frames, watching
from testing_pki import Pki

AGENT_ID = "srv-1"
TO_AGENT = ["registered", "ping", "goaway", "trust", "error", *sorted(SEALED_BY_BACKEND)]
SEALED = [
    {**example, "target_agent": AGENT_ID}
    for kind in sorted(SEALED_BY_BACKEND - {"challenge"})
    for example in GOLDEN[kind]
]
HARMLESS = {"scripts": Scripts(enabled=False), "native_commands": replace(NativeCommands(), service_control=False)}
"""Mutated commands of the backend are carried out as far as these allow: nothing that would change this machine."""

OpenHost = Callable[..., AbstractAsyncContextManager[Any]]
Listen = Callable[..., AbstractAsyncContextManager[Any]]


def recorded(configuration: Configuration) -> dict[str, list[Any]]:
    """What the journal holds of the backend's words: all of it but the agent's own events."""
    path = configuration.buffer.path / "journal.sqlite3"
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        return {
            table: database.execute(f"SELECT * FROM {table} ORDER BY 1").fetchall()  # noqa: S608 - constants
            for table in ("meta", "commands", "epochs", "jobs")
        }


async def settled(host: Any, frames: list[str | bytes]) -> None:
    """Send these, and wait until the agent has been through them, or has given the session up."""
    about = f"settled-{uuid.uuid4()}"
    with suppress(ConnectionClosed, TimeoutError):
        for frame in frames:
            await host.gateway.wire.socket.send(frame)
        await host.gateway.wire.send(json.dumps({"type": about}))
        await host.gateway.until(lambda: any(reply.get("about") == about for reply in host.gateway.replies), 3)


async def still_serves(host: Any) -> None:
    """A command gets through, by this session or, if the agent gave it up, by its next."""
    gateway = host.gateway
    assert not host.running.done(), host.running
    if gateway.wire.socket.close_code is not None:
        await gateway.welcome()
    try:
        result = await gateway.run(NativeCommand("uptime"))
    except (ConnectionClosed, TimeoutError):
        await gateway.welcome()
        result = await gateway.run(NativeCommand("uptime"))
    assert result["success"]


def fuzz(open_host: OpenHost, frames: list[str | bytes], check: Callable[[Any], Any], **sections: Any) -> None:
    """Give an agent these frames; `check` is asked before and after, and must answer the same."""

    async def scenario() -> None:
        async with open_host(**sections) as host:
            with watching():
                before = check(host)
                await settled(host, frames)
                assert check(host) == before
                await still_serves(host)

    asyncio.run(scenario())


@FUZZ
@given(frames=st.lists(hostile_frames(TO_AGENT), min_size=20, max_size=60))
def test_what_the_backend_did_not_seal_leaves_no_trace(open_host: OpenHost, frames: list[str | bytes]) -> None:
    fuzz(open_host, frames, lambda host: recorded(host.configuration))


@FUZZ
@given(messages=st.lists(changed(SEALED), min_size=20, max_size=60))
def test_no_word_of_the_backend_ends_an_agent(open_host: OpenHost, pki: Pki, messages: list[dict[str, Any]]) -> None:
    """Also a backend that is newer, or wrong, and seals it."""
    sealer = pki.signer().sealer("backend")
    fuzz(open_host, [sealer.seal(message) for message in messages], lambda host: None, **HARMLESS)


@FUZZ
@given(frame=hostile_frames(TO_AGENT))
def test_any_greeting_ends_in_order(
    pki: Pki, listen: Listen, agent_configuration: Configuration, gateway_side: Any, frame: str | bytes
) -> None:
    """The agent dials again, and serves whoever greets it well then."""

    async def scenario() -> None:
        async with listen(pki.gateway("gw-1"), pki.agent_ca.ca) as server:
            gateway = replace(agent_configuration.gateway, url=f"wss://localhost:{server.port}")
            agent = Agent(replace(agent_configuration, gateway=gateway))
            running = asyncio.create_task(agent.run())
            side = gateway_side(server, pki)
            try:
                with watching():
                    wire = await server.accept()
                    await wire.next("register")
                    await wire.send(frame)
                    await wire.socket.close()
                    await side.welcome()
                    assert (await side.run(NativeCommand("uptime")))["success"]
            finally:
                running.cancel()
                await asyncio.wait([running])
                await side.leave()

    asyncio.run(scenario())


async def test_flood_of_forgeries_costs_no_memory(open_host: OpenHost) -> None:
    forged = [
        json.dumps({**example, "signed_by": "0" * 64, "signature": "A" * 88, "x": "y" * 2_000}) for example in SEALED
    ]
    process = psutil.Process()
    async with open_host() as host:
        before = recorded(host.configuration)
        await settled(host, forged)
        resident = process.memory_info().rss
        for _ in range(8):
            await settled(host, forged)
            if host.gateway.wire.socket.close_code is not None:
                await host.gateway.welcome()
            host.gateway.forget()
        assert process.memory_info().rss - resident < 16 * 1024**2
        assert recorded(host.configuration) == before
        await still_serves(host)
