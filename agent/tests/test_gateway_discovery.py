"""Discovery results: gathered, kept, sent until the backend has them, through a running gateway."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from opsmap_gateway.configuration import Aggregation, Configuration
from opsmap_gateway.counters import Loss
from opsmap_gateway.gateway import Gateway
from opsmap_protocol.errors import CloseCode
from opsmap_protocol.messages import DiscoveryAck, DiscoveryResult, Error

if TYPE_CHECKING:
    from conftest import OpenZone, Wire, Zone

HASTY: Any = replace(Aggregation(), discovery_batch_timeout_ms=30)
PATIENT = Aggregation(discovery_batch_size=3, discovery_batch_timeout_ms=60_000)


def result(zone: Zone, agent_id: str, number: int, text: str = "é") -> str:
    """A sealed result, as an agent sends it."""
    return (
        zone.pki.agent(agent_id)
        .sealer("agent")
        .seal(
            DiscoveryResult(
                agent_id=agent_id,
                discovery_id=f"d-{number}",
                discovered_at=datetime(2026, 1, 1, tzinfo=UTC),
                findings={"services": [{"name": text, "load": 1.0}]},
            )
        )
    )


async def acknowledge(zone: Zone, batch: dict[str, Any]) -> None:
    await zone.link.send(DiscoveryAck(batch_id=batch["batch_id"]))
    await zone.until(lambda: batch["batch_id"] not in zone.gateway.buffer.ids())


async def lose_the_link(zone: Zone) -> None:
    zone.link.socket.transport.abort()
    await zone.until(lambda: not zone.gateway.link.is_up)


async def test_results_come_as_they_were_sealed(open_zone: OpenZone) -> None:
    async with open_zone(aggregation=PATIENT) as zone, zone.agent("srv-1") as one, zone.agent("srv-2") as two:
        sent = [result(zone, "srv-1", 1), result(zone, "srv-1", 2), result(zone, "srv-2", 3)]
        await one.send(sent[0])
        await one.send(sent[1])
        await zone.until(lambda: zone.gateway.counters.traffic.from_agents.frames >= 2)
        await two.send(sent[2])
        batch = await zone.link.next("discovery_batch")
        assert batch["gateway_id"] == "gw-1"
        assert batch["discoveries"] == [json.loads(each) for each in sent]
        assert zone.gateway.buffer.records == 3
        await acknowledge(zone, batch)


async def test_a_batch_does_not_wait_to_be_full(open_zone: OpenZone) -> None:
    async with open_zone(aggregation=HASTY) as zone, zone.agent("srv-1") as agent:
        await agent.send(result(zone, "srv-1", 1))
        assert len((await zone.link.next("discovery_batch"))["discoveries"]) == 1


async def test_it_waits_for_the_backend_and_comes_again_until_it_is_acknowledged(open_zone: OpenZone) -> None:
    async with open_zone(aggregation=HASTY) as zone, zone.agent("srv-1") as agent:
        await lose_the_link(zone)
        await agent.send(result(zone, "srv-1", 1))
        await zone.greet()
        await zone.link.next("agent_online")
        first = await zone.link.next("discovery_batch")
        await lose_the_link(zone)
        await zone.greet()
        await zone.link.next("agent_online")
        again = await zone.link.next("discovery_batch")
        assert again == first
        await acknowledge(zone, again)
        assert Loss.DISCOVERY_TOO_MUCH not in zone.gateway.counters.totals()


async def test_it_survives_the_gateway(open_zone: OpenZone, gateway_configuration: Configuration) -> None:
    """Also what had not become a batch yet when the gateway was stopped."""
    async with open_zone(aggregation=PATIENT) as zone, zone.agent("srv-1") as agent:
        await lose_the_link(zone)
        for number in range(4):
            await agent.send(result(zone, "srv-1", number))
        await zone.until(lambda: zone.gateway.counters.traffic.from_agents.frames == 4)
        await zone.until(lambda: zone.gateway.buffer.records == 3)
    async with open_zone(aggregation=PATIENT) as zone:
        batches = [await zone.link.next("discovery_batch") for _ in range(2)]
        told = [each["discovery_id"] for batch in batches for each in batch["discoveries"]]
        assert told == ["d-0", "d-1", "d-2", "d-3"]
        for batch in batches:
            await acknowledge(zone, batch)


async def test_the_backend_is_not_flooded_after_an_absence(open_zone: OpenZone) -> None:
    one_each: Any = Aggregation(discovery_batch_size=1)
    async with open_zone(aggregation=one_each) as zone, zone.agent("srv-1") as agent:
        for number in range(7):
            await agent.send(result(zone, "srv-1", number))
        batches = [await zone.link.next("discovery_batch") for _ in range(4)]
        await zone.until(lambda: zone.gateway.buffer.records == 7)
        assert zone.gateway.link.waiting == 0
        for _ in range(3):
            await acknowledge(zone, batches.pop(0))
            batches.append(await zone.link.next("discovery_batch"))
        assert [each["discoveries"][0]["discovery_id"] for each in batches] == ["d-3", "d-4", "d-5", "d-6"]


async def test_a_batch_that_the_backend_refuses_holds_up_nobody(open_zone: OpenZone) -> None:
    async with open_zone(aggregation=HASTY) as zone, zone.agent("srv-1") as agent:
        await agent.send(result(zone, "srv-1", 1))
        batch = await zone.link.next("discovery_batch")
        await zone.link.send(Error(code="malformed_message", reason="no", about=batch["batch_id"]))
        await zone.until(lambda: zone.gateway.counters.total(Loss.DISCOVERY_REFUSED) == 1)
        assert zone.gateway.buffer.ids() == []
        # An error about anything else throws nothing away.
        await agent.send(result(zone, "srv-1", 2))
        second = await zone.link.next("discovery_batch")
        await zone.link.send(Error(code="malformed_message", reason="no", about="d-2"))
        await acknowledge(zone, second)
        assert zone.gateway.counters.total(Loss.DISCOVERY_REFUSED) == 1


async def test_results_in_anothers_name_end_the_session(open_zone: OpenZone) -> None:
    async with open_zone(aggregation=HASTY) as zone, zone.agent("srv-1") as agent:
        await agent.send(result(zone, "srv-2", 1))
        assert await agent_is_put_out(agent)
        assert zone.gateway.buffer.records == 0


async def agent_is_put_out(agent: Wire) -> bool:
    assert (await agent.next("error"))["code"] == "identity_mismatch"
    return await agent.close_code() == CloseCode.IDENTITY_MISMATCH


async def test_a_bad_result_spoils_no_batch(open_zone: OpenZone) -> None:
    async with open_zone(aggregation=HASTY) as zone, zone.agent("srv-1") as agent:
        for bad in (
            '{"type":"discovery_result","agent_id":"srv-1","findings":[]}',
            result(zone, "srv-1", 1, text="x" * (4 * 1024 * 1024 - 65_000)),
        ):
            await agent.send(bad)
            assert (await agent.next("error"))["code"] in ("malformed_message", "frame_too_large")
        await agent.send(result(zone, "srv-1", 2))
        batch = await zone.link.next("discovery_batch")
        assert [each["discovery_id"] for each in batch["discoveries"]] == ["d-2"]


async def test_large_results_come_in_several_batches(open_zone: OpenZone) -> None:
    async with open_zone() as zone, zone.agent("srv-1") as agent:
        for number in range(3):
            await agent.send(result(zone, "srv-1", number, text="x" * 700_000))
        first, second = [await zone.link.next("discovery_batch") for _ in range(2)]
        assert len(first["discoveries"]) == len(second["discoveries"]) == 1


async def test_a_full_disk_is_no_reason_to_stop(
    open_zone: OpenZone, gateway_configuration: Configuration, monkeypatch: Any
) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("opsmap_gateway.buffer.os.fsync", fail)
    async with open_zone(aggregation=HASTY) as zone, zone.agent("srv-1") as agent:
        await agent.send(result(zone, "srv-1", 1))
        batch = await zone.link.next("discovery_batch")
        await acknowledge(zone, batch)


async def test_without_a_buffer_it_is_kept_in_memory(open_zone: OpenZone, gateway_configuration: Configuration) -> None:
    off = replace(gateway_configuration.buffer, enabled=False)
    async with open_zone(aggregation=HASTY, buffer=off) as zone, zone.agent("srv-1") as agent:
        await agent.send(result(zone, "srv-1", 1))
        await zone.link.next("discovery_batch")
        assert not off.path.exists()
        gateway: Gateway = zone.gateway
    assert gateway.counters.total(Loss.DISCOVERY_UNSAVED) == 1


async def test_repeats_what_is_not_answered(open_zone: OpenZone, monkeypatch: Any) -> None:
    monkeypatch.setattr("opsmap_gateway.discovery._ANSWER_TIMEOUT_S", 0.1)
    async with open_zone(aggregation=HASTY) as zone, zone.agent("srv-1") as agent:
        await agent.send(result(zone, "srv-1", 1))
        first = await zone.link.next("discovery_batch")
        async with asyncio.timeout(2):
            assert await zone.link.next("discovery_batch") == first
        await acknowledge(zone, first)
