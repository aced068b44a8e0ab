"""Several sessions at once: who gets the events, what happens when a gateway dies, stops, or stops reading."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from opsmap_agent.agent import Agent
from opsmap_agent.configuration import Configuration
from opsmap_agent.sessions.slots import in_order_of
from opsmap_daemon.backoff import Reconnect
from opsmap_daemon.connection import GaveUpError
from opsmap_protocol.messages import Command, Error, GoAway, Ping, ProbeCommands, Resume
from opsmap_protocol.specs import ExecuteCommand, NativeCommand, SyncMode

if TYPE_CHECKING:
    from conftest import GatewaySide, Listen, Pki

AGENT_ID = "srv-1"


@dataclass
class Fleet:
    """One agent and its gateways, in the order in which the agent prefers them."""

    agent: Agent
    running: asyncio.Task[None]
    gateways: list[GatewaySide]

    async def stop(self) -> None:
        self.running.cancel()
        await asyncio.wait([self.running])


OpenFleet = Callable[..., AbstractAsyncContextManager[Fleet]]


@pytest.fixture
def open_fleet(
    pki: Pki, listen: Listen, gateway_side: type[GatewaySide], agent_configuration: Configuration
) -> OpenFleet:
    """`async with open_fleet(3) as fleet`: nobody has been accepted yet; keyword arguments are keys of `gateway`."""

    @asynccontextmanager
    async def open_(count: int, **keys: Any) -> AsyncIterator[Fleet]:
        async with AsyncExitStack() as stack:
            servers = {}
            for number in range(count):
                server = await stack.enter_async_context(listen(pki.gateway(f"gw-{number}"), pki.agent_ca.ca))
                servers[f"wss://localhost:{server.port}/agent/"] = server
            urls = list(servers)
            if keys.get("sessions", 2) > 1:
                urls = in_order_of(AGENT_ID, urls)
            section = replace(agent_configuration.gateway, url=urls[-1], fallback_urls=urls[:-1], **keys)
            if keys.get("sessions", 2) == 1:
                section = replace(section, url=urls[0], fallback_urls=urls[1:])
            agent = Agent(replace(agent_configuration, gateway=section))
            gateways = [gateway_side(servers[url], pki) for url in urls]
            fleet = Fleet(agent, asyncio.create_task(agent.run()), gateways)
            try:
                yield fleet
            finally:
                await fleet.stop()
                for gateway in gateways:
                    await gateway.leave()

    return open_


def results(gateway: GatewaySide) -> list[str]:
    return [event["body"]["request_id"] for event in gateway.events if event["body"]["type"] == "command_result"]


async def test_agent_is_at_two_gateways_and_prefers_one(open_fleet: OpenFleet) -> None:
    async with open_fleet(3) as fleet:
        first, second, third = fleet.gateways
        await asyncio.gather(first.welcome(), second.welcome(acked_seq=None))
        assert [first.registration["is_preferred"], second.registration["is_preferred"]] == [True, False]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await third.server.accept()


async def test_events_go_by_the_session_that_last_got_resume(open_fleet: OpenFleet) -> None:
    async with open_fleet(2) as fleet:
        first, second = fleet.gateways
        await asyncio.gather(first.welcome(), second.welcome(acked_seq=None))
        await first.run(NativeCommand("uptime"))
        await second.resume(1)
        # By the one that only stands by now, and its end goes by the other.
        request_id = await first.command(NativeCommand("uptime"))
        await second.body("command_result", request_id)
        await first.until(lambda: first.received[-1:] == [request_id])
        await first.resume(1)
        await first.body("command_result", request_id)
        assert len(results(second)) == 1


async def test_a_gateway_that_stands_by_cannot_repeat_its_resume(open_fleet: OpenFleet) -> None:
    """It would get the events instead of the one that the backend listens to."""
    async with open_fleet(2) as fleet:
        first, second = fleet.gateways
        await asyncio.gather(first.welcome(), second.welcome(acked_seq=None))
        begun = datetime.now(UTC)
        incarnation = str(second.presence["incarnation"])
        old = second.sealer.seal(Resume(AGENT_ID, second.token, incarnation, 0, begun - timedelta(microseconds=1)))
        await first.tell(Resume(AGENT_ID, first.token, incarnation, 0, begun))
        await first.run(NativeCommand("uptime"))
        await second.wire.send(old)
        await second.until(lambda: bool(second.replies))
        assert second.replies[0]["reason"] == "another session has come into use since"
        await first.run(NativeCommand("uptime"))
        assert second.events == []


async def test_nothing_is_told_between_two_resumes(open_fleet: OpenFleet) -> None:
    async with open_fleet(2) as fleet:
        first, second = fleet.gateways
        await asyncio.gather(first.welcome(), second.welcome(acked_seq=None))
        slow = await first.command(ExecuteCommand("sleep", ["0.2"]))
        await first.until(lambda: first.received == [slow])
        await first.wire.socket.close()
        await asyncio.sleep(0.4)
        assert second.events == []
        await second.resume(0)
        await second.body("command_result", slow)


async def test_command_that_comes_by_both_runs_once(open_fleet: OpenFleet, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    async with open_fleet(2) as fleet:
        first, second = fleet.gateways
        await asyncio.gather(first.welcome(), second.welcome(acked_seq=None))
        now = datetime.now(UTC)
        spec = ExecuteCommand("sh", ["-c", f"echo x >> {ran}"])
        command = Command("r-1", AGENT_ID, spec, SyncMode(), 5_000, now, now + timedelta(seconds=60))
        await asyncio.gather(first.tell(command), second.tell(command), first.tell(command))
        await first.body("command_result", "r-1")
        await second.until(lambda: second.received == ["r-1"])
    assert ran.read_text() == "x\n"


async def test_gateway_that_died_is_dialled_again(open_fleet: OpenFleet) -> None:
    async with open_fleet(2) as fleet:
        first, second = fleet.gateways
        await asyncio.gather(first.welcome(), second.welcome(acked_seq=None))
        first.wire.socket.transport.abort()
        await first.welcome(acked_seq=None)
        assert first.registration["is_preferred"]
        await second.resume(0)
        assert (await second.run(NativeCommand("uptime")))["success"]


async def test_third_gateway_steps_in_for_one_that_refuses(open_fleet: OpenFleet) -> None:
    async with open_fleet(3) as fleet:
        first, second, third = fleet.gateways
        wire = await first.server.accept()
        await wire.next("register")
        await wire.send(Error("draining", "about to stop"))
        await asyncio.gather(second.welcome(), third.welcome(acked_seq=None))
        assert (await second.run(NativeCommand("uptime")))["success"]


async def test_gateway_that_does_not_read_holds_nobody_up(
    open_fleet: OpenFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("opsmap_agent.sessions.session._SEND_TIMEOUT_S", 0.5)
    async with open_fleet(2) as fleet:
        first, second = fleet.gateways
        await asyncio.gather(first.welcome(acked_seq=None), second.welcome())
        first.wire.socket.transport.pause_reading()
        # Answers that nobody reads, until no more of them go out.
        probe = ProbeCommands(AGENT_ID, [f"{number:0>60}" for number in range(5_000)])
        flooding = asyncio.create_task(flood(first, probe))
        try:
            for _ in range(10):
                async with asyncio.timeout(2):
                    await second.run(NativeCommand("uptime"))
            await first.welcome(acked_seq=None)
        finally:
            flooding.cancel()
            await asyncio.gather(flooding, return_exceptions=True)


async def flood(gateway: GatewaySide, message: Any) -> None:
    frame, wire = gateway.sealer.seal(message), gateway.wire
    for _ in range(200):
        await wire.send(frame)


async def test_gateway_that_does_not_read_does_not_hold_up_stopping(open_fleet: OpenFleet) -> None:
    async with open_fleet(2) as fleet:
        first, second = fleet.gateways
        await asyncio.gather(first.welcome(acked_seq=None), second.welcome())
        first.wire.socket.transport.pause_reading()
        probe = ProbeCommands(AGENT_ID, [f"{number:0>60}" for number in range(5_000)])
        flooding = asyncio.create_task(flood(first, probe))
        await asyncio.sleep(0.3)
        async with asyncio.timeout(6):
            await fleet.stop()
        flooding.cancel()
        await asyncio.gather(flooding, return_exceptions=True)


async def test_goaway_opens_the_next_session_first(open_fleet: OpenFleet) -> None:
    async with open_fleet(3) as fleet:
        first, second, third = fleet.gateways
        await asyncio.gather(first.welcome(), second.welcome(acked_seq=None))
        await first.wire.send(GoAway("SIGTERM"))
        await third.welcome(acked_seq=None)
        # The old one still carries what is on its way.
        assert (await first.run(NativeCommand("uptime")))["success"]
        await first.wire.socket.close()
        await third.resume(0)
        assert (await third.run(NativeCommand("uptime")))["success"]
        # Its place is taken: nobody comes back while both others are well.
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await first.server.accept()
        await second.wire.send(GoAway("SIGTERM"))
        await first.welcome(acked_seq=None)


async def test_goaway_without_another_address_changes_nothing(open_fleet: OpenFleet) -> None:
    async with open_fleet(2) as fleet:
        first, second = fleet.gateways
        await asyncio.gather(first.welcome(), second.welcome(acked_seq=None))
        await first.wire.send(GoAway("SIGTERM"))
        assert (await first.run(NativeCommand("uptime")))["success"]
        await first.wire.socket.close()
        await first.welcome(acked_seq=None)


async def test_gateway_that_never_goes_is_left(open_fleet: OpenFleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("opsmap_agent.sessions.slots._LEAVING_S", 0.2)
    async with open_fleet(2, sessions=1) as fleet:
        first, second = fleet.gateways
        await first.welcome()
        await first.wire.send(GoAway("SIGTERM"))
        await first.wire.send(GoAway("again"))
        await second.welcome(acked_seq=None)
        assert await first.wire.close_code() == 1001


async def test_one_session_uses_the_urls_in_their_order(open_fleet: OpenFleet) -> None:
    async with open_fleet(2, sessions=1) as fleet:
        first, second = fleet.gateways
        await first.welcome()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await second.server.accept()


async def test_agent_gives_up_only_when_no_gateway_is_left(open_fleet: OpenFleet) -> None:
    once = Reconnect(initial_delay_ms=10, max_delay_ms=20, max_attempts=2)
    async with open_fleet(2, reconnect=once) as fleet:
        first, second = fleet.gateways
        await second.welcome()
        for _ in range(2):
            wire = await first.server.accept()
            await wire.next("register")
            await wire.send(Error("identity_mismatch", "not you"))
        assert (await second.run(NativeCommand("uptime")))["success"]
        assert not fleet.running.done()


async def test_agent_without_any_gateway_gives_up(agent_configuration: Configuration, free_port: int) -> None:
    once = Reconnect(initial_delay_ms=1, max_delay_ms=1, max_attempts=2)
    gateway = replace(
        agent_configuration.gateway, url="wss://localhost:1", fallback_urls=[f"wss://localhost:{free_port}"]
    )
    with pytest.raises(GaveUpError, match="gave up after 2 attempts"):
        await Agent(replace(agent_configuration, gateway=replace(gateway, reconnect=once))).run()


async def test_ping_is_answered_by_the_session_that_asked(open_fleet: OpenFleet) -> None:
    async with open_fleet(2) as fleet:
        first, second = fleet.gateways
        await asyncio.gather(first.welcome(), second.welcome(acked_seq=None))
        await second.until(lambda: len(second.heartbeats) == 1)
        await first.until(lambda: len(first.heartbeats) == 1)
        await second.wire.send(Ping(datetime.now(UTC)))
        await second.until(lambda: len(second.heartbeats) == 2)
        assert len(first.heartbeats) == 1


def test_agents_spread_over_gateways_and_keep_their_order() -> None:
    urls = [f"wss://gateway-{number}" for number in range(3)]
    firsts = Counter(in_order_of(f"srv-{number}", urls)[0] for number in range(3_000))
    assert all(900 < firsts[url] < 1_100 for url in urls)
    for number in range(100):
        order = in_order_of(f"srv-{number}", urls)
        assert order == in_order_of(f"srv-{number}", urls[::-1])
        # One gateway less moves only those agents that preferred it.
        assert in_order_of(f"srv-{number}", order[1:]) == order[1:]
