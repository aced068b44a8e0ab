"""Frames between agents and backend, through a running gateway."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from opsmap_gateway.counters import Loss
from opsmap_protocol.errors import CloseCode
from opsmap_protocol.messages import Command, Error
from opsmap_protocol.specs import NativeCommand, SyncMode

if TYPE_CHECKING:
    from conftest import OpenZone, Wire, Zone


def command(request_id: str, agent_id: str) -> Command:
    return Command(
        request_id=request_id,
        target_agent=agent_id,
        command=NativeCommand("uptime"),
        execution_mode=SyncMode(),
        timeout_ms=5_000,
        issued_at=datetime(2026, 1, 1, tzinfo=UTC),
        not_after=datetime(2030, 1, 1, tzinfo=UTC),
    )


async def is_well(zone: Zone, wire: Wire, agent_id: str) -> bool:
    """Whether a command reaches the agent and its answer the backend, with nothing else before either."""
    await zone.link.send(command("r-9", agent_id))
    await wire.next("command")
    await wire.send(f'{{"type":"command_received","agent_id":"{agent_id}","request_id":"r-9"}}')
    await zone.link.next("command_received")
    return True


@pytest.mark.parametrize(
    "frame",
    [
        '{"type": "command_received", "agent_id": "srv-1", "request_id": "r-1"}',
        '{"agent_id":"srv-1","events":[],"type":"events","incarnation":"i-1","unknown":{"field":[1.0,null]}}',
        '{"type":"events","agent_id":"srv-1","incarnation":"é ☃","events":[]}\n',
        '{"type":"job_statuses","agent_id":"srv-1","jobs":[]}',
        '{"type":"presence","agent_id":"srv-1","token":"t","signature":"any seal","signed_by":"k"}',
        '{"type":"probe_result","agent_id":"srv-1","open_requests":[],"never_seen":["r-1"]}',
        '{"type":"error","agent_id":"srv-1","code":"unknown_message","reason":"what?"}',
    ],
)
async def test_frames_of_an_agent_arrive_byte_for_byte(open_zone: OpenZone, frame: str) -> None:
    async with open_zone() as zone, zone.agent("srv-1") as agent:
        await agent.send(frame)
        assert await zone.link.next_frame() == frame


@pytest.mark.parametrize(
    "frame",
    [
        '{"type": "command",\n "request_id":"r-1","target_agent":"srv-1","command":{"type":"new kind"}}',
        '{"type":"resume","target_agent":"srv-1","incarnation":"i-1","acked_seq":3}',
        '{"type":"events_ack","target_agent":"srv-1","incarnation":"i-1","seq":9}',
        '{"type":"check_job_status","target_agent":"srv-1","job_ids":["j-1"]}',
        '{"type":"cancel_command","target_agent":"srv-1","request_id":"r-1"}',
        '{"type":"config_update","target_agent":"srv-1","revision":"é","health_checks":[]}',
        '{"type":"trust","target_agent":"srv-1","certificates":["AA=="]}',
        '{"type":"challenge","target_agent":"srv-1","token":"t","signature":"any seal","signed_by":"k"}',
        '{"type":"probe_commands","target_agent":"srv-1","request_ids":["r-1"]}',
        '{"type":"discover","target_agent":"srv-1","discovery_id":"d-1","discover_types":[]}',
    ],
)
async def test_frames_for_an_agent_arrive_byte_for_byte(open_zone: OpenZone, frame: str) -> None:
    async with open_zone() as zone, zone.agent("srv-1") as agent, zone.agent("srv-2") as other:
        await zone.link.send(frame)
        assert await agent.next_frame() == frame
        assert await is_well(zone, other, "srv-2")


async def test_order_is_kept_both_ways(open_zone: OpenZone) -> None:
    numbers = range(500)
    async with open_zone() as zone, zone.agent("srv-1") as agent:
        for number in numbers:
            await zone.link.send(command(f"r-{number}", "srv-1"))
        for number in numbers:
            assert (await agent.next("command"))["request_id"] == f"r-{number}"
        for number in numbers:
            await agent.send(f'{{"type":"command_received","agent_id":"srv-1","request_id":"r-{number}"}}')
        for number in numbers:
            assert (await zone.link.next("command_received"))["request_id"] == f"r-{number}"


async def test_command_for_an_absent_agent_is_refused(open_zone: OpenZone) -> None:
    async with open_zone() as zone:
        await zone.link.send(command("r-1", "srv-9"))
        refused = await zone.link.next("command_refused")
        assert zone.gateway.counters.total(Loss.COMMAND_REFUSED) == 1
    assert refused == {
        "type": "command_refused",
        "gateway_id": "gw-1",
        "request_id": "r-1",
        "target_agent": "srv-9",
        "code": "agent_offline",
        "reason": "the agent is not connected here",
    }


async def test_other_frames_for_an_absent_agent_are_counted(open_zone: OpenZone) -> None:
    async with open_zone() as zone, zone.agent("srv-1") as agent:
        await zone.link.send('{"type":"resume","target_agent":"srv-9","incarnation":"i-1","acked_seq":0}')
        assert await is_well(zone, agent, "srv-1")
        assert zone.gateway.counters.total(Loss.AGENT_AWAY) == 1


@pytest.mark.parametrize(
    "frame",
    [
        '{"type":"events","agent_id":"srv-2","incarnation":"i-1","events":[]}',
        '{"type":"events","incarnation":"i-1","events":[]}',
        '{"type":"heartbeat","agent_id":"srv-2","uptime_secs":1,"load":[],"memory_percent":1,"active_commands":0}',
        '{"type":"error","agent_id":"srv-2","code":"c","reason":"r"}',
        '{"type":"events","agent_id":["srv-1"],"incarnation":"i-1","events":[]}',
    ],
)
async def test_frame_in_anothers_name_ends_the_session(open_zone: OpenZone, frame: str) -> None:
    async with open_zone() as zone, zone.agent("srv-2") as other, zone.agent("srv-1") as impostor:
        await impostor.send(frame)
        assert (await impostor.next("error"))["code"] == "identity_mismatch"
        assert await impostor.close_code() == CloseCode.IDENTITY_MISMATCH
        offline = await zone.link.next("agent_offline")
        assert offline["agent_id"] == "srv-1"
        assert await is_well(zone, other, "srv-2")


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ("garbage", "malformed_message"),
        ("[]", "malformed_message"),
        ('{"type":1}', "malformed_message"),
        (b'{"type":"events"}', "malformed_message"),
        ("[" * 100_000, "malformed_message"),
        ('{"type":"heartbeat","agent_id":"srv-1","uptime_secs":"long"}', "malformed_message"),
        ('{"type":"heartbeat","agent_id":"srv-1","load":[' + "0," * 1_000 + "0]}", "frame_too_large"),
        ('{"type":"teleport","agent_id":"srv-1"}', "unknown_message"),
        ('{"type":"events","agent_id":"srv-1","events":[],"agent_id":"srv-2"}', "malformed_message"),
        ('{"type":"\\ud800","agent_id":"srv-1"}', "malformed_message"),
        ('{"type":"events","agent_id":"srv-1","events":["\\uDFFF"]}', "malformed_message"),
        ('{"type":"agent_offline","gateway_id":"gw-1","agent_id":"srv-2"}', "unknown_message"),
    ],
)
async def test_bad_frame_of_an_agent_is_answered_and_harmless(
    open_zone: OpenZone, frame: str | bytes, code: str
) -> None:
    async with open_zone() as zone, zone.agent("srv-1") as agent, zone.agent("srv-2") as other:
        await agent.send(frame)
        assert (await agent.next("error"))["code"] == code
        assert zone.gateway.counters.total(Loss.BAD_FRAME_FROM_AGENT) == 1
        assert await is_well(zone, agent, "srv-1")
        assert await is_well(zone, other, "srv-2")


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ("garbage", "malformed_message"),
        (b"{}", "malformed_message"),
        ('{"type":"command","request_id":"r-1"}', "malformed_message"),
        ('{"type":"command","target_agent":"srv-1"}', "malformed_message"),
        ('{"type":"resume","target_agent":{}}', "malformed_message"),
        ('{"type":"trigger_discovery","target_agent":"srv-1"}', "unknown_message"),
    ],
)
async def test_bad_frame_of_the_backend_is_answered_and_harmless(
    open_zone: OpenZone, frame: str | bytes, code: str
) -> None:
    async with open_zone() as zone, zone.agent("srv-1") as agent:
        await zone.link.send(frame)
        assert (await zone.link.next("error"))["code"] == code
        assert zone.gateway.counters.total(Loss.BAD_FRAME_FROM_BACKEND) == 1
        assert await is_well(zone, agent, "srv-1")


async def test_errors_without_a_name_stay_in_the_log(open_zone: OpenZone, caplog: pytest.LogCaptureFixture) -> None:
    async with open_zone() as zone, zone.agent("srv-1") as agent:
        await agent.send(Error(code="unknown_message", reason="the agent is puzzled"))
        await zone.link.send(Error(code="unknown_message", reason="the backend is puzzled"))
        assert await is_well(zone, agent, "srv-1")
    assert "agent srv-1 reports: the agent is puzzled" in caplog.text
    assert "the backend is puzzled" in caplog.text


async def test_oversized_frame_ends_only_its_own_session(open_zone: OpenZone) -> None:
    async with open_zone() as zone, zone.agent("srv-2") as other, zone.agent("srv-1") as agent:
        await agent.send("x" * (4 * 1024 * 1024 + 1))
        assert await agent.close_code() == 1009
        await zone.link.next("agent_offline")
        assert await is_well(zone, other, "srv-2")
