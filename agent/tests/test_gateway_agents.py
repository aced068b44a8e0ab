"""Whom a gateway lets in, and how sessions begin and end."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from websockets.exceptions import InvalidMessage, InvalidStatus

from opsmap_gateway.configuration import Configuration
from opsmap_gateway.counters import Loss
from opsmap_protocol.enums import PeerRole
from opsmap_protocol.errors import CloseCode
from opsmap_protocol.identity import Identity
from opsmap_protocol.messages import Heartbeat
from testing_pki import OTHER_ORGANIZATION

if TYPE_CHECKING:
    from conftest import Dial, OpenZone, Wire, Zone

ORGANIZATION = "11111111-1111-4111-8111-111111111111"


async def is_refused(wire: Wire, code: str, close_code: CloseCode) -> str:
    """The reason with which a connection is turned away."""
    error = await wire.next("error")
    assert error["code"] == code
    assert await wire.close_code() == close_code
    return str(error["reason"])


async def is_well(zone: Zone, wire: Wire) -> bool:
    """Whether an agent's session still carries frames."""
    await wire.send('{"type":"command_received","agent_id":"srv-1","request_id":"r-1"}')
    received = await zone.link.next("command_received")
    return bool(received["request_id"] == "r-1")


async def test_backend_hears_who_the_agent_is(open_zone: OpenZone) -> None:
    async with open_zone() as zone:
        leaf = zone.pki.agent("srv-1")
        async with zone.dial(leaf) as agent:
            registration = zone.registration("srv-1")
            await agent.send(registration)
            registered = await agent.next("registered")
            online = await zone.link.next("agent_online")
    assert online["session_id"] == registered["session_id"]
    assert online["gateway_id"] == "gw-1"
    assert online["agent"] == json.loads(registration), "the seal and all that is under it"


async def test_backend_hears_that_the_agent_left(open_zone: OpenZone) -> None:
    async with open_zone() as zone:
        async with zone.agent("srv-1"):
            pass
        offline = await zone.link.next("agent_offline")
    assert offline["agent_id"] == "srv-1"
    assert offline["reason"] == "the connection was closed"


async def test_lost_connection_is_told_as_such(open_zone: OpenZone) -> None:
    async with open_zone() as zone, zone.agent("srv-1") as agent:
        agent.socket.transport.abort()
        offline = await zone.link.next("agent_offline")
    assert offline["reason"].startswith("connection lost")


