"""Keys of `agent.yaml` whose effect shows only in a whole agent. test_agent_configuration.py lists all keys."""

from __future__ import annotations

import asyncio
import ssl
import urllib.error
import urllib.request
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from test_agent_status import well

from opsmap_agent.configuration import Buffer, Configuration, Metrics, Network, RunAs
from opsmap_agent.host import description as host
from opsmap_agent.identity.certificates import client_context
from opsmap_agent.upkeep.metrics import serve_metrics
from opsmap_protocol.checks import FileProbe, HealthCheck
from opsmap_protocol.messages import CommandOutput, CommandResult, ConfigUpdate, HealthChanged
from opsmap_protocol.specs import ExecuteCommand, NativeCommand, SyncMode

if TYPE_CHECKING:
    from conftest import OpenHost

AGENT_ID = "srv-1"


def source_of(wire: Any) -> str:
    """The address that a connection came from, as the server sees it."""
    return str(wire.socket.remote_address[0])


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.2"])
async def test_bind_address_is_what_the_gateway_sees(open_host: OpenHost, address: str) -> None:
    async with open_host(network=Network(bind_address=address)) as agent:
        assert source_of(agent.gateway.wire) == address


async def test_bind_interface_is_asked_for_its_address_at_each_connection(
    open_host: OpenHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interfaces of this machine's own would all look alike to a server on it."""
    addresses = {"eth1": "127.0.0.3"}
    monkeypatch.setattr(host, "interface_address", addresses.get)
    async with open_host(network=Network(bind_interface="eth1")) as agent:
        assert source_of(agent.gateway.wire) == "127.0.0.3"
        addresses["eth1"] = "127.0.0.4"
        await agent.gateway.wire.socket.close()
        await agent.gateway.welcome()
        assert source_of(agent.gateway.wire) == "127.0.0.4"


def test_interface_of_this_host_has_its_address() -> None:
    assert host.interface_address("lo") == "127.0.0.1"
    assert host.interface_address("no-such0") is None
    assert "127.0.0.1" in host.own_addresses()


async def test_bind_port_is_what_the_gateway_sees(open_host: OpenHost, free_port: int) -> None:
    async with open_host(network=Network(bind_port=free_port)) as agent:
        assert agent.gateway.wire.socket.remote_address[1] == free_port


def test_tls_versions_are_bounded_on_both_sides(agent_configuration: Configuration) -> None:
    context = client_context(replace(agent_configuration, tls=replace(agent_configuration.tls, max_version="1.2")))
    assert context.maximum_version is ssl.TLSVersion.TLSv1_2
    with pytest.raises(ValueError, match="max_version is smaller than min_version"):
        replace(agent_configuration.tls, min_version="1.3", max_version="1.2")


async def test_tls_max_version_is_what_is_spoken(open_host: OpenHost, agent_configuration: Configuration) -> None:
    async with open_host(tls=replace(agent_configuration.tls, max_version="1.2")) as agent:
        assert agent.gateway.wire.socket.transport.get_extra_info("ssl_object").version() == "TLSv1.2"


# The buffer


@pytest.mark.parametrize(
    ("buffer", "metric", "log", "discovery"),
    [
        (Buffer(), True, True, True),
        (Buffer(buffer_events=["metric"]), True, False, False),
        (Buffer(buffer_events=["log"]), False, True, False),
        (Buffer(buffer_events=["discovery_result"]), False, False, True),
        (Buffer(enabled=False), False, False, False),
    ],
)
def test_buffer_events_say_what_waits(buffer: Buffer, metric: bool, log: bool, discovery: bool) -> None:
    health = HealthChanged("c", "healthy", {}, datetime.now(UTC))  # type: ignore[arg-type]
    output = CommandOutput("r", "stdout", 0, "")  # type: ignore[arg-type]
    result = CommandResult("r", True, "succeeded")  # type: ignore[arg-type]
    assert (buffer.keeps_event(health), buffer.keeps_event(output)) == (metric, log)
    assert buffer.keeps("discovery_result") is discovery
    assert buffer.keeps_event(result), "what commands did is kept in any case"


async def test_without_a_buffer_results_wait_all_the_same(
    open_host: OpenHost, agent_configuration: Configuration, tmp_path: Path
) -> None:
    async with open_host(buffer=replace(agent_configuration.buffer, enabled=False)) as agent:
        check = HealthCheck("file", FileProbe(str(tmp_path / "flag")), interval_ms=20, failure_threshold=1)
        await agent.gateway.tell(ConfigUpdate(AGENT_ID, datetime.now(UTC), "r-1", [check]))
        assert (await agent.gateway.body("health_changed", "file"))["status"] == "unhealthy"
        seq = agent.gateway.events[-1]["seq"]
        flag, go = tmp_path / "flag", tmp_path / "go"
        wait = f"while [ ! -e {go} ]; do sleep 0.01; done; seq 20000"
        request = await agent.gateway.command(ExecuteCommand("sh", ["-c", wait]))
        await agent.gateway.until(lambda: request in agent.gateway.received)
        await agent.gateway.wire.socket.close()
        agent.gateway.forget()
        await agent.gateway.register()
        flag.touch()
        go.touch()
        while request in (await agent.gateway.challenge())["open_requests"]:  # noqa: ASYNC110 - nothing announces it
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.1)  # five intervals of the check: long enough for what must not be recorded
        assert (await agent.gateway.challenge())["last_seq"] == seq + 1
        await agent.gateway.resume(acked_seq=seq)
        assert (await agent.gateway.body("command_result", request))["success"]
        told = agent.gateway.events
        await agent.gateway.until(lambda: any(event["body"].get("status") == "healthy" for event in told))


