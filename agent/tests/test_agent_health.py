"""Health checks: what counts as which health, when it is reported, and what a poke does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from opsmap_agent.checks.health import ProbeAsker, RepeatedCheck
from opsmap_protocol.checks import CommandProbe, FileProbe, HealthCheck, HttpProbe, Probe, ProcessProbe, TcpProbe
from opsmap_protocol.enums import HealthStatus
from opsmap_protocol.messages import ConfigUpdate, HealthChanged
from opsmap_protocol.specs import NativeCommand

if TYPE_CHECKING:
    from conftest import OpenHost

AGENT_ID = "srv-1"
HEALTHY, DEGRADED, UNHEALTHY = HealthStatus.HEALTHY, HealthStatus.DEGRADED, HealthStatus.UNHEALTHY


class Component:
    """A probe whose answers the test decides, and what was reported about it."""

    def __init__(self, interval_ms: int = 60_000, failure_threshold: int = 3) -> None:
        self.status = HEALTHY
        self.asked: list[bool] = []
        self.reported: list[HealthStatus] = []
        check = HealthCheck("c-1", FileProbe("/"), interval_ms, 1_000, failure_threshold)
        self.check = RepeatedCheck(check, self.ask, self.report, lambda: 0.5)

    async def ask(self, check: HealthCheck, must_be_fresh: bool) -> tuple[HealthStatus, dict[str, Any]]:
        self.asked.append(must_be_fresh)
        return self.status, {}

    async def report(self, change: HealthChanged) -> None:
        self.reported.append(change.status)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(3):
            while not condition():  # noqa: ASYNC110 - there is no event to wait for
                await asyncio.sleep(0.002)


@pytest.fixture(autouse=True)
def _quick_confirmation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("opsmap_agent.checks.health._CONFIRM_AFTER_S", 0.02)


@asynccontextmanager
async def running(component: Component) -> AsyncIterator[Component]:
    task = asyncio.create_task(component.check.run())
    try:
        yield component
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_first_answer_is_reported_at_once() -> None:
    async with running(Component()) as component:
        await component.until(lambda: component.reported == [HEALTHY])
    assert len(component.asked) == 1


async def test_trouble_is_confirmed_quickly_before_it_is_told() -> None:
    component = Component(failure_threshold=3)
    component.status = UNHEALTHY
    async with running(component):
        await component.until(lambda: component.reported == [UNHEALTHY])
    assert component.asked == [False, True, True]


async def test_one_success_in_between_is_noise() -> None:
    component = Component(failure_threshold=3)
    async with running(component):
        await component.until(lambda: component.reported == [HEALTHY])
        component.status = UNHEALTHY
        component.check.poke()
        await component.until(lambda: len(component.asked) == 2)
        component.status = HEALTHY
        await component.until(lambda: len(component.reported) == 2)
    assert component.reported == [HEALTHY, HEALTHY], "told again after the poke, but never the trouble"


async def test_poke_tells_of_a_change_long_before_the_interval() -> None:
    component = Component(interval_ms=3_600_000)
    async with running(component):
        await component.until(lambda: component.reported == [HEALTHY])
        component.status = UNHEALTHY
        component.check.poke()
        await component.until(lambda: component.reported == [HEALTHY, UNHEALTHY])
        component.status = DEGRADED
        component.check.poke()
        await component.until(lambda: component.reported[2:] == [DEGRADED])
        component.status = HEALTHY
        component.check.poke()
        await component.until(lambda: component.reported[3:] == [HEALTHY])


async def test_answer_begun_before_a_poke_is_not_told() -> None:
    component = Component()
    may_answer = asyncio.Event()

    async def slow(check: HealthCheck, must_be_fresh: bool) -> tuple[HealthStatus, dict[str, Any]]:
        answer = component.status
        component.asked.append(must_be_fresh)
        if len(component.asked) == 1:
            await may_answer.wait()
        return answer, {}

    component.check = RepeatedCheck(component.check.check, slow, component.report, lambda: 0.5)
    async with running(component):
        await component.until(lambda: len(component.asked) == 1)
        component.status = DEGRADED
        component.check.poke()
        may_answer.set()
        await component.until(lambda: component.reported == [DEGRADED])
    assert component.reported == [DEGRADED], "and never the answer from before"


async def test_conclusion_from_before_a_poke_no_longer_counts() -> None:
    component = Component()
    async with running(component):
        await component.until(lambda: component.reported == [HEALTHY])
        assert component.check.conclusion is not None
        component.check.poke()
        assert component.check.conclusion is None, "a resync now would tell of what was before"


async def test_interval_repeats_without_reporting_the_same_again() -> None:
    component = Component(interval_ms=5)
    async with running(component):
        await component.until(lambda: len(component.asked) >= 5)
    assert component.reported == [HEALTHY]


async def test_check_never_overlaps_itself() -> None:
    component = Component(interval_ms=1)
    at_once, most = 0, 0

    async def slow(check: HealthCheck, must_be_fresh: bool) -> tuple[HealthStatus, dict[str, Any]]:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        component.asked.append(must_be_fresh)
        await asyncio.sleep(0.01)
        at_once -= 1
        return HEALTHY, {}

    component.check = RepeatedCheck(component.check.check, slow, component.report, lambda: 0.5)
    async with running(component):
        for _ in range(20):
            component.check.poke()
            await asyncio.sleep(0.003)
    assert most == 1


# With a whole agent


@asynccontextmanager
async def http_server(answers: dict[str, bytes]) -> AsyncIterator[int]:
    """Answers with `answers["now"]`."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 " + answers["now"])
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


