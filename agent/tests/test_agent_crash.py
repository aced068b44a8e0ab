"""What happens when the agent dies: at any moment, in any way, with processes running."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

import opsmap_agent
from opsmap_agent.host.processes import ProcessIdentity
from opsmap_agent.jobs.folder import JobFolder
from opsmap_agent.jobs.launcher import launch
from opsmap_agent.journal.journal import Journal
from opsmap_agent.rules.policy import Policy
from opsmap_protocol.checks import FileExists
from opsmap_protocol.codec import encode
from opsmap_protocol.messages import Command
from opsmap_protocol.specs import AsyncMode, ExecuteCommand, ExecutionMode, SyncMode

if TYPE_CHECKING:
    from conftest import GatewaySide, Host, Listen, OpenHost, Pki

AGENT_ID = "srv-1"
_MAIN = "import sys; from opsmap_agent.cli import main; sys.exit(main())"


def sh(text: str) -> ExecuteCommand:
    return ExecuteCommand("sh", ["-c", text])


def is_running(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


async def until_gone(pid: int) -> None:
    async with asyncio.timeout(5):
        while is_running(pid):  # noqa: ASYNC110 - not our child
            await asyncio.sleep(0.005)


# A real process of the agent


@dataclass
class AgentProcess:
    """`opsmap-agent run`, killed and started again by the test."""

    file: Path
    gateway: GatewaySide
    process: asyncio.subprocess.Process | None = None

    async def start(self, acked_seq: int = 0) -> dict[str, Any]:
        root = str(Path(opsmap_agent.__file__).parents[1])
        self.process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", _MAIN, "run", "--config", str(self.file)), env={**os.environ, "PYTHONPATH": root}
        )
        return await self.gateway.welcome(acked_seq)

    async def stop(self, number: signal.Signals) -> int:
        assert self.process is not None
        if self.process.returncode is None:
            self.process.send_signal(number)
        return await self.process.wait()


@pytest.fixture
async def agent(
    pki: Pki, listen: Listen, gateway_side: type[GatewaySide], tmp_path: Path
) -> AsyncIterator[AgentProcess]:
    leaf = pki.agent(AGENT_ID)
    async with listen(pki.gateway("gw-1"), pki.agent_ca.ca) as server:
        file = tmp_path / "agent.yaml"
        file.write_text(
            f"""
gateway: {{url: "wss://localhost:{server.port}", reconnect: {{initial_delay_ms: 10, max_delay_ms: 20}}}}
tls: {{cert_file: "{leaf.cert}", key_file: "{leaf.key}", ca_file: "{pki.gateway_ca.ca}",
  backend_ca_file: "{pki.backend_ca.ca}"}}
