"""What a monitoring system sees of a gateway."""

from __future__ import annotations

import asyncio
import json
import socket
from dataclasses import replace
from http.client import HTTPConnection
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from opsmap_daemon.configuration import loopback_address
from opsmap_gateway.configuration import Configuration, Metrics
from opsmap_gateway.counters import Loss
from opsmap_gateway.gateway import Gateway

if TYPE_CHECKING:
    from conftest import OpenZone, Zone

EVENTS = '{"type":"events","agent_id":"srv-1","incarnation":"é","events":[]}'
ON = Metrics(bind_address="127.0.0.1:0")


def ask(port: int, path: str, method: str = "GET") -> tuple[int, str, str]:
    """Status, content type and body."""
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.headers["Content-Type"], answer.read().decode()
    finally:
        connection.close()


async def answer_of(zone: Zone, path: str) -> tuple[int, str, str]:
    assert zone.gateway.metrics is not None
    return await asyncio.to_thread(ask, zone.gateway.metrics.port, path)


async def metrics_of(zone: Zone) -> dict[str, float]:
    """Each sample as `name{label,values}`."""
    status, content_type, text = await answer_of(zone, "/metrics")
    assert status == 200
    assert content_type.startswith("text/plain")
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {
        " ".join([sample.name.removeprefix("opsmap_gateway_"), *sample.labels.values()]): sample.value
        for sample in samples
    }


async def test_metrics_tell_what_is_there_and_what_went_wrong(open_zone: OpenZone) -> None:
    async with open_zone(metrics=ON) as zone, zone.agent("srv-1") as agent:
        await agent.send(EVENTS)
        await zone.link.next("events")
        await zone.link.send('{"type":"command","target_agent":"srv-1","request_id":"r-1"}')
        await agent.next("command")
        await zone.link.send('{"type":"command","target_agent":"srv-9","request_id":"r-2"}')
        await zone.link.next("command_refused")
        async with zone.dial(zone.pki.agent("srv-2")) as stranger:
            await stranger.send(zone.registration("srv-3"))
            await stranger.next("error")
        async with zone.dial(zone.pki.agent("srv-4")):
            seen = await metrics_of(zone)
    assert seen["connected_agents"] == 1
    assert seen["unregistered_connections"] >= 1
    assert seen["sessions_refused_total identity_mismatch"] == 1
    assert seen["commands_total forwarded"] == 1
    assert seen["commands_total agent_offline"] == 1
    assert seen["losses_total command_refused"] == 1
    assert seen["waiting_frames"] == 0
    assert seen["backend_up"] == 1
    assert 0 <= seen["backend_silent_seconds"] < 5
    assert seen["frames_total in agents"] == 1
    assert seen["frame_bytes_total in agents"] == len(EVENTS.encode())
    assert seen["frames_total out agents"] == 2
    assert seen["frames_total in backend"] == 2
    assert seen["frames_total out backend"] == 3
    assert seen["buffer_bytes"] == seen["buffer_records"] == 0
    assert seen["build_info gw-1 0.1.0 test"] == 1
    assert seen["process_resident_memory_bytes"] > 0


async def test_health_follows_the_backend(open_zone: OpenZone) -> None:
    async with open_zone(metrics=ON) as zone, zone.agent("srv-1"):
        status, content_type, body = await answer_of(zone, "/healthz")
        assert (status, content_type) == (200, "application/json")
        assert json.loads(body) == {"status": "ok", "reason": None, "agents": 1}
        zone.link.socket.transport.abort()
        await zone.until(lambda: not zone.gateway.link.is_up)
        status, _, body = await answer_of(zone, "/healthz")
        assert (status, json.loads(body)["reason"]) == (503, "the backend is not connected")
        assert (await metrics_of(zone))["backend_up"] == 0
        await zone.greet()
        await zone.gateway.drain()
        status, _, body = await answer_of(zone, "/healthz?verbose")
        assert (status, json.loads(body)["reason"]) == (503, "the gateway is stopping")


async def test_there_is_nothing_else(open_zone: OpenZone) -> None:
    async with open_zone(metrics=replace(ON, path="/numbers")) as zone:
        assert (await answer_of(zone, "/metrics"))[0] == 404
        assert (await answer_of(zone, "/../etc/passwd"))[0] == 404
        assert (await answer_of(zone, "/numbers"))[0] == 200


async def test_bad_requests_harm_nobody(open_zone: OpenZone) -> None:
    async with open_zone(metrics=ON) as zone:
        assert zone.gateway.metrics is not None
        port = zone.gateway.metrics.port
        long = b"x" * 100_000
        for request in (
            b"GARBAGE\r\n\r\n",
            b"POST / HTTP/1.1\r\n\r\n",
            b"GET " + long,
            b"GET / HTTP/1.1\r\nX: " + long,
        ):
            await asyncio.to_thread(shout, port, request)
        silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(50)]
        assert (await answer_of(zone, "/healthz"))[0] == 200
        for each in silent:
            each.close()


def shout(port: int, request: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        try:
            connection.sendall(request)
            while connection.recv(65_536):
                pass
        except (BrokenPipeError, ConnectionResetError):
            return


@pytest.mark.parametrize("address", ["127.0.0.1:9091", "[::1]:9091", "localhost:0", "127.8.9.1:1"])
def test_addresses_of_this_machine(address: str) -> None:
    assert loopback_address(address) is None


@pytest.mark.parametrize(
    "address", ["0.0.0.0:9091", "[::]:9091", "10.2.0.1:9091", "metrics.example:9091", "localhost.example:1", "9091", ""]
)
def test_other_addresses_are_a_fault(address: str) -> None:
    assert loopback_address(address) == "an address of this machine alone, like 127.0.0.1:9091"


async def test_address_in_use_is_told_at_the_start(gateway_configuration: Configuration, free_port: int) -> None:
    taken: Any = Metrics(bind_address=f"127.0.0.1:{free_port}")
    with socket.create_server(("127.0.0.1", free_port)), pytest.raises(OSError, match="Address already in use"):
        await Gateway(replace(gateway_configuration, metrics=taken)).run()


async def test_it_costs_nothing_when_it_is_off(open_zone: OpenZone) -> None:
    async with open_zone() as zone:
        assert zone.gateway.metrics is None
        assert zone.gateway.counters.total(Loss.CONNECTION_REFUSED) == 0
