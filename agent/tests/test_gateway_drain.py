"""A gateway that stops: everybody hears of it, no new work, and what is on its way arrives."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from opsmap_gateway import drain
from opsmap_gateway.configuration import Configuration
from opsmap_gateway.gateway import Gateway
from opsmap_protocol.messages import Command, GatewayRegistered, GoAway
from opsmap_protocol.specs import NativeCommand, SyncMode

if TYPE_CHECKING:
    from conftest import Listen, OpenZone, Pki


def command(request_id: str, agent_id: str, padding: int = 0) -> Command:
    return Command(
        request_id=request_id,
        target_agent=agent_id,
        command=NativeCommand("uptime", {"padding": "x" * padding}),
        execution_mode=SyncMode(),
        timeout_ms=5_000,
        issued_at=datetime(2026, 1, 1, tzinfo=UTC),
        not_after=datetime(2030, 1, 1, tzinfo=UTC),
    )


async def test_both_sides_hear_of_it(open_zone: OpenZone) -> None:
    async with open_zone() as zone, zone.agent("srv-1") as agent:
        draining = asyncio.create_task(zone.gateway.drain())
        assert (await zone.link.next("goaway"))["reason"] == "the gateway is stopping"
        await agent.next("goaway")
        await draining


async def test_new_work_is_refused_and_the_rest_is_carried(open_zone: OpenZone) -> None:
    async with open_zone() as zone, zone.agent("srv-1") as agent:
        draining = asyncio.create_task(zone.gateway.drain())
        await zone.link.next("goaway")
        await agent.next("goaway")
        await zone.link.send(command("r-1", "srv-1"))
        refused = await zone.link.next("command_refused")
        assert (refused["request_id"], refused["code"]) == ("r-1", "draining")
        await zone.link.send('{"type":"events_ack","target_agent":"srv-1","incarnation":"i-1","seq":9}')
        await agent.next("events_ack")
        await agent.send('{"type":"events","agent_id":"srv-1","token":"t","incarnation":"i-1","events":[]}')
        await zone.link.next("events")
        await draining


async def test_newcomers_hear_why_they_have_to_look_elsewhere(open_zone: OpenZone) -> None:
    async with open_zone() as zone, zone.agent("srv-1"), zone.dial(zone.pki.agent("srv-2")) as early:
        draining = asyncio.create_task(zone.gateway.drain())
        await zone.link.next("goaway")
        await early.send(zone.registration("srv-2"))
        async with zone.dial(zone.pki.agent("srv-3")) as late:
            for newcomer in (early, late):
                assert (await newcomer.next("error"))["code"] == "draining"
                assert await newcomer.close_code() == 1001
        assert [session.agent_id for session in zone.gateway.registry.sessions()] == ["srv-1"]
        assert zone.gateway.server.refused == {"draining": 2}
        await draining


async def test_it_ends_soon_when_it_is_quiet(open_zone: OpenZone) -> None:
    async with open_zone() as zone:
        async with asyncio.timeout(drain.MAX_DRAIN_S / 2):
            await zone.gateway.drain()


async def test_it_ends_though_agents_never_stop_talking(open_zone: OpenZone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drain, "MAX_DRAIN_S", 0.8)
    async with open_zone() as zone, zone.agent("srv-1") as agent:

        async def talk() -> None:
            while True:
                await agent.send('{"type":"events","agent_id":"srv-1","token":"t","incarnation":"i-1","events":[]}')
                await asyncio.sleep(0.05)

        talking = asyncio.create_task(talk())
        begun = time.monotonic()
        await zone.gateway.drain()
        assert time.monotonic() - begun >= 0.8
        talking.cancel()


async def test_it_ends_though_an_agent_does_not_read(open_zone: OpenZone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drain, "MAX_DRAIN_S", 0.5)
    async with open_zone() as zone, zone.agent("srv-1") as agent:
        agent.socket.transport.pause_reading()
        for number in range(7):
            await zone.link.send(command(f"r-{number}", "srv-1", 1_000_000))
        async with asyncio.timeout(3):
            await zone.gateway.drain()
        agent.socket.transport.abort()


async def test_without_a_backend_the_agents_hear_of_it_all_the_same(open_zone: OpenZone) -> None:
    async with open_zone() as zone, zone.agent("srv-1") as agent:
        zone.link.socket.transport.abort()
        await zone.until(lambda: not zone.gateway.link.is_up)
        await zone.gateway.drain()
        await agent.next("goaway")


async def test_goaway_of_the_backend_makes_us_go_to_another(
    gateway_configuration: Configuration, pki: Pki, listen: Listen
) -> None:
    async with listen(pki.backend(), pki.gateway_ca.ca) as first, listen(pki.backend(), pki.gateway_ca.ca) as second:
        connection: Any = replace(
            gateway_configuration.backend_connection,
            url=f"wss://localhost:{first.port}",
            fallback_urls=[f"wss://localhost:{second.port}"],
        )
        gateway = Gateway(replace(gateway_configuration, backend_connection=connection))
        running = asyncio.create_task(gateway.run())
        link = await first.accept()
        await link.next("gateway_register")
        await link.send(GatewayRegistered(session_id="link-1"))
        await link.send(GoAway(reason="maintenance"))
        assert await link.close_code() == 1001
        # It asks the first one again, which does not want it any more, and so comes to the second.
        again = await first.accept()
        await again.next("gateway_register")
        await again.send('{"type":"error","code":"draining","reason":"this backend is stopping"}')
        await (await second.accept()).next("gateway_register")
        running.cancel()
        await asyncio.wait([running])


async def test_goaway_of_the_only_backend_changes_nothing_yet(open_zone: OpenZone) -> None:
    async with open_zone() as zone, zone.agent("srv-1") as agent:
        await zone.link.send(GoAway(reason="maintenance"))
        await zone.link.send(command("r-1", "srv-1"))
        await agent.next("command")
