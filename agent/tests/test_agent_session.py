"""Sessions with a gateway: what is said at the beginning, what is said again, and whom the agent trusts."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from opsmap_agent.agent import Agent
from opsmap_agent.configuration import Configuration, Gateway, Network, Watchdog
from opsmap_agent.journal.committer import CommitError
from opsmap_agent.upkeep.instance import StartError
from opsmap_daemon.backoff import Reconnect
from opsmap_daemon.connection import GaveUpError
from opsmap_protocol.enums import PeerRole
from opsmap_protocol.identity import Identity
from opsmap_protocol.messages import Command, ConfigUpdate, Error, Ping, ProbeCommands, Registered
from opsmap_protocol.specs import ExecuteCommand, NativeCommand, SyncMode
from testing_pki import OTHER_ORGANIZATION

if TYPE_CHECKING:
    from conftest import Host, Listen, OpenHost, Pki

AGENT_ID = "srv-1"


def sh(text: str) -> ExecuteCommand:
    return ExecuteCommand("sh", ["-c", text])


def seqs(host: Host) -> list[int]:
    return [event["seq"] for event in host.gateway.events]


async def drop(host: Host) -> None:
    """The gateway dies."""
    await host.gateway.wire.socket.close()


async def test_registration_says_who_and_what(open_host: OpenHost) -> None:
    async with open_host() as host:
        register = host.gateway.registration
        assert (register["agent_id"], register["protocol_version"], register["protocol_min"]) == (AGENT_ID, 1, 1)
        assert register["os"]["os_type"] == "linux"
        assert {"sync", "async", "health", "native:uptime"} <= set(register["capabilities"])
        presence = host.gateway.presence
        assert presence["incarnation"]
        assert presence["boot_id"]
        assert (presence["first_seq"], presence["last_seq"], presence["open_requests"]) == (1, 0, [])
        assert presence["credits"] == 256


async def test_events_come_again_until_they_are_acknowledged(open_host: OpenHost) -> None:
    async with open_host() as host:
        for _ in range(3):
            await host.gateway.run(NativeCommand("uptime"))
        host.gateway.forget()
        await host.gateway.resume(0)
        await host.gateway.until(lambda: seqs(host) == [1, 2, 3])
        host.gateway.forget()
        await drop(host)
        register = await host.gateway.welcome(acked_seq=2)
        assert register["last_seq"] == 3
        await host.gateway.until(lambda: seqs(host) == [3])


async def test_nothing_is_sent_before_resume(open_host: OpenHost) -> None:
    async with open_host() as host:
        await drop(host)
        await host.gateway.welcome(acked_seq=None)
        request_id = await host.gateway.command(NativeCommand("uptime"))
        await host.gateway.until(lambda: host.gateway.received == [request_id])
        await asyncio.sleep(0.05)
        assert host.gateway.events == []
        await host.gateway.resume(0)
        await host.gateway.until(lambda: seqs(host) == [1])


async def test_acknowledged_events_are_forgotten(open_host: OpenHost) -> None:
    async with open_host() as host:
        for _ in range(3):
            await host.gateway.run(NativeCommand("uptime"))
        await host.gateway.acknowledge(2)
        await host.stop()
        host.gateway.forget()
        await host.start_again(acked_seq=2)
        await host.gateway.until(lambda: seqs(host) == [3])


async def test_other_incarnation_gets_everything(open_host: OpenHost) -> None:
    async with open_host() as host:
        await host.gateway.run(NativeCommand("uptime"))
        host.gateway.forget()
        await host.gateway.resume(1, incarnation="of a journal that was deleted")
        await host.gateway.until(lambda: seqs(host) == [1])


async def test_journal_from_an_old_copy_becomes_a_new_incarnation(open_host: OpenHost) -> None:
    async with open_host() as host:
        await host.gateway.run(NativeCommand("uptime"))
        before = host.gateway.presence["incarnation"]
        await host.gateway.resume(1000)
        register = await host.gateway.welcome(acked_seq=1000, incarnation=before)
        assert register["incarnation"] != before
        await host.gateway.run(NativeCommand("uptime"))
        assert seqs(host)[-1] == 2


async def test_result_finds_its_way_when_the_gateway_died_meanwhile(open_host: OpenHost, tmp_path: Path) -> None:
    go = tmp_path / "go"
    async with open_host() as host:
        request_id = await host.gateway.command(sh(f"while [ ! -e {go} ]; do sleep 0.01; done; echo done"))
        await host.gateway.until(lambda: host.gateway.received == [request_id])
        await drop(host)
        register = await host.gateway.welcome()
        assert register["open_requests"] == [request_id]
        go.touch()
        result = await host.gateway.body("command_result", request_id)
        assert result["result"]["stdout"] == "done\n"


async def test_command_that_stopping_interrupts_ends_definitely(
    open_host: OpenHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("opsmap_agent.commands.dispatcher._STOP_GRACE_S", 0.05)
    async with open_host() as host:
        request_id = await host.gateway.command(sh("sleep 60"), SyncMode(60_000))
        await host.gateway.until(lambda: host.gateway.received == [request_id])
        await host.stop()
        register = await host.start_again()
        assert register["open_requests"] == []
        result = await host.gateway.body("command_result", request_id)
        assert result["error"] == "the agent was stopped while the command ran"


async def test_command_about_to_end_may_end_when_stopping(open_host: OpenHost) -> None:
    async with open_host() as host:
        request_id = await host.gateway.command(sh("sleep 0.2; echo done"))
        await host.gateway.until(lambda: host.gateway.received == [request_id])
        await host.stop()
        await host.start_again()
        assert (await host.gateway.body("command_result", request_id))["success"]


async def test_heartbeats_and_ping(open_host: OpenHost, agent_configuration: Configuration) -> None:
    async with open_host() as host:
        await host.gateway.until(lambda: len(host.gateway.heartbeats) == 1)
        await host.gateway.wire.send(Ping(datetime.now(UTC)))
        await host.gateway.until(lambda: len(host.gateway.heartbeats) == 2)
        beat = host.gateway.heartbeats[1]
        assert beat["agent_id"] == AGENT_ID
        assert len(beat["load"]) == 3
        assert 0 < beat["memory_percent"] < 100
        assert beat["active_commands"] == 0


async def test_probe_is_answered_and_runs_nothing(open_host: OpenHost, tmp_path: Path) -> None:
    async with open_host() as host:
        ended = await host.gateway.command(NativeCommand("uptime"))
        await host.gateway.body("command_result", ended)
        running = await host.gateway.command(sh("sleep 0.5"))
        await host.gateway.until(lambda: host.gateway.received[-1:] == [running])
        await host.gateway.acknowledge(1)
        await asyncio.sleep(0.8)
        host.gateway.forget()
        await host.gateway.resume(2)
        await host.gateway.tell(ProbeCommands(AGENT_ID, [ended, running, "never"]))
        await host.gateway.until(lambda: bool(host.gateway.replies))
        (answer,) = host.gateway.replies
        assert (answer["type"], answer["open_requests"], answer["never_seen"]) == ("probe_result", [], ["never"])
        since = datetime.fromisoformat(answer["journal_since"])
        assert since - timedelta(seconds=70) < datetime.now(UTC) < since
        assert (await host.gateway.body("command_result", ended))["success"]
        assert host.gateway.received == []


async def test_command_that_is_not_in_the_journal_yet_was_seen(open_host: OpenHost) -> None:
    async with open_host() as host:
        for _ in range(20):
            request_id = await host.gateway.command(NativeCommand("uptime"))
            await host.gateway.tell(ProbeCommands(AGENT_ID, [request_id]))
        await host.gateway.until(lambda: len(host.gateway.replies) == 20)
        assert [reply["never_seen"] for reply in host.gateway.replies] == [[]] * 20


async def test_binary_frame_is_refused(open_host: OpenHost) -> None:
    async with open_host() as host:
        now = datetime.now(UTC)
        until = now + timedelta(minutes=1)
        command = Command("r-1", AGENT_ID, NativeCommand("uptime"), SyncMode(5_000), 5_000, now, until)
        frame = host.gateway.sealer.seal(command)
        for binary in (frame.encode(), b"\xff\xfe", b""):
            await host.gateway.wire.socket.send(binary)
        await host.gateway.until(lambda: len(host.gateway.replies) == 3)
        assert {reply["reason"] for reply in host.gateway.replies} == {"frames are text, not binary"}
        assert host.gateway.received == host.gateway.events == []
        await host.gateway.wire.send(frame)
        assert (await host.gateway.body("command_result", "r-1"))["success"]


async def test_backend_may_begin_anew_within_a_session(open_host: OpenHost) -> None:
    """The gateway's link was cut and is back: the agent's socket never knew."""
    async with open_host() as host:
        await host.gateway.run(NativeCommand("uptime"))
        first = host.gateway.token
        host.gateway.forget()
        presence = await host.gateway.challenge()
        assert presence["token"] != first
        assert (presence["first_seq"], presence["last_seq"]) == (1, 1)
        slow = await host.gateway.command(NativeCommand("uptime"))
        await host.gateway.until(lambda: host.gateway.received == [slow])
        assert host.gateway.events == []
        await host.gateway.resume(1)
        await host.gateway.until(lambda: seqs(host) == [2])


async def test_full_disk_does_not_end_the_session(open_host: OpenHost, monkeypatch: pytest.MonkeyPatch) -> None:
    async def full(*_: object) -> None:
        raise CommitError("database or disk is full")

    async with open_host() as host:
        with monkeypatch.context() as patched:
            for name in ("save_setting", "admit", "probe"):
                patched.setattr(f"opsmap_agent.journal.journal.Journal.{name}", full)
            await host.gateway.challenge()
            await host.gateway.resume(0)
            await host.gateway.tell(ConfigUpdate(AGENT_ID, datetime.now(UTC), "r", []))
            await host.gateway.tell(ProbeCommands(AGENT_ID, ["r-1"]))
            await host.gateway.command(NativeCommand("uptime"), request_id="r-2")
            await host.gateway.until(lambda: len(host.gateway.replies) == 3)
            assert {reply["code"] for reply in host.gateway.replies} == {"journal_unavailable"}
            assert host.gateway.received == host.gateway.events == []
        assert (await host.gateway.run(NativeCommand("uptime"), request_id="r-2"))["success"]


async def test_gateway_that_talks_nonsense_is_left(open_host: OpenHost) -> None:
    async with open_host() as host:
        for _ in range(100):
            await host.gateway.wire.send("nonsense")
        assert await host.gateway.wire.close_code() == 4400
        await host.gateway.welcome()
        assert (await host.gateway.run(NativeCommand("uptime")))["success"]


@pytest.mark.parametrize("whose", ["gateway of another organization", "agent", "backend"])
async def test_only_a_gateway_of_the_own_organization_is_trusted(
    whose: str, listen: Listen, pki: Pki, agent_configuration: Configuration, caplog: pytest.LogCaptureFixture
) -> None:
    leaves = {
        "gateway of another organization": lambda: pki.gateway("gw-1", OTHER_ORGANIZATION),
        # Signed by the Gateway CA, and still not a gateway.
        "agent": lambda: pki.leaf(pki.gateway_ca, Identity(OTHER_ORGANIZATION, PeerRole.AGENT, "srv-2").uri),
        "backend": pki.backend,
    }
    once = Reconnect(initial_delay_ms=1, max_delay_ms=1, max_attempts=1)
    async with listen(leaves[whose](), pki.agent_ca.ca) as server:
        gateway = Gateway(url=f"wss://localhost:{server.port}", reconnect=once)
        agent = Agent(replace(agent_configuration, gateway=gateway))
        with caplog.at_level(logging.ERROR), pytest.raises(GaveUpError):
            await agent.run()
    assert any(record.levelno == logging.ERROR for record in caplog.records)


async def test_refused_registration_is_logged_with_its_reason(
    listen: Listen, pki: Pki, agent_configuration: Configuration, caplog: pytest.LogCaptureFixture
) -> None:
    async with listen(pki.gateway("gw-1"), pki.agent_ca.ca) as server:
        once = Reconnect(initial_delay_ms=1, max_delay_ms=1, max_attempts=1)
        gateway = Gateway(url=f"wss://localhost:{server.port}", reconnect=once)
        running = asyncio.create_task(Agent(replace(agent_configuration, gateway=gateway)).run())
        wire = await server.accept()
        await wire.next("register")
        await wire.send(Error("version_unsupported", "this gateway speaks version 2"))
        with pytest.raises(GaveUpError):
            await running
    assert "this gateway speaks version 2" in caplog.text


async def test_wrong_clock_is_told(
    listen: Listen, pki: Pki, agent_configuration: Configuration, caplog: pytest.LogCaptureFixture
) -> None:
    async with listen(pki.gateway("gw-1"), pki.agent_ca.ca) as server:
        gateway = Gateway(url=f"wss://localhost:{server.port}")
        running = asyncio.create_task(Agent(replace(agent_configuration, gateway=gateway)).run())
        wire = await server.accept()
        await wire.next("register")
        await wire.send(Registered("s-1", datetime.now(UTC) - timedelta(seconds=90)))
        await wire.next("heartbeat")
        running.cancel()
        await asyncio.wait([running])
    assert "this host's clock is off by 90 s" in caplog.text


async def test_fallback_gateway_is_used(open_host: OpenHost, free_port: int) -> None:
    async with open_host() as host:
        await host.stop()
        good = host.configuration.gateway.url
        gateway = replace(host.configuration.gateway, url=f"wss://localhost:{free_port}", fallback_urls=[good])
        host.configuration = replace(host.configuration, gateway=gateway)
        assert (await host.start_again())["agent_id"] == AGENT_ID


async def test_connection_leaves_from_the_configured_address(open_host: OpenHost) -> None:
    async with open_host(network=Network(bind_address="127.0.0.9")) as host:
        assert host.gateway.wire.socket.remote_address[0] == "127.0.0.9"
    async with open_host(network=Network(bind_interface="lo")) as host:
        assert host.gateway.wire.socket.remote_address[0] == "127.0.0.1"


async def test_two_agents_cannot_share_a_journal(open_host: OpenHost) -> None:
    async with open_host() as host:
        with pytest.raises(StartError, match=r"another agent is running with buffer\.path"):
            await Agent(host.configuration).run()
        assert (await host.gateway.run(NativeCommand("uptime")))["success"]


async def test_pid_file_is_there_while_the_agent_runs(open_host: OpenHost, tmp_path: Path) -> None:
    path = tmp_path / "run" / "agent.pid"
    async with open_host(watchdog=Watchdog(pid_file=path)):
        assert path.read_text().strip().isdigit()
    assert not path.exists()


async def test_unusable_folders_are_told(agent_configuration: Configuration, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    broken = replace(agent_configuration.buffer, path=tmp_path / "file" / "buffer")
    with pytest.raises(StartError, match=r"buffer\.path .* cannot be used"):
        await Agent(replace(agent_configuration, buffer=broken)).run()
    place = replace(agent_configuration.detached_execution, log_dir=tmp_path / "file" / "log")
    with pytest.raises(StartError, match=r"detached_execution\.log_dir .* cannot be made"):
        await Agent(replace(agent_configuration, detached_execution=place)).run()
