"""The gateway's connection to the backend: finding it, losing it, and coming back."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from opsmap_gateway.configuration import Configuration
from opsmap_gateway.counters import Loss
from opsmap_gateway.gateway import Gateway
from opsmap_protocol.enums import PeerRole
from opsmap_protocol.errors import CloseCode
from opsmap_protocol.identity import BACKEND_URI, Identity
from opsmap_protocol.messages import Error

if TYPE_CHECKING:
    from conftest import Listen, OpenZone, Pki

ORGANIZATION = "11111111-1111-4111-8111-111111111111"
RECEIVED = '{"type":"command_received","agent_id":"srv-1","request_id":"r-1"}'
RESUME = '{"type":"resume","target_agent":"srv-1","incarnation":"i-1","acked_seq":7}'


async def test_agents_stay_while_the_backend_is_away(open_zone: OpenZone) -> None:
    async with open_zone() as zone, zone.agent("srv-1") as one, zone.agent("srv-2"):
        await zone.link.socket.close()
        await zone.until(lambda: not zone.gateway.link.is_up)
        await one.send(RECEIVED)
        link = await zone.greet()
        names = {(await link.next("agent_online"))["agent"]["agent_id"] for _ in range(2)}
        assert names == {"srv-1", "srv-2"}
        await link.send(RESUME)
        await one.next("resume")
        assert zone.gateway.counters.total(Loss.BACKEND_AWAY) == 1
        await one.send(RECEIVED)
        assert await link.next_frame() == RECEIVED


async def test_who_came_and_went_meanwhile_is_known_afterwards(open_zone: OpenZone) -> None:
    async with open_zone() as zone, zone.agent("srv-2"):
        async with zone.agent("srv-1"):
            zone.link.socket.transport.abort()
            link = await zone.backend.accept()
            await link.next("gateway_register")
        async with zone.dial(zone.pki.agent("srv-3")) as third:
            await third.send(zone.registration("srv-3"))
            await third.next("registered")
            await link.send('{"type":"gateway_registered","session_id":"link-2"}')
            names = {(await link.next("agent_online"))["agent"]["agent_id"] for _ in range(2)}
            assert names == {"srv-2", "srv-3"}


async def test_nothing_overtakes_agent_online(open_zone: OpenZone) -> None:
    async with open_zone() as zone, zone.agent("srv-1") as agent:
        zone.link.socket.transport.abort()
        link = await zone.backend.accept()
        await link.next("gateway_register")

        async def talk() -> None:
            while True:
                await agent.send(RECEIVED)
                await asyncio.sleep(0)

        async with asyncio.TaskGroup() as tasks:
            talking = tasks.create_task(talk())
            await link.send('{"type":"gateway_registered","session_id":"link-2"}')
            await link.next("agent_online")
            await link.next("command_received")
            talking.cancel()


async def test_fallback_is_used_when_the_first_backend_is_down(
    open_zone: OpenZone, gateway_configuration: Configuration, pki: Pki, listen: Listen
) -> None:
    async with listen(pki.backend(), pki.gateway_ca.ca) as backend:
        base = gateway_configuration.backend_connection
        connection = replace(base, fallback_urls=[f"wss://localhost:{backend.port}"])
        gateway = Gateway(replace(gateway_configuration, backend_connection=connection))
        task = asyncio.create_task(gateway.run())
        link = await backend.accept()
        assert link.socket.request is not None
        assert link.socket.request.path == "/link/"
        assert (await link.next("gateway_register"))["zone"] == "test"
        await stop(task)


@pytest.mark.parametrize("kind", ["a gateway", "no backend"])
async def test_only_the_backend_is_talked_to(
    gateway_configuration: Configuration, pki: Pki, listen: Listen, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    """A certificate of the wrong CA fails in TLS; one of the right CA must still be the backend's."""
    leaves = {
        "a gateway": pki.leaf(pki.gateway_ca, BACKEND_URI),
        "no backend": pki.leaf(pki.backend_ca, Identity(ORGANIZATION, PeerRole.GATEWAY, "gw-9").uri),
    }
    async with listen(leaves[kind], pki.gateway_ca.ca) as impostor:
        task = asyncio.create_task(gateway_dialling(gateway_configuration, impostor.port).run())
        if kind == "no backend":
            wire = await impostor.accept()
            assert await wire.close_code() == CloseCode.IDENTITY_MISMATCH
        await logged(caplog, "certificate is not")
        await stop(task)


async def test_refusal_of_the_backend_is_told(
    gateway_configuration: Configuration, pki: Pki, listen: Listen, caplog: pytest.LogCaptureFixture
) -> None:
    async with listen(pki.backend(), pki.gateway_ca.ca) as backend:
        task = asyncio.create_task(gateway_dialling(gateway_configuration, backend.port).run())
        link = await backend.accept()
        await link.next("gateway_register")
        await link.send(Error(code="unknown_gateway", reason="gw-1 was removed"))
        await logged(caplog, "it refuses this gateway: gw-1 was removed")
        # It keeps trying all the same: somebody may let it in again.
        await (await backend.accept()).next("gateway_register")
        await stop(task)


async def test_stopping_tells_the_backend_once_and_remembers_the_agents(
    open_zone: OpenZone, gateway_configuration: Configuration
) -> None:
    file = gateway_configuration.agent_registry.persistence.file
    async with open_zone() as zone, zone.agent("srv-1") as agent:
        link = zone.link
        stopping = asyncio.create_task(zone.stop())
        assert await link.close_code() == 1001
        assert not link.socket.recv_messages.frames, "agents were reported one by one"
        assert await agent.close_code() == 1001
        await stopping
    assert list(json.loads(file.read_text())["agents"]) == ["srv-1"]


async def test_restart_reports_who_is_missing(
    open_zone: OpenZone, gateway_configuration: Configuration, tmp_path: Path
) -> None:
    file = gateway_configuration.agent_registry.persistence.file
    known = {name: {"hostname": name, "last_seen": "2026-01-01T00:00:00+00:00"} for name in ("srv-1", "srv-2")}
    file.write_text(json.dumps({"format": 1, "agents": known}))
    async with open_zone() as zone, zone.agent("srv-1"):
        assert zone.gateway.registry.missing() == ["srv-2"]


def gateway_dialling(configuration: Configuration, port: int) -> Gateway:
    connection = replace(configuration.backend_connection, url=f"wss://localhost:{port}")
    return Gateway(replace(configuration, backend_connection=connection))


async def logged(caplog: pytest.LogCaptureFixture, text: str) -> None:
    async with asyncio.timeout(2):
        while text not in caplog.text:  # noqa: ASYNC110 - a log has no event to wait for
            await asyncio.sleep(0.002)


async def stop(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
