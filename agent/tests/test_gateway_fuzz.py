"""Whatever an agent or the backend sends, a gateway goes on, and the other agents notice nothing."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed

from opsmap_gateway.configuration import Buffer, Configuration
from opsmap_protocol.messages import SEALED_BY_AGENT
from testing_frames import FUZZ, GOLDEN, hostile_frames, watching

FROM_AGENT = ["heartbeat", "error", *sorted(SEALED_BY_AGENT)]
FROM_BACKEND = [
    *(
        "gateway_registered",
        "broadcast_command",
        "discovery_ack",
        "trust",
        "challenge",
        "resume",
        "command",
        "events_ack",
    ),
    *("check_job_status", "cancel_command", "config_update", "probe_commands", "discover", "error"),
]

OpenZone = Callable[..., AbstractAsyncContextManager[Any]]


def own_buffer(configuration: Configuration) -> Buffer:
    """Examples share a folder, and a gateway that starts tells first what the one before has kept."""
    return replace(configuration.buffer, path=configuration.buffer.path / uuid.uuid4().hex)


async def send_all(wire: Any, frames: list[str | bytes]) -> None:
    with suppress(ConnectionClosed):
        for frame in frames:
            await wire.socket.send(frame)


async def read_all(wire: Any, into: list[dict[str, Any]]) -> None:
    with suppress(ConnectionClosed):
        while True:
            into.append(json.loads(await wire.socket.recv()))


async def carries(zone: Any, honest: Any, heard: list[dict[str, Any]]) -> None:
    """The honest agent's frame reaches the backend, and the backend's frame reaches it."""
    request_id = str(uuid.uuid4())
    await honest.send(json.dumps({**GOLDEN["command_received"][0], "agent_id": "honest", "request_id": request_id}))
    await zone.until(lambda: any(frame.get("request_id") == request_id for frame in heard))
    command = {**GOLDEN["command"][0], "target_agent": "honest", "request_id": request_id}
    await zone.link.send(json.dumps(command))
    while (frame := json.loads(await honest.next_frame())).get("request_id") != request_id:
        assert frame["type"] != "error" or frame["about"] is None, frame
    assert frame == command


@FUZZ
@given(greeting=hostile_frames(["register"]), frames=st.lists(hostile_frames(FROM_AGENT), min_size=20, max_size=80))
def test_a_gateway_survives_its_agents(
    open_zone: OpenZone, gateway_configuration: Configuration, greeting: str | bytes, frames: list[str | bytes]
) -> None:
    async def scenario() -> None:
        async with open_zone(buffer=own_buffer(gateway_configuration)) as zone, zone.agent("honest") as honest:
            async with zone.dial(zone.pki.agent("srv-data-01")) as wire:
                with watching():
                    await send_all(wire, [greeting, *frames])
                    await wire.socket.close()
            heard: list[dict[str, Any]] = []
            async with asyncio.TaskGroup() as tasks:
                reading = tasks.create_task(read_all(zone.link, heard))
                async with zone.dial(zone.pki.agent("srv-data-01")) as wire:
                    with watching():
                        await wire.send(zone.registration("srv-data-01"))
                        await wire.next("registered")
                        await send_all(wire, frames)
                        await carries(zone, honest, heard)
                reading.cancel()
            # In whose name an agent speaks is checked, whatever else is in its frames.
            assert {frame["agent_id"] for frame in heard if frame["type"] in SEALED_BY_AGENT} <= {
                "honest",
                "srv-data-01",
            }

    asyncio.run(scenario())


@FUZZ
@given(frames=st.lists(hostile_frames(FROM_BACKEND), min_size=20, max_size=80))
def test_a_gateway_survives_its_backend(
    open_zone: OpenZone, gateway_configuration: Configuration, frames: list[str | bytes]
) -> None:
    async def scenario() -> None:
        async with open_zone(buffer=own_buffer(gateway_configuration)) as zone, zone.agent("honest") as honest:
            with watching():
                first = zone.link
                heard: list[dict[str, Any]] = []
                reading = asyncio.create_task(read_all(first, heard))
                await send_all(first, frames)
                about = f"settled-{uuid.uuid4()}"
                with suppress(ConnectionClosed, TimeoutError):
                    await first.send(json.dumps({"type": about}))
                    await zone.until(
                        lambda: (
                            first.socket.close_code is not None
                            or any(about in str(frame.get("reason")) for frame in heard)
                        )
                    )
                if first.socket.close_code is not None:
                    await zone.greet()
                    reading = asyncio.create_task(read_all(zone.link, heard))
                await carries(zone, honest, heard)
                reading.cancel()
                await asyncio.wait([reading])

    asyncio.run(scenario())


@FUZZ
@given(greeting=hostile_frames(["gateway_registered", "error"]))
def test_any_greeting_of_a_backend_ends_in_order(
    open_zone: OpenZone, gateway_configuration: Configuration, greeting: str | bytes
) -> None:
    async def scenario() -> None:
        async with open_zone(buffer=own_buffer(gateway_configuration)) as zone:
            with watching():
                await zone.link.socket.close()
                again = await zone.backend.accept()
                await again.next("gateway_register")
                await again.send(greeting)
                await again.socket.close()
                await zone.greet()
                async with zone.agent("honest") as honest:
                    heard: list[dict[str, Any]] = []
                    reading = asyncio.create_task(read_all(zone.link, heard))
                    await carries(zone, honest, heard)
                    reading.cancel()
                    await asyncio.wait([reading])

    asyncio.run(scenario())