async def test_certificate_of_another_ca_is_refused_by_tls(
    open_zone: OpenZone, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_zone() as zone, zone.agent("srv-1") as agent:
        uri = Identity(ORGANIZATION, PeerRole.AGENT, "srv-2").uri
        with pytest.raises((InvalidMessage, ConnectionResetError)):
            async with zone.dial(zone.pki.leaf(zone.pki.gateway_ca, uri)):
                pass
        assert await is_well(zone, agent)
    assert "a TLS handshake failed: unable to get local issuer certificate" in caplog.text


async def test_agent_of_another_organization_is_refused(open_zone: OpenZone) -> None:
    async with open_zone() as zone, zone.dial(zone.pki.agent("srv-1", OTHER_ORGANIZATION)) as agent:
        reason = await is_refused(agent, "identity_mismatch", CloseCode.IDENTITY_MISMATCH)
        assert zone.gateway.counters.total(Loss.CONNECTION_REFUSED) == 1
    assert reason == "the certificate belongs to another organization than this gateway"


async def test_gateway_certificate_from_the_agent_ca_is_refused(open_zone: OpenZone) -> None:
    uri = Identity(ORGANIZATION, PeerRole.GATEWAY, "srv-1").uri
    async with open_zone() as zone, zone.dial(zone.pki.leaf(zone.pki.agent_ca, uri)) as agent:
        await is_refused(agent, "invalid_identity", CloseCode.IDENTITY_MISMATCH)


async def test_registration_under_another_name_is_refused(open_zone: OpenZone) -> None:
    async with open_zone() as zone, zone.dial(zone.pki.agent("srv-1")) as agent:
        await agent.send(zone.registration("srv-2"))
        reason = await is_refused(agent, "identity_mismatch", CloseCode.IDENTITY_MISMATCH)
    assert reason == "the certificate is that of agent srv-1, not of 'srv-2'"


@pytest.mark.parametrize("version", [0, 2, 99])
async def test_another_protocol_version_is_refused(open_zone: OpenZone, version: int) -> None:
    async with open_zone() as zone, zone.dial(zone.pki.agent("srv-1")) as agent:
        await agent.send(zone.registration("srv-1", protocol_version=version))
        reason = await is_refused(agent, "version_unsupported", CloseCode.VERSION_UNSUPPORTED)
    assert reason == f"this side speaks protocol versions 1 to 1, the other {version}"


async def test_newer_agent_that_still_speaks_ours_is_told_so(open_zone: OpenZone) -> None:
    async with open_zone() as zone, zone.dial(zone.pki.agent("srv-1")) as agent:
        await agent.send(zone.registration("srv-1", protocol_version=9, protocol_min=1))
        assert (await agent.next("registered"))["protocol_version"] == 1


async def test_newer_registration_of_unknown_shape_is_a_matter_of_version(open_zone: OpenZone) -> None:
    async with open_zone() as zone, zone.dial(zone.pki.agent("srv-1")) as agent:
        await agent.send('{"type":"register","protocol_version":2,"name":"srv-1"}')
        await is_refused(agent, "version_unsupported", CloseCode.VERSION_UNSUPPORTED)


@pytest.mark.parametrize(
    ("frame", "code", "close_code"),
    [
        ("not JSON", "malformed_message", CloseCode.BAD_MESSAGE),
        ('{"type":"register","protocol_version":1,"agent_id":"srv-1"}', "malformed_message", CloseCode.BAD_MESSAGE),
        ('{"type":"heartbeat","agent_id":"srv-1"}', "not_registered", CloseCode.UNAUTHENTICATED),
        (b"\xff\xfe", "malformed_message", CloseCode.BAD_MESSAGE),
        ('{"type":"error","code":"no","reason":"I do not want you"}', "no", CloseCode.REFUSED_BY_PEER),
    ],
)
async def test_first_frame_must_be_a_registration(
    open_zone: OpenZone, frame: str | bytes, code: str, close_code: CloseCode
) -> None:
    async with open_zone() as zone, zone.dial(zone.pki.agent("srv-1")) as agent:
        await agent.send(frame)
        await is_refused(agent, code, close_code)
        assert len(zone.gateway.registry) == 0


async def test_greeting_is_small(open_zone: OpenZone) -> None:
    """What comes before a registration has a limit of its own, kept before the frame is read."""
    async with open_zone() as zone, zone.dial(zone.pki.agent("srv-1")) as agent:
        await agent.send('{"type":"register","hostname":"' + "x" * 300_000 + '"}')
        assert await agent.close_code() == 1009


async def test_connection_that_says_nothing_is_closed(open_zone: OpenZone) -> None:
    async with open_zone(registration_timeout_s=0.05) as zone, zone.dial(zone.pki.agent("srv-1")) as agent:
        reason = await is_refused(agent, "not_registered", CloseCode.UNAUTHENTICATED)
    assert reason == "no register within 0.05 s"


async def test_other_paths_are_not_found(open_zone: OpenZone, dial: Dial) -> None:
    async with open_zone() as zone:
        with pytest.raises(InvalidStatus) as refused:
            async with dial(zone.url.replace("/agent/", "/"), zone.pki.agent("srv-1"), zone.pki.gateway_ca.ca):
                pass
    assert refused.value.response.status_code == 404


async def test_newest_session_replaces_the_former(open_zone: OpenZone) -> None:
    async with open_zone() as zone, zone.agent("srv-1") as former, zone.agent("srv-1") as newest:
        assert await former.close_code() == CloseCode.REPLACED
        await zone.link.send('{"type":"resume","target_agent":"srv-1","incarnation":"i-1","acked_seq":0}')
        await newest.next("resume")
        # Had the end of the former been told as agent_offline, it would come before this.
        assert await is_well(zone, newest)
        assert len(zone.gateway.registry) == 1


async def test_replacing_does_not_wait_for_a_former_session_that_is_stuck(open_zone: OpenZone) -> None:
    async with open_zone() as zone, zone.agent("srv-1") as former:
        former.socket.transport.pause_reading()
        async with asyncio.timeout(1), zone.agent("srv-1") as newest:
            assert await is_well(zone, newest)
        former.socket.transport.abort()


async def test_too_many_connections_are_refused(open_zone: OpenZone, gateway_configuration: Configuration) -> None:
    limited = replace(gateway_configuration.agent_server, max_connections=2)
    async with open_zone(agent_server=limited) as zone, zone.agent("srv-1") as first, zone.agent("srv-2"):
        async with zone.dial(zone.pki.agent("srv-3")) as third:
            reason = await is_refused(third, "too_many_connections", CloseCode.TOO_MANY_CONNECTIONS)
        assert reason == "this gateway accepts 2 agents and has as many"
        assert await is_well(zone, first)
        # One that is here already may come anew, whatever the number.
        async with zone.agent("srv-1") as again:
            assert await is_well(zone, again)


async def test_agent_that_never_registers_holds_one_place_only(
    open_zone: OpenZone, gateway_configuration: Configuration
) -> None:
    limited = replace(gateway_configuration.agent_server, max_connections=2)
    async with open_zone(agent_server=limited) as zone:
        leaf = zone.pki.agent("srv-1")
        async with zone.dial(leaf) as first, zone.dial(leaf) as second, zone.dial(leaf), zone.agent("srv-2"):
            assert await first.close_code() == await second.close_code() == 1006


async def test_second_registration_is_answered_and_harmless(open_zone: OpenZone) -> None:
    async with open_zone() as zone, zone.agent("srv-1") as agent:
        await agent.send(zone.registration("srv-1"))
        assert (await agent.next("error"))["code"] == "malformed_message"
        assert await is_well(zone, agent)


async def test_heartbeats_are_gathered(open_zone: OpenZone) -> None:
    def heartbeat(name: str, uptime: int) -> Heartbeat:
        return Heartbeat(name, uptime_secs=uptime, load=[0.1, 0.2, 0.3], memory_percent=4.5, active_commands=0)

    async with open_zone() as zone, zone.agent("srv-1") as one, zone.agent("srv-2") as two:
        for wire, name, uptime in [(one, "srv-1", 10), (one, "srv-1", 20), (two, "srv-2", 30)]:
            await wire.send(heartbeat(name, uptime))
        # Frames of one agent keep their order, so behind these nothing of theirs is on its way.
        assert await is_well(zone, one)
        await two.send('{"type":"command_received","agent_id":"srv-2","request_id":"r-2"}')
        await zone.link.next("command_received")
        await zone.gateway.heartbeats.flush()
        message = await zone.link.next("aggregated_heartbeat")
    assert {(agent["agent_id"], agent["uptime_secs"]) for agent in message["agents"]} == {
        ("srv-1", 20),
        ("srv-2", 30),
    }