detached_execution: {{log_dir: detached}}
buffer: {{path: buffer}}
logging: {{level: warn}}
"""
        )
        agent = AgentProcess(file, gateway_side(server, pki))
        await agent.start()
        yield agent
        assert await agent.stop(signal.SIGTERM) in (0, -signal.SIGKILL)
        await agent.gateway.leave()


async def test_processes_live_through_kill_9_and_are_found_again(agent: AgentProcess, tmp_path: Path) -> None:
    mode = AsyncMode(completion_check=FileExists(str(tmp_path)))
    service = await agent.gateway.command(sh("exec sleep 60"), mode, subject="kafka")
    await agent.gateway.body("async_status", service)
    slow = await agent.gateway.command(sh("exec sleep 60"), AsyncMode(), subject="redis")
    pids = [(await agent.gateway.body("async_started", request))["pid"] for request in (service, slow)]
    ends = agent.gateway.events[-1]["seq"]
    assert await agent.stop(signal.SIGKILL) == -signal.SIGKILL
    agent.gateway.forget()
    register = await agent.start(acked_seq=ends)
    assert slow in register["open_requests"]
    assert service not in register["open_requests"]
    assert is_running(pids[0])
    os.kill(pids[0], signal.SIGTERM)
    assert (await agent.gateway.body("job_exited", service))["exit_code"] == 143
    os.kill(pids[1], signal.SIGKILL)
    assert (await agent.gateway.body("async_status", slow))["exit_code"] == 137


async def test_exit_code_is_known_although_the_agent_was_down(agent: AgentProcess, tmp_path: Path) -> None:
    go = tmp_path / "go"
    request = await agent.gateway.command(
        sh(f"while [ ! -e {go} ]; do sleep 0.02; done; echo went on; exit 6"), AsyncMode()
    )
    pid = (await agent.gateway.body("async_started", request))["pid"]
    await agent.stop(signal.SIGKILL)
    assert is_running(pid)
    go.touch()
    await until_gone(pid)
    agent.gateway.forget()
    await agent.start(acked_seq=1)
    status = await agent.gateway.body("async_status", request)
    assert (status["status"], status["exit_code"], status["log_tail"]) == ("failed", 6, "went on\n")


async def test_sigterm_ends_the_agent_and_not_its_jobs(agent: AgentProcess) -> None:
    request = await agent.gateway.command(sh("exec sleep 60"), AsyncMode())
    pid = (await agent.gateway.body("async_started", request))["pid"]
    assert await agent.stop(signal.SIGTERM) == 0
    assert is_running(pid)
    os.kill(pid, signal.SIGKILL)


# Moments between two steps, made by hand


def command(spec: ExecuteCommand, mode: ExecutionMode, *, in_time_s: float = 60) -> Command:
    return Command(
        request_id="r-1",
        target_agent=AGENT_ID,
        command=spec,
        execution_mode=mode,
        timeout_ms=1000,
        issued_at=datetime.now(UTC) - timedelta(seconds=5),
        not_after=datetime.now(UTC) + timedelta(seconds=in_time_s),
        subject="kafka",
    )


@asynccontextmanager
async def life_after(host: Host, taken: Command) -> AsyncIterator[Path]:
    """The agent is down with `taken` in its journal; gives its job folder. Then it lives again."""
    await host.stop()
    host.gateway.forget()
    journal = await Journal.open(host.configuration.buffer.path)
    await journal.admit(taken, encode(taken))
    await journal.close()
    yield host.configuration.detached_execution.log_dir / "job_r-1"
    await host.start_again()


async def test_intent_without_launch_is_run(open_host: OpenHost) -> None:
    async with open_host() as host:
        async with life_after(host, command(sh("echo ran"), AsyncMode())):
            pass
        assert (await host.gateway.body("async_status", "r-1"))["log_tail"] == "ran\n"


async def test_intent_without_launch_expires(open_host: OpenHost) -> None:
    async with open_host() as host:
        async with life_after(host, command(sh("echo ran"), AsyncMode(), in_time_s=-1)) as folder:
            pass
        assert (await host.gateway.body("command_result", "r-1"))["outcome"] == "expired"
        assert not folder.exists()


async def test_launch_without_record_is_adopted(open_host: OpenHost) -> None:
    spec = sh("echo once; exec sleep 60")
    async with open_host() as host:
        async with life_after(host, command(spec, AsyncMode())) as path:
            folder = JobFolder(path)
            program = Policy(host.configuration).resolve(spec)
            process = (await asyncio.to_thread(launch, program, folder)).process
        started = await host.gateway.body("async_started", "r-1")
        assert started["pid"] == process.pid
        os.kill(process.pid, signal.SIGTERM)
        status = await host.gateway.body("async_status", "r-1")
        assert (status["exit_code"], status["log_tail"]) == (143, "once\n")


async def test_launch_that_ended_without_record_is_reported(open_host: OpenHost) -> None:
    spec = sh("echo once; exit 0")
    async with open_host() as host:
        async with life_after(host, command(spec, AsyncMode())) as path:
            folder = JobFolder(path)
            await asyncio.to_thread(launch, Policy(host.configuration).resolve(spec), folder)
            async with asyncio.timeout(5):
                while folder.has_shim():  # noqa: ASYNC110 - not our child
                    await asyncio.sleep(0.005)
        status = await host.gateway.body("async_status", "r-1")
        assert (status["status"], status["log_tail"]) == ("completed", "once\n")


async def test_claim_without_end_is_a_failure(open_host: OpenHost) -> None:
    async with open_host() as host:
        async with life_after(host, command(sh("echo ran"), AsyncMode())) as path:
            JobFolder(path).create()
            (path / "claim").write_text("99999 1 another-boot\n")
        status = await host.gateway.body("async_status", "r-1")
        assert status["status"] == "failed"
        assert status["error"] == "ended without an exit record: the host or its shim was stopped"
        assert "exit_code" not in status


async def test_half_a_claim_is_no_beginning(open_host: OpenHost) -> None:
    async with open_host() as host:
        async with life_after(host, command(sh("echo ran"), AsyncMode())) as path:
            JobFolder(path).create()
            (path / "claim").write_text("999")
        assert (await host.gateway.body("async_status", "r-1"))["log_tail"] == "ran\n"


async def test_sync_command_in_the_air_is_not_run_again(open_host: OpenHost, tmp_path: Path) -> None:
    async with open_host() as host:
        async with life_after(host, command(sh(f"touch {tmp_path}/ran"), SyncMode())):
            pass
        result = await host.gateway.body("command_result", "r-1")
        assert result["outcome"] == "failed"
        assert "whether it took effect is not known" in result["error"]
    assert not (tmp_path / "ran").exists()


async def test_what_another_version_left_does_not_stop_the_agent(open_host: OpenHost) -> None:
    async with open_host() as host:
        await host.stop()
        host.gateway.forget()
        journal = await Journal.open(host.configuration.buffer.path)
        await journal.admit(command(sh("true"), SyncMode()), '{"type":"command","of":"another version"}')
        await journal.save_setting("config_update", '{"type":"config_update","of":"another version"}')
        await journal.close()
        await host.start_again()
        result = await host.gateway.body("command_result", "r-1")
        assert "by another version of the agent" in result["error"]


async def test_job_goes_on_with_its_remaining_time(open_host: OpenHost) -> None:
    async with open_host() as host:
        mode = AsyncMode(completion_check=FileExists("/none"), max_wait_ms=1_200)
        request = await host.gateway.command(sh("exec sleep 60"), mode)
        pid = (await host.gateway.body("async_started", request))["pid"]
        await host.stop()
        host.gateway.forget()
        await host.start_again(acked_seq=1)
        status = await host.gateway.body("async_status", request)
        assert status["status"] == "timeout"
        assert 1_000 < status["elapsed_ms"] < 4_000
        os.kill(pid, signal.SIGKILL)


async def test_killed_shim_is_noticed(open_host: OpenHost, tmp_path: Path) -> None:
    async with open_host() as host:
        request = await host.gateway.command(sh("exec sleep 60"), AsyncMode())
        pid = (await host.gateway.body("async_started", request))["pid"]
        shim = ProcessIdentity.parse((tmp_path / "detached" / f"job_{request}" / "claim").read_text())
        assert shim is not None
        os.kill(shim.pid, signal.SIGKILL)
        status = await host.gateway.body("async_status", request)
        assert status["error"] == "ended without an exit record: the host or its shim was stopped"
        os.kill(pid, signal.SIGKILL)
