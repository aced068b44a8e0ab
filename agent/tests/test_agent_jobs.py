"""Jobs: what completes them, what fails them, and what is told when."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from opsmap_agent.configuration import DetachedExecution, Scripts
from opsmap_agent.jobs.job import describe_exit
from opsmap_agent.journal.journal import Journal
from opsmap_protocol.checks import AllOf, CompletionCheck, FileExists, HealthCheck, PortOpen, TcpProbe
from opsmap_protocol.enums import ServiceAction
from opsmap_protocol.messages import CancelCommand, CheckJobStatus, ConfigUpdate
from opsmap_protocol.specs import (
    AsyncMode,
    ExecuteCommand,
    NativeCommand,
    ScriptCommand,
    ServiceControlCommand,
)

if TYPE_CHECKING:
    from conftest import Host, OpenHost

AGENT_ID = "srv-1"


def sh(text: str) -> ExecuteCommand:
    return ExecuteCommand("sh", ["-c", text])


def job(check: CompletionCheck | None = None, *, poll_ms: int = 100, max_wait_ms: int = 10_000) -> AsyncMode:
    return AsyncMode(completion_check=check, poll_interval_ms=poll_ms, max_wait_ms=max_wait_ms)


async def end_of(host: Host, text: str, mode: AsyncMode) -> dict[str, Any]:
    return await host.gateway.body("async_status", await host.gateway.command(sh(text), mode))


async def test_exit_code_decides_without_a_check(open_host: OpenHost) -> None:
    async with open_host() as host:
        good = await end_of(host, "echo done", job())
        assert (good["status"], good["exit_code"], good["log_tail"]) == ("completed", 0, "done\n")
        assert "error" not in good
        bad = await end_of(host, "echo '<b>broken</b>'; exit 3", job())
        assert (bad["status"], bad["exit_code"], bad["log_tail"]) == ("failed", 3, "<b>broken</b>\n")
        assert bad["error"] == "the process ended with exit code 3"


async def test_started_is_told_before_the_end(open_host: OpenHost) -> None:
    async with open_host() as host:
        request_id = await host.gateway.command(sh("exit 0"), job(poll_ms=700))
        await host.gateway.body("async_status", request_id)
        bodies = [event["body"] for event in host.gateway.events]
        assert [body["type"] for body in bodies] == ["async_started", "async_status"]
        assert (bodies[0]["job_id"], bodies[0]["suggested_poll_interval_ms"]) == (f"job_{request_id}", 700)
        assert bodies[0]["pid"] > 0
        assert host.gateway.received == [request_id]


async def test_service_completes_by_its_check_and_lives_on(open_host: OpenHost, tmp_path: Path) -> None:
    flag = tmp_path / "ready"
    async with open_host() as host:
        request_id = await host.gateway.command(
            sh(f"sleep 0.1; touch {flag}; exec sleep 60"), job(FileExists(str(flag)))
        )
        started = await host.gateway.body("async_started", request_id)
        status = await host.gateway.body("async_status", request_id)
        assert status["status"] == "completed"
        assert status["check_result"]["details"]["exists"]
        assert "exit_code" not in status
        os.kill(started["pid"], signal.SIGKILL)
        assert (await host.gateway.body("job_exited", request_id))["exit_code"] == 137


async def test_command_that_ends_well_leaves_the_check_to_decide(open_host: OpenHost, tmp_path: Path) -> None:
    flag = tmp_path / "ready"
    async with open_host() as host:
        text = f"(sleep 0.3; touch {flag}) >/dev/null 2>&1 & exit 0"
        status = await end_of(host, text, job(FileExists(str(flag))))
        assert (status["status"], status["exit_code"]) == ("completed", 0)
        assert not any(event["body"]["type"] == "job_exited" for event in host.gateway.events)


async def test_command_that_ends_badly_fails_at_once(open_host: OpenHost, free_port: int) -> None:
    async with open_host() as host:
        status = await end_of(host, "echo cannot bind >&2; exit 7", job(PortOpen(free_port), max_wait_ms=60_000))
        assert (status["status"], status["exit_code"]) == ("failed", 7)
        assert status["elapsed_ms"] < 3000
        assert status["check_result"]["details"]["is_open"] is False
        assert status["log_tail"] == "cannot bind\n"


async def test_check_that_is_true_although_the_command_ended_badly(open_host: OpenHost, tmp_path: Path) -> None:
    async with open_host() as host:
        status = await end_of(host, "exit 1", job(FileExists(str(tmp_path))))
        assert status["status"] == "completed"


async def test_time_runs_out_with_the_last_results(open_host: OpenHost, free_port: int, tmp_path: Path) -> None:
    check = AllOf([FileExists(str(tmp_path)), PortOpen(free_port)])
    async with open_host() as host:
        request_id = await host.gateway.command(sh("exec sleep 60"), job(check, max_wait_ms=400))
        status = await host.gateway.body("async_status", request_id)
        assert status["status"] == "timeout"
        assert status["error"] == "the completion check has not passed within 0.4 s"
        assert [part["passed"] for part in status["check_result"]["details"]["sub_checks"]] == [True, False]
        pid = (await host.gateway.body("async_started", request_id))["pid"]
        assert psutil.pid_exists(pid)
        os.kill(pid, signal.SIGKILL)


async def test_command_without_check_that_takes_too_long(open_host: OpenHost) -> None:
    async with open_host() as host:
        request_id = await host.gateway.command(sh("exec sleep 60"), job(max_wait_ms=200))
        status = await host.gateway.body("async_status", request_id)
        assert (status["status"], status["error"]) == ("timeout", "still running after 0.2 s")
        os.kill((await host.gateway.body("async_started", request_id))["pid"], signal.SIGKILL)


async def test_cancel_ends_the_group(open_host: OpenHost, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    async with open_host() as host:
        request_id = await host.gateway.command(sh(f"sleep 60 & echo $! > {pids}; wait"), job())
        await host.gateway.body("async_started", request_id)
        await _exists(pids)
        await host.gateway.tell(CancelCommand(AGENT_ID, request_id))
        status = await host.gateway.body("async_status", request_id)
        assert (status["status"], status["exit_code"]) == ("cancelled", 143)
        assert not _is_running(int(pids.read_text()))


async def test_cancel_kills_what_ignores_it(
    open_host: OpenHost, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("opsmap_agent.jobs.job._TERM_GRACE_S", 0.1)
    flag = tmp_path / "flag"
    async with open_host() as host:
        text = f"trap '' TERM; touch {flag}; while true; do sleep 0.05; done"
        request_id = await host.gateway.command(sh(text), job())
        await _exists(flag)
        await host.gateway.tell(CancelCommand(AGENT_ID, request_id))
        status = await host.gateway.body("async_status", request_id)
        assert (status["status"], status["exit_code"]) == ("cancelled", 137)


async def test_cancel_may_leave_the_process_alone(open_host: OpenHost) -> None:
    async with open_host() as host:
        request_id = await host.gateway.command(sh("exec sleep 60"), job())
        pid = (await host.gateway.body("async_started", request_id))["pid"]
        await host.gateway.tell(CancelCommand(AGENT_ID, request_id, kill=False))
        status = await host.gateway.body("async_status", request_id)
        assert status["status"] == "cancelled"
        assert _is_running(pid)
        os.kill(pid, signal.SIGKILL)
        await host.gateway.body("job_exited", request_id)


async def test_cancel_of_something_unknown_is_answered(open_host: OpenHost) -> None:
    async with open_host() as host:
        await host.gateway.tell(CancelCommand(AGENT_ID, "nobody"))
        await host.gateway.until(lambda: bool(host.gateway.replies))
        assert (host.gateway.replies[0]["code"], host.gateway.replies[0]["about"]) == ("unknown_request", "nobody")


async def test_statuses_when_asked(open_host: OpenHost) -> None:
    async with open_host() as host:
        running = await host.gateway.command(sh("exec sleep 60"), job())
        ended = await host.gateway.command(sh("exit 2"), job())
        pid = (await host.gateway.body("async_started", running))["pid"]
        await host.gateway.body("async_status", ended)
        await host.gateway.tell(CheckJobStatus(AGENT_ID, [f"job_{running}", f"job_{ended}", "job_none"]))
        await host.gateway.until(lambda: bool(host.gateway.replies))
        (answer,) = host.gateway.replies
        assert [status["status"] for status in answer["jobs"]] == ["running", "failed", "failed"]
        assert (answer["jobs"][1]["exit_code"], answer["jobs"][2]["error"]) == (2, "job not found")
        assert answer["jobs"][2]["request_id"] == "none"
        os.kill(pid, signal.SIGKILL)


async def test_job_that_ends_while_it_is_asked_about_is_known(
    open_host: OpenHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask_journal = Journal.final_statuses
    asked, may_answer = asyncio.Event(), asyncio.Event()

    async def answer_late(journal: Journal, job_ids: Sequence[str]) -> dict[str, str]:
        finals = await ask_journal(journal, job_ids)
        asked.set()
        await may_answer.wait()
        return finals

    monkeypatch.setattr(Journal, "final_statuses", answer_late)
    async with open_host() as host:
        request_id = await host.gateway.command(sh("exec sleep 60"), job())
        pid = (await host.gateway.body("async_started", request_id))["pid"]
        await host.gateway.tell(CheckJobStatus(AGENT_ID, [f"job_{request_id}"]))
        await asked.wait()
        os.kill(pid, signal.SIGKILL)
        await host.gateway.body("async_status", request_id)
        may_answer.set()
        await host.gateway.until(lambda: bool(host.gateway.replies))
        (status,) = host.gateway.replies[0]["jobs"]
        assert status["status"] == "running"


async def test_long_log_is_told_before_the_end(open_host: OpenHost) -> None:
    async with open_host(scripts=Scripts(max_output_bytes=150_000)) as host:
        text = "i=0; while [ $i -lt 20000 ]; do echo line$i; i=$((i+1)); done"
        request_id = await host.gateway.command(sh(text), AsyncMode())
        status = await host.gateway.body("async_status", request_id)
        written = "".join(f"line{number}\n" for number in range(20_000))
        pieces = [event["body"] for event in host.gateway.events[1:-1]]
        assert {(piece["type"], piece["stream"]) for piece in pieces} == {("command_output", "log")}
        assert "".join(piece["text"] for piece in pieces) == written[:150_000]
        assert [piece["offset"] for piece in pieces] == [0, 65_536, 131_072]
        assert [piece.get("total") for piece in pieces] == [None, None, len(written)]
        assert written.endswith(status["log_tail"])
        assert len(status["log_tail"]) == 4_096


async def test_short_log_is_its_tail(open_host: OpenHost) -> None:
    async with open_host() as host:
        request_id = await host.gateway.command(sh("echo short"), AsyncMode())
        status = await host.gateway.body("async_status", request_id)
        assert status["log_tail"] == "short\n"
        assert [event["body"]["type"] for event in host.gateway.events] == ["async_started", "async_status"]


async def test_end_of_a_process_pokes_the_health_check_of_its_subject(open_host: OpenHost, free_port: int) -> None:
    check = HealthCheck("kafka", TcpProbe(free_port), interval_ms=3_600_000, failure_threshold=2)
    listen = f"import socket,time; s=socket.create_server(('127.0.0.1',{free_port})); time.sleep(60)"
    async with open_host() as host:
        await host.gateway.tell(ConfigUpdate(AGENT_ID, datetime.now(UTC), "1", [check]))
        await host.gateway.body("health_changed", "kafka")
        mode = job(PortOpen(free_port, host="127.0.0.1"))
        request_id = await host.gateway.command(ExecuteCommand("python3", ["-c", listen]), mode, subject="kafka")
        pid = (await host.gateway.body("async_started", request_id))["pid"]
        await host.gateway.until(lambda: _healths(host) == ["unhealthy", "healthy"])
        os.kill(pid, signal.SIGKILL)
        await host.gateway.until(lambda: _healths(host) == ["unhealthy", "healthy", "unhealthy"], timeout_s=3)


async def test_log_of_a_component_is_that_of_its_start(open_host: OpenHost, tmp_path: Path) -> None:
    async with open_host() as host:
        start = sh("echo started '<script>'; printf '\\033[31m'")
        await host.gateway.body(
            "async_status", await host.gateway.command(start, job(FileExists(str(tmp_path))), subject="kafka")
        )
        stop = await host.gateway.command(sh("echo stopped"), job(), subject="kafka")
        await host.gateway.body("async_status", stop)
        log = await host.gateway.run(NativeCommand("job_log", {"subject": "kafka"}))
        assert log["result"]["text"] == "started <script>\n\x1b[31m"
        log = await host.gateway.run(NativeCommand("job_log", {"request_id": stop}))
        assert log["result"]["text"] == "stopped\n"


async def test_inline_script_as_a_job(open_host: OpenHost) -> None:
    async with open_host() as host:
        spec = ScriptCommand(content='echo "$1 $COLOUR"; pwd', args=["a b"], env={"COLOUR": "blue"}, working_dir="/usr")
        status = await host.gateway.body("async_status", await host.gateway.command(spec, job()))
        assert status["log_tail"] == "a b blue\n/usr\n"


async def test_start_of_a_service_is_a_job(
    open_host: OpenHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    systemctl = tmp_path / "bin" / "systemctl"
    systemctl.parent.mkdir()
    systemctl.write_text('#!/bin/sh\necho "$@"\n')
    systemctl.chmod(0o755)
    monkeypatch.setenv("PATH", f"{systemctl.parent}:{os.environ['PATH']}")
    async with open_host() as host:
        spec = ServiceControlCommand("nginx", ServiceAction.START)
        status = await host.gateway.body("async_status", await host.gateway.command(spec, job()))
        assert (status["status"], status["log_tail"]) == ("completed", "start nginx.service\n")


async def test_cap_on_living_jobs(open_host: OpenHost, tmp_path: Path) -> None:
    async with open_host(detached_execution=DetachedExecution(tmp_path / "detached", max_jobs=2)) as host:
        first = [await host.gateway.command(sh("exec sleep 60"), job()) for _ in range(2)]
        pids = [(await host.gateway.body("async_started", request_id))["pid"] for request_id in first]
        refused = await host.gateway.run(sh("exit 0"), job())
        assert refused["outcome"] == "rejected"
        assert "2 detached processes are alive" in refused["error"]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        for request_id in first:
            await host.gateway.body("async_status", request_id)
        assert (await end_of(host, "exit 0", job()))["status"] == "completed"


async def test_old_jobs_are_cleaned_away(open_host: OpenHost, tmp_path: Path) -> None:
    detached = DetachedExecution(tmp_path / "detached", log_retention_days=0, cleanup_interval_hours=0.3 / 3600)
    async with open_host(detached_execution=detached) as host:
        living = await host.gateway.command(sh("exec sleep 60"), job())
        pid = (await host.gateway.body("async_started", living))["pid"]
        ended = await end_of(host, "exit 0", job())
        async with asyncio.timeout(5):
            while [path.name for path in detached.log_dir.iterdir()] != [f"job_{living}"]:  # noqa: ASYNC110 - on disk
                await asyncio.sleep(0.02)
        missing = await host.gateway.run(NativeCommand("job_log", {"request_id": ended["request_id"]}))
        assert missing["outcome"] == "failed"
        os.kill(pid, signal.SIGKILL)
        await host.gateway.body("async_status", living)


@pytest.mark.parametrize(
    ("code", "text"),
    [(3, "exit code 3"), (137, "signal SIGKILL (exit code 137)"), (255, "exit code 255"), (None, "exit code None")],
)
def test_exit_in_words(code: int | None, text: str) -> None:
    assert describe_exit(code) == text


def _healths(host: Host) -> list[str]:
    return [event["body"]["status"] for event in host.gateway.events if event["body"]["type"] == "health_changed"]


def _is_running(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


async def _exists(path: Path) -> None:
    """Wait until another process has made a file, and written it if it is one with pids."""
    async with asyncio.timeout(5):
        while not path.exists() or (path.name == "pids" and not path.read_text().strip()):  # noqa: ASYNC110
            await asyncio.sleep(0.005)
