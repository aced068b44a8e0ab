"""A stuck agent comes back by itself: same process, same jobs, nothing run twice."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

import opsmap_agent
from opsmap_agent.configuration import Watchdog as Settings
from opsmap_agent.upkeep import watchdog
from opsmap_agent.upkeep.watchdog import EXIT_STUCK, RestartRecord, Watchdog
from opsmap_protocol.specs import AsyncMode, ExecuteCommand, NativeCommand, SyncMode

if TYPE_CHECKING:
    from conftest import GatewaySide, Listen, OpenHost, Pki

AGENT_ID = "srv-1"
STUCK_MAIN = """
import ctypes, sys, time
from opsmap_agent import cli
from opsmap_agent.native import registry

@registry.native("get_stuck", switches=(), changes_host=True)
async def get_stuck(context: registry.NativeContext) -> None:
    time.sleep(60)

@registry.native("hold_the_interpreter", switches=(), changes_host=True)
async def hold_the_interpreter(context: registry.NativeContext) -> None:
    ctypes.PyDLL(None).sleep(60)

sys.exit(cli.main())
"""


class StuckAgent:
    """A real agent with a native command that blocks its event loop."""

    def __init__(self, folder: Path, pki: Pki, port: int, gateway: GatewaySide) -> None:
        leaf = pki.agent(AGENT_ID)
        self.gateway = gateway
        self.log = folder / "agent.log"
        self.file = folder / "agent.yaml"
        self.file.write_text(
            f"""
gateway: {{url: "wss://localhost:{port}", reconnect: {{initial_delay_ms: 10, max_delay_ms: 20}}}}
tls: {{cert_file: "{leaf.cert}", key_file: "{leaf.key}", ca_file: "{pki.gateway_ca.ca}",
  backend_ca_file: "{pki.backend_ca.ca}"}}
detached_execution: {{log_dir: detached}}
buffer: {{path: buffer}}
watchdog: {{timeout_secs: 1}}
logging: {{file: "{self.log}"}}
"""
        )

    async def start(self, **environment: str) -> None:
        root = str(Path(opsmap_agent.__file__).parents[1])
        self.process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", STUCK_MAIN, "run", "--config", str(self.file)),
            env={**os.environ, "PYTHONPATH": root, **environment},
            stderr=asyncio.subprocess.PIPE,
        )


@pytest.fixture
async def agent(pki: Pki, listen: Listen, gateway_side: type[GatewaySide], tmp_path: Path) -> AsyncIterator[StuckAgent]:
    async with listen(pki.gateway("gw-1"), pki.agent_ca.ca) as server:
        stuck = StuckAgent(tmp_path, pki, server.port, gateway_side(server, pki))
        yield stuck
        if stuck.process.returncode is None:
            stuck.process.send_signal(signal.SIGTERM)
        if stuck.process.stderr is not None and not stuck.process.stderr.at_eof():
            await stuck.process.communicate()
        await stuck.gateway.leave()


async def test_stuck_agent_executes_itself_anew_and_its_jobs_are_the_same(agent: StuckAgent) -> None:
    await agent.start()
    await agent.gateway.welcome()
    job = await agent.gateway.command(ExecuteCommand("sh", ["-c", "exec sleep 60"]), AsyncMode())
    pid = (await agent.gateway.body("async_started", job))["pid"]
    sync = await agent.gateway.command(ExecuteCommand("sleep", ["61"]), SyncMode(timeout_ms=60_000))
    await agent.gateway.until(lambda: sync in agent.gateway.received)
    stuck = await agent.gateway.command(NativeCommand("get_stuck"))
    acked = agent.gateway.events[-1]["seq"]
    agent.gateway.forget()
    presence = await agent.gateway.welcome(acked_seq=acked)
    assert job in presence["open_requests"]
    for request in (stuck, sync):
        result = await agent.gateway.body("command_result", request)
        assert "whether it took effect is not known" in result["error"]
    assert agent.process.returncode is None, "it is the same process"
    assert psutil.pid_exists(pid), "and its job is the same one"
    assert psutil.Process(agent.process.pid).children() == [], "the sync command was ended, and reaped"
    log = agent.log.read_text()
    assert "the event loop has stood still for 1.0 s: it is started anew" in log
    assert "in get_stuck" in log, "the stacks say where"
    os.kill(pid, signal.SIGKILL)
    assert (await agent.gateway.body("async_status", job))["exit_code"] == 137


async def test_agent_that_is_stuck_again_and_again_leaves_it_to_the_service_manager(agent: StuckAgent) -> None:
    now = time.monotonic()
    await agent.start(OPSMAP_WATCHDOG_RESTARTS=",".join(str(now - age) for age in (30, 20, 10)))
    await agent.gateway.welcome()
    await agent.gateway.command(NativeCommand("get_stuck"))
    assert await agent.process.wait() == EXIT_STUCK
    assert "it ends, as it has been started anew too often" in agent.log.read_text()


async def test_agent_whose_interpreter_is_held_ends_and_says_where(agent: StuckAgent) -> None:
    await agent.start()
    await agent.gateway.welcome()
    await agent.gateway.command(NativeCommand("hold_the_interpreter"))
    _, said = await agent.process.communicate()
    assert agent.process.returncode == 1
    assert b"Timeout (0:00:02)!" in said
    assert b"in hold_the_interpreter" in said


def test_record_of_restarts_survives_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 10_000.0
    monkeypatch.setenv("OPSMAP_WATCHDOG_RESTARTS", "1.5,9000,9500.25,nonsense,99999")
    record = RestartRecord(clock=lambda: now)
    assert "OPSMAP_WATCHDOG_RESTARTS" not in os.environ, "commands do not inherit it"
    assert record.recent == [1000.0, 499.75], "neither older than an hour, nor of another boot"
    assert not record.is_exhausted
    environment = record.environment_with_one_more()
    monkeypatch.setenv("OPSMAP_WATCHDOG_RESTARTS", environment["OPSMAP_WATCHDOG_RESTARTS"])
    assert RestartRecord(clock=lambda: now).is_exhausted


@pytest.mark.parametrize("is_enabled", [True, False])
async def test_watchdog_can_be_switched_off(open_host: OpenHost, is_enabled: bool) -> None:
    async with open_host(watchdog=Settings(enabled=is_enabled)):
        assert any(thread.name == "watchdog" for thread in threading.enumerate()) is is_enabled


async def test_loop_that_turns_slowly_is_left_alone_and_one_that_does_not_is_noticed() -> None:
    noticed = threading.Event()
    looking = asyncio.create_task(Watchdog(0.3, RestartRecord(), lambda stuck_s: noticed.set()).watch())
    for _ in range(5):
        await asyncio.sleep(0)
        time.sleep(0.1)  # noqa: ASYNC251 - the event loop is to stand still
    assert not noticed.is_set()
    assert noticed.wait(5), "the event loop stands still while this waits"
    looking.cancel()
    await asyncio.wait([looking])
    assert not any(thread.name == "watchdog" for thread in threading.enumerate())


def test_only_leaders_of_sessions_are_ended() -> None:
    command = subprocess.Popen(["sleep", "60"], start_new_session=True)
    helper = subprocess.Popen(["sleep", "60"])
    watchdog.end_sync_commands()
    assert not psutil.pid_exists(command.pid)
    assert helper.poll() is None
    helper.kill()
    helper.wait()
    command.wait()
