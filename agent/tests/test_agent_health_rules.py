"""Health checks: how often they are asked, how they are spread, and what each kind of probe calls healthy."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from opsmap_agent.checks import health
from opsmap_agent.checks.health import ProbeAsker, RepeatedCheck
from opsmap_agent.checks.probes import PortAnswer, ServiceAnswer
from opsmap_protocol.checks import FileProbe, HealthCheck, ProcessProbe, ServiceProbe, TcpProbe
from opsmap_protocol.enums import HealthStatus, ServiceState
from opsmap_protocol.messages import ConfigUpdate, HealthChanged

if TYPE_CHECKING:
    from conftest import OpenHost

HEALTHY, DEGRADED, UNHEALTHY = HealthStatus.HEALTHY, HealthStatus.DEGRADED, HealthStatus.UNHEALTHY
CHECK = HealthCheck("c-1", FileProbe("/"), interval_ms=60_000, timeout_ms=1_000, failure_threshold=3)


def update(*checks: HealthCheck) -> ConfigUpdate:
    return ConfigUpdate(target_agent="srv-1", issued_at=datetime.now(UTC), revision="1", health_checks=list(checks))


class EnoughError(Exception):
    """Ends a check that would go on for ever."""


async def paces(*drawn: float) -> list[float]:
    """What a check's interval is multiplied by, pause for pause, when chance has these answers."""
    answers, seen = list(drawn), []

    class Observed(RepeatedCheck):
        async def _pause(self, pace: float) -> bool:
            seen.append(pace)
            if len(seen) == len(drawn):
                raise EnoughError
            return False

    async def ask(check: HealthCheck, must_be_fresh: bool) -> tuple[HealthStatus, dict[str, Any]]:
        return HEALTHY, {}

    async def report(change: HealthChanged) -> None:
        return

    with pytest.raises(EnoughError):
        await Observed(CHECK, ask, report, lambda: answers.pop(0)).run()
    return seen


async def test_first_pause_spreads_checks_and_later_ones_vary_by_a_tenth() -> None:
    assert await paces(0.25, 0.0, 0.5, 1.0) == [0.25, 0.9, 1.0, 1.1]


@pytest.mark.parametrize(("threshold", "asked"), [(1, 1), (2, 2), (5, 5)])
async def test_threshold_counts_failures_in_a_row(threshold: int, asked: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "_CONFIRM_AFTER_S", 0.001)
    questions = 0
    told = asyncio.Event()

    async def ask(check: HealthCheck, must_be_fresh: bool) -> tuple[HealthStatus, dict[str, Any]]:
        nonlocal questions
        questions += 1
        return UNHEALTHY, {}

    async def report(change: HealthChanged) -> None:
        told.set()

    check = RepeatedCheck(replace(CHECK, failure_threshold=threshold), ask, report, lambda: 1.0)
    task = asyncio.create_task(check.run())
    async with asyncio.timeout(5):
        await told.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert questions == asked


async def test_conclusions_are_told_again_slowly(open_host: OpenHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "_RESYNC_INTERVAL_S", 0.2)
    async with open_host() as host:
        await host.gateway.tell(update(CHECK))
        await host.gateway.until(lambda: len(host.gateway.events) >= 3)
        assert {event["body"]["status"] for event in host.gateway.events} == {"healthy"}
        seen_at = {event["body"]["checked_at"] for event in host.gateway.events}
        assert len(seen_at) == 1, "the same conclusion, not a new look"


async def test_too_many_checks_are_not_run(open_host: OpenHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "_MAX_CHECKS", 2)
    async with open_host() as host:
        await host.gateway.tell(update(*(replace(CHECK, check_id=f"c-{number}") for number in range(3))))
        await host.gateway.until(lambda: len(host.gateway.events) == 2)
        assert {event["body"]["check_id"] for event in host.gateway.events} == {"c-0", "c-1"}


# Kinds of probes


class ScriptedProber:
    """Answers as it was told to; `hold` makes it wait, and `most` counts how many wait at once."""

    def __init__(self, state: ServiceState = ServiceState.RUNNING) -> None:
        self.state = state
        self.hold = asyncio.Event()
        self.at_once = self.most = 0

    async def service(self, name: str, timeout_s: float) -> ServiceAnswer:
        return ServiceAnswer(name, self.state, error="no idea" if self.state is ServiceState.UNKNOWN else None)

    async def port(self, host: str, port: int) -> PortAnswer:
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        await self.hold.wait()
        self.at_once -= 1
        return PortAnswer(True, 1.0)


@pytest.mark.parametrize(
    ("state", "status"),
    [
        (ServiceState.RUNNING, HEALTHY),
        (ServiceState.STARTING, DEGRADED),
        (ServiceState.STOPPING, DEGRADED),
        (ServiceState.STOPPED, UNHEALTHY),
        (ServiceState.FAILED, UNHEALTHY),
        (ServiceState.UNKNOWN, UNHEALTHY),
    ],
)
async def test_service(state: ServiceState, status: HealthStatus) -> None:
    asker = ProbeAsker(ScriptedProber(state))  # type: ignore[arg-type]
    seen, details = await asker.ask(replace(CHECK, probe=ServiceProbe("nginx")), False)
    assert (seen, details["actual"]) == (status, state.value)
    assert ("error" in details) == (state is ServiceState.UNKNOWN)


async def test_probe_that_does_not_answer_is_unhealthy_in_time() -> None:
    asker = ProbeAsker(ScriptedProber())  # type: ignore[arg-type]
    status, details = await asker.ask(replace(CHECK, probe=TcpProbe(1), timeout_ms=20), False)
    assert (status, details) == (UNHEALTHY, {"error": "no answer within 0.02 s"})


async def test_probes_at_once_are_bounded() -> None:
    prober = ScriptedProber()
    asker = ProbeAsker(prober)  # type: ignore[arg-type]
    asking = [asyncio.create_task(asker.ask(replace(CHECK, probe=TcpProbe(1)), False)) for _ in range(100)]
    async with asyncio.timeout(5):
        while prober.at_once < 32:  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0)
    prober.hold.set()
    assert {status for status, _ in await asyncio.gather(*asking)} == {HEALTHY}
    assert prober.most == 32


async def test_tcp_and_process_that_are_there(open_host: OpenHost, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        async with open_host() as host:
            process = await asyncio.create_subprocess_exec("sh", "-c", "read line", "sh", stdin=asyncio.subprocess.PIPE)
            probes = (TcpProbe(port), ProcessProbe("read line"))
            checks = [replace(CHECK, check_id=f"c-{n}", probe=probe) for n, probe in enumerate(probes)]
            await host.gateway.tell(update(*checks))
            for check in checks:
                body = await host.gateway.body("health_changed", check.check_id)
                assert body["status"] == "healthy", body
            assert process.pid in body["details"]["pids"]
            process.kill()
            await process.wait()