def update(*probes: Probe, threshold: int = 2, interval_ms: int = 50) -> ConfigUpdate:
    checks = [HealthCheck(f"c-{number}", probe, interval_ms, 1_000, threshold) for number, probe in enumerate(probes)]
    return ConfigUpdate(target_agent=AGENT_ID, issued_at=datetime.now(UTC), revision="1", health_checks=checks)


async def test_http_component_through_its_life(open_host: OpenHost, tmp_path: Path) -> None:
    answers = {"now": b"200 OK\r\n\r\nUP"}
    async with open_host() as host:

        def seen() -> list[str]:
            return [event["body"]["status"] for event in host.gateway.events]

        async with http_server(answers) as port:
            await host.gateway.tell(update(HttpProbe(f"http://localhost:{port}/health", body_contains="UP")))
            await host.gateway.until(lambda: seen() == ["healthy"])
            answers["now"] = b"503 Unavailable\r\n\r\n<b>no database</b>"
            await host.gateway.until(lambda: seen() == ["healthy", "degraded"])
            details = host.gateway.events[-1]["body"]["details"]
            assert (details["status"], details["body"]) == (503, "<b>no database</b>")
            answers["now"] = b"200 OK\r\n\r\nDOWN"
            await host.gateway.tell(update(HttpProbe(f"http://localhost:{port}/health", body_contains="DOWN")))
            await host.gateway.until(lambda: seen() == ["healthy", "degraded", "healthy"])
        await host.gateway.until(lambda: seen()[3:] == ["unhealthy"])
        assert host.gateway.events[-1]["body"]["details"]["error"] == "connection refused"


async def test_each_kind_of_probe(open_host: OpenHost, tmp_path: Path, free_port: int) -> None:
    expected: list[tuple[Probe, str]] = [
        (TcpProbe(free_port), "unhealthy"),
        (FileProbe(str(tmp_path)), "healthy"),
        (FileProbe(str(tmp_path), should_exist=False), "unhealthy"),
        (ProcessProbe("no-such-process"), "unhealthy"),
        (CommandProbe("sh", ["-c", "exit 0"]), "healthy"),
        (CommandProbe("sh", ["-c", "exit 1"]), "unhealthy"),
        (CommandProbe("no-such-program"), "unhealthy"),
        (HttpProbe("nonsense"), "unhealthy"),
    ]
    async with open_host() as host:
        await host.gateway.tell(update(*(probe for probe, _ in expected)))
        for number, (probe, status) in enumerate(expected):
            body = await host.gateway.body("health_changed", f"c-{number}")
            assert body["status"] == status, probe


async def test_checks_run_after_a_restart_before_the_gateway_is_there(open_host: OpenHost, tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    async with open_host() as host:
        await host.gateway.tell(update(FileProbe(str(flag))))
        assert (await host.gateway.body("health_changed", "c-0"))["status"] == "unhealthy"
        await host.stop()
        flag.touch()
        host.gateway.forget()
        await host.start_again(acked_seq=None)
        await asyncio.sleep(0.1)
        assert host.gateway.events == []
        await host.gateway.resume(1)
        assert (await host.gateway.body("health_changed", "c-0"))["status"] == "healthy"


async def test_resume_tells_every_conclusion_again(open_host: OpenHost, tmp_path: Path) -> None:
    async with open_host() as host:
        await host.gateway.tell(update(FileProbe(str(tmp_path)), FileProbe("/none"), interval_ms=60_000))
        await host.gateway.until(lambda: len(host.gateway.events) == 2)
        await host.gateway.resume(2)
        await host.gateway.until(lambda: len(host.gateway.events) == 4)
        assert {event["body"]["check_id"] for event in host.gateway.events[2:]} == {"c-0", "c-1"}


async def test_removed_check_falls_silent(open_host: OpenHost, tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    async with open_host() as host:
        await host.gateway.tell(update(FileProbe(str(flag), should_exist=False), interval_ms=10))
        await host.gateway.body("health_changed", "c-0")
        await host.gateway.tell(update())
        # Messages are obeyed in order: once this is answered the check is gone.
        await host.gateway.run(NativeCommand("uptime"))
        flag.touch()
        await host.gateway.tell(update(FileProbe(str(tmp_path)), FileProbe(str(tmp_path))))
        await host.gateway.body("health_changed", "c-1")
        statuses = [event["body"].get("status") for event in host.gateway.events]
    assert [status for status in statuses if status] == ["healthy", "healthy", "healthy"]


async def test_fault_of_ours_in_one_check_is_reported_as_such() -> None:
    class BrokenProber:
        @property
        def processes(self) -> Awaitable[None]:
            raise RuntimeError("a fault of ours")

    asker = ProbeAsker(BrokenProber())  # type: ignore[arg-type]
    status, details = await asker.ask(HealthCheck("c-1", ProcessProbe("x")), False)
    assert status is UNHEALTHY
    assert "a fault of ours" in details["error"]