# Limits of commands, metrics, identity


async def test_sync_commands_end_by_the_default_or_the_longest_time(
    open_host: OpenHost, agent_configuration: Configuration
) -> None:
    limits = replace(agent_configuration.scripts, default_timeout_secs=1, max_timeout_secs=2)
    async with open_host(scripts=limits) as agent:
        for asked_ms, seconds in ((0, "1"), (60_000, "2")):
            slow = await agent.gateway.run(ExecuteCommand("sleep", ["30"]), SyncMode(timeout_ms=asked_ms))
            assert slow["error"] == f"it did not end within {seconds} s"


async def test_output_beyond_the_limit_is_counted_and_not_kept(
    open_host: OpenHost, agent_configuration: Configuration
) -> None:
    async with open_host(scripts=replace(agent_configuration.scripts, max_output_bytes=1024)) as agent:
        result = (await agent.gateway.run(ExecuteCommand("sh", ["-c", "printf %5000s x"])))["result"]
        assert len(result["stdout"]) <= 1024
        assert "5000" in str(result) or "3976" in str(result)


async def test_metrics_tell_what_status_tells_and_only_to_this_machine() -> None:
    listening: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def look() -> Any:
        return well(clock_ahead_s=3600.0, written_at=datetime.now(UTC))

    serving = asyncio.create_task(serve_metrics("127.0.0.1", 0, look, on_listening=listening.set_result))
    port = await listening

    def get(path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    code, text = await asyncio.to_thread(get, "/metrics")
    assert code == 200
    for line in (
        'opsmap_agent_build_info{agent="srv-1",version="1.0"} 1.0',
        "opsmap_agent_connected_gateways 1.0",
        "opsmap_agent_buffer_events 3.0",
        'opsmap_agent_commands_total{outcome="succeeded"} 10.0',
        'opsmap_agent_refusals_total{kind="rejected"} 1.0',
    ):
        assert line in text
    code, text = await asyncio.to_thread(get, "/healthz")
    assert code == 503
    assert "clock is 60 minutes fast" in text
    serving.cancel()
    await asyncio.wait([serving])


async def test_port_of_the_metrics_that_is_taken_is_no_reason_to_end(
    open_host: OpenHost, caplog: pytest.LogCaptureFixture
) -> None:
    server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, open_host(metrics=Metrics(enabled=True, bind=f"127.0.0.1:{port}")) as agent:
        assert (await agent.gateway.run(NativeCommand("uptime")))["success"]
        assert f"there are no metrics: 127.0.0.1:{port} cannot be had" in caplog.text


async def test_another_account_than_the_configured_one_is_told(
    open_host: OpenHost, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_host(identity=RunAs(run_as="somebody-else")):
        assert "but identity.run_as is somebody-else" in caplog.text
