"""Peers that do not keep up, and what the others notice of it: nothing."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from opsmap_gateway.configuration import Configuration, Routing
from opsmap_gateway.counters import Loss
from opsmap_protocol.messages import Command
from opsmap_protocol.specs import NativeCommand, SyncMode

if TYPE_CHECKING:
    from conftest import OpenZone, Wire, Zone

ONE_MB = 1_000_000


def command(request_id: str, agent_id: str, size: int = 0) -> Command:
    return Command(
        request_id=request_id,
        target_agent=agent_id,
        command=NativeCommand("uptime", {"padding": "x" * size}),
        execution_mode=SyncMode(),
        timeout_ms=5_000,
        issued_at=datetime(2026, 1, 1, tzinfo=UTC),
        not_after=datetime(2030, 1, 1, tzinfo=UTC),
    )


async def stuff(zone: Zone, agent_id: str, until: asyncio.Event) -> None:
    """Send an agent large commands that it does not read."""
    number = 0
    while not until.is_set():
        await zone.link.send(command(f"r-{number}", agent_id, ONE_MB))
        number += 1


async def is_served(zone: Zone, wire: Wire, agent_id: str) -> bool:
    await zone.link.send(command("r-served", agent_id))
    return bool((await wire.next("command"))["request_id"] == "r-served")


async def test_slow_agent_is_dropped_and_harms_nobody(open_zone: OpenZone) -> None:
    async with open_zone() as zone, zone.agent("srv-slow") as slow, zone.agent("srv-1") as other:
        slow.socket.transport.pause_reading()
        is_full = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(stuff(zone, "srv-slow", is_full))
            refused = await zone.link.next("command_refused")
            is_full.set()
        assert refused["code"] == "queue_full"
        codes = []
        while (message := await zone.link.next("command_refused", "agent_offline"))["type"] != "agent_offline":
            codes.append(message["code"])
        # What waited for it when it was dropped is handed back, and so is what came after.
        assert set(codes) <= {"agent_offline", "queue_full"}
        assert "agent_offline" in codes
        assert message["reason"] == "the agent does not read what it is sent"
        assert zone.gateway.counters.total(Loss.AGENT_TOO_SLOW) >= 1
        assert await is_served(zone, other, "srv-1")
        slow.socket.transport.abort()


async def test_half_open_connection_is_found_dead(open_zone: OpenZone, gateway_configuration: Configuration) -> None:
    short: Any = 0.15
    hasty = replace(gateway_configuration.agent_registry, agent_timeout_secs=short)
    async with open_zone(agent_registry=hasty) as zone, zone.agent("srv-1") as agent:
        agent.socket.transport.pause_reading()
        offline = await zone.link.next("agent_offline")
        assert "keepalive ping timeout" in offline["reason"]
        agent.socket.transport.abort()


async def test_agent_that_stops_reading_does_not_hold_up_the_end(open_zone: OpenZone) -> None:
    async with open_zone() as zone, zone.agent("srv-1") as agent:
        agent.socket.transport.pause_reading()
        for number in range(7):
            await zone.link.send(command(f"r-{number}", "srv-1", ONE_MB))
        await zone.link.send(command("r-9", "srv-9"))
        await zone.link.next("command_refused")
        async with asyncio.timeout(4):
            await zone.stop()
        agent.socket.transport.abort()


async def test_agent_that_takes_too_long_for_a_frame_is_dropped(
    open_zone: OpenZone, gateway_configuration: Configuration
) -> None:
    """The library's pings do not find it: they wait in the same buffer."""
    short: Any = 1.2
    hasty = replace(gateway_configuration.agent_registry, agent_timeout_secs=short)
    async with open_zone(agent_registry=hasty) as zone, zone.agent("srv-1") as agent:
        agent.socket.transport.pause_reading()
        for number in range(7):
            await zone.link.send(command(f"r-{number}", "srv-1", ONE_MB))
        async with asyncio.timeout(5):
            while (message := await zone.link.next("command_refused", "agent_offline"))["type"] != "agent_offline":
                assert message["code"] == "agent_offline"
        assert message["reason"] == "the agent does not read what it is sent"
        agent.socket.transport.abort()


async def test_full_queue_refuses_only_agents_that_are_behind(open_zone: OpenZone) -> None:
    routing = Routing(command_queue_size=3)
    async with open_zone(routing=routing) as zone, zone.agent("srv-slow") as slow, zone.agent("srv-1") as other:
        slow.socket.transport.pause_reading()
        is_full = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(stuff(zone, "srv-slow", is_full))
            refused = await zone.link.next("command_refused")
            is_full.set()
        assert refused["code"] == "queue_full"
        assert refused["reason"] == "3 frames wait for agents already"
        assert zone.gateway.registry.get("srv-slow") is not None
        assert await is_served(zone, other, "srv-1")
        slow.socket.transport.abort()
