"""Completion checks against real ports, processes, files and small HTTP servers."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from opsmap_agent.checks.completion import CheckRunner, waits_for_start
from opsmap_agent.checks.probes import Prober
from opsmap_agent.commands.sync import SyncRunner
from opsmap_agent.configuration import Configuration
from opsmap_agent.host.process_table import ProcessEntry, is_named
from opsmap_agent.rules.policy import Policy
from opsmap_agent.rules.reach import Reach
from opsmap_protocol.checks import (
    AllOf,
    AnyOf,
    CompletionCheck,
    CustomCommand,
    FileExists,
    HttpHealthy,
    PortOpen,
    ProcessRunning,
    ProcessStopped,
    ServiceStatusIs,
)
from opsmap_protocol.codec import encode
from opsmap_protocol.enums import ServiceState


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


@pytest.fixture
def prober(agent_configuration: Configuration, executor: ThreadPoolExecutor) -> Prober:
    return Prober(Policy(agent_configuration), SyncRunner(executor, 10_000), executor, Reach())


@pytest.fixture
def checks(prober: Prober) -> CheckRunner:
    return CheckRunner(prober, timeout_s=2.0)


@asynccontextmanager
async def answering(answer: bytes, host: str = "127.0.0.1", *, then_close: bool = True) -> AsyncIterator[int]:
    """The port of a server that gives every connection the same bytes once it has asked."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            await writer.drain()
            if not then_close:
                await reader.read()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(handle, host, 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


def http(body: bytes, status: str = "200 OK", headers: bytes = b"") -> bytes:
    length = b"Content-Length: %d\r\n" % len(body)
    return b"HTTP/1.1 " + status.encode() + b"\r\n" + length + headers + b"\r\n" + body


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`python3 …/trading-api-<number>.py`: nobody else's process has that name."""
    path = tmp_path / f"trading-api-{os.getpid()}.py"
    path.write_text("import sys; print('ready', flush=True); sys.stdin.read()")
    with subprocess.Popen(
        [sys.executable, str(path), "--port", "1"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process


async def test_http_healthy(checks: CheckRunner) -> None:
    async with answering(http(b'{"status":"UP"}'), then_close=False) as port:
        url = f"http://localhost:{port}/health?deep=1"
        result = await checks.evaluate(HttpHealthy(url, body_contains='"status":"UP"'))
        assert result.passed
        assert result.check_type == "http_healthy"
        assert result.details["url"] == url
        assert result.details["expected_status"] == 200
        assert result.details["result"]["status"] == 200
        assert not (await checks.evaluate(HttpHealthy(url, body_contains="DOWN"))).passed
        assert not (await checks.evaluate(HttpHealthy(url, expected_status=204))).passed


@pytest.mark.parametrize(
    ("answer", "status", "contains"),
    [
        (b"HTTP/1.0 200 OK\r\n\r\nold and without length", 200, "length"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n4;x=1\r\ndefg\r\n0\r\n\r\n", 200, "cdef"),
        (http(b"x" * 200_000 + b"end"), 200, "x" * 60_000),
        (http(b"", "302 Found", b"Location: http://localhost:1/\r\n"), 302, ""),
        (b"HTTP/1.1 503 \r\nContent-Length: 0\r\n\r\n", 503, ""),
        (http(b"\xff<b>\x1b[0m"), 200, "\ufffd<b>\x1b[0m"),
    ],
)
async def test_http_answers(checks: CheckRunner, answer: bytes, status: int, contains: str) -> None:
    async with answering(answer) as port:
        check = HttpHealthy(f"http://127.0.0.1:{port}", expected_status=status, body_contains=contains)
        result = await checks.evaluate(check)
        assert result.passed, result


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"", "not a complete HTTP answer"),
        (b"SSH-2.0-OpenSSH_9\r\n\r\n", "not an HTTP answer"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000, "not a complete HTTP answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n", "not a complete HTTP answer"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "not a complete HTTP answer"),
    ],
)
async def test_what_is_not_http(checks: CheckRunner, answer: bytes, error: str) -> None:
    async with answering(answer) as port:
        result = await checks.evaluate(HttpHealthy(f"http://127.0.0.1:{port}/"))
    assert not result.passed
    assert error in result.details["error"]


@pytest.mark.parametrize(
    "url", ["ftp://localhost/", "localhost:80", "http://localhost:99999/", "http://a b/", "http://"]
)
async def test_url_that_cannot_be_asked(checks: CheckRunner, url: str) -> None:
    result = await checks.evaluate(HttpHealthy(url))
    assert not result.passed
    assert "not an http or https URL" in result.details["error"]


async def test_silent_server_is_a_failed_check(prober: Prober) -> None:
    async with answering(b"", then_close=False) as port:
        result = await CheckRunner(prober, timeout_s=0.1).evaluate(HttpHealthy(f"http://127.0.0.1:{port}/"))
    assert not result.passed
    assert result.details["error"] == "no answer within 0.1 s"


async def test_port(checks: CheckRunner, free_port: int) -> None:
    async with answering(b"") as port:
        assert (await checks.evaluate(PortOpen(port))).details == {
            "host": "localhost",
            "port": port,
            "should_be_open": True,
            "is_open": True,
        }
    assert not (await checks.evaluate(PortOpen(free_port))).passed
    assert (await checks.evaluate(PortOpen(free_port, should_be_open=False))).passed
    assert not (await checks.evaluate(PortOpen(99_999))).passed


@pytest.mark.skipif(not socket.has_ipv6, reason="this host has no IPv6")
async def test_localhost_is_both_families(checks: CheckRunner) -> None:
    async with answering(b"", host="::1") as port:
        assert (await checks.evaluate(PortOpen(port))).passed


async def test_file(checks: CheckRunner, tmp_path: Path) -> None:
    path = str(tmp_path / "flag")
    assert not (await checks.evaluate(FileExists(path))).passed
    assert (await checks.evaluate(FileExists(path, should_exist=False))).passed
    Path(path).touch()
    assert (await checks.evaluate(FileExists(path))).details == {"path": path, "should_exist": True, "exists": True}


async def test_process_running_and_stopped(
    checks: CheckRunner, sleeper: subprocess.Popen[bytes], free_port: int
) -> None:
    script = Path(sleeper.args[1])  # type: ignore[index]
    for name in (script.stem, script.name, str(script)):
        running = await checks.evaluate(ProcessRunning(name))
        assert (running.passed, running.details["pid"]) == (True, sleeper.pid)
    assert not (await checks.evaluate(ProcessRunning(script.stem, listening_port=free_port))).passed
    assert not (await checks.evaluate(ProcessStopped(script.stem))).passed
    sleeper.kill()
    sleeper.wait()
    stopped = await checks.evaluate(ProcessStopped(script.stem))
    assert (stopped.passed, stopped.details["still_running"]) == (True, False)


@pytest.mark.parametrize(
    ("arguments", "name", "is_match"),
    [
        (["/usr/bin/redis-server", "*:6379"], "redis-server", True),
        (["/usr/bin/redis-server", "*:6379"], "redis", False),
        (["java", "-Xmx1g", "-jar", "/opt/trading-api.jar"], "trading-api", True),
        (["java", "-Xmx1g", "-jar", "/opt/trading-api.jar"], "java", True),
        (["python3", "-m", "trading_api.main", "--port", "1"], "trading_api.main", True),
        (["/usr/bin/tail", "-f", "/var/log/trading-api.log"], "trading-api", False),
        (["vim", "trading-api.py"], "trading-api", False),
        (["python3", "serve.py", "--name", "trading-api"], "serve.py --name trading-api", True),
        (["python3", "serve.py", "--name", "trading-api"], "*--name trading-*", True),
        (["python3", "/opt/demo/serve.py"], "/opt/demo/", True),
        ([], "kthreadd", True),
    ],
)
def test_which_process_a_name_means(arguments: list[str], name: str, is_match: bool) -> None:
    program = arguments[0].rpartition("/")[2] if arguments else "kthreadd"
    assert is_named(ProcessEntry(1, program, tuple(arguments)), name) is is_match


async def test_custom_command(checks: CheckRunner) -> None:
    passed = await checks.evaluate(CustomCommand("sh", ["-c", "echo '<b>'; exit 4"], expected_exit_code=4))
    assert passed.passed
    assert passed.details["result"]["stdout"] == "<b>\n"
    assert not (await checks.evaluate(CustomCommand("sh", ["-c", "exit 4"]))).passed
    missing = await checks.evaluate(CustomCommand("no-such-program"))
    assert "no program 'no-such-program'" in missing.details["error"]


async def test_custom_command_obeys_the_allow_list(
    agent_configuration: Configuration, executor: ThreadPoolExecutor
) -> None:
    scripts = replace(agent_configuration.scripts, allowed_commands=["sleep"])
    policy = Policy(replace(agent_configuration, scripts=scripts))
    runner = CheckRunner(Prober(policy, SyncRunner(executor, 1000), executor, Reach()))
    result = await runner.evaluate(CustomCommand("sh", ["-c", "exit 0"]))
    assert not result.passed
    assert "scripts.allowed_commands" in result.details["error"]


async def test_service_without_systemd_is_unknown_with_a_reason(
    checks: CheckRunner, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("opsmap_agent.host.systemd._RUNNING", tmp_path / "none")
    result = await checks.evaluate(ServiceStatusIs("nginx", ServiceState.RUNNING))
    assert not result.passed
    assert result.details == {
        "service": "nginx",
        "expected": "running",
        "actual": "unknown",
        "error": "this host was not started by systemd",
    }


async def test_all_and_any_nest_and_show_their_parts(checks: CheckRunner, tmp_path: Path) -> None:
    here, gone = FileExists(str(tmp_path)), FileExists(str(tmp_path / "none"))
    assert (await checks.evaluate(AllOf([here, AnyOf([gone, here])]))).passed
    result = await checks.evaluate(AllOf([here, AnyOf([gone])]))
    assert not result.passed
    parts = result.details["sub_checks"]
    assert [part["passed"] for part in parts] == [True, False]
    assert parts[1]["details"]["sub_checks"][0]["details"]["path"] == str(tmp_path / "none")
    assert "sub_checks" in encode(result)


async def test_slow_part_fails_alone(prober: Prober, tmp_path: Path) -> None:
    async with answering(b"", then_close=False) as port:
        slow = HttpHealthy(f"http://127.0.0.1:{port}/")
        result = await CheckRunner(prober, timeout_s=0.1).evaluate(AllOf([slow, FileExists(str(tmp_path))]))
    assert [part["passed"] for part in result.details["sub_checks"]] == [False, True]


@pytest.mark.parametrize(
    ("check", "is_start"),
    [
        (None, False),
        (ProcessRunning("x"), True),
        (ProcessStopped("x"), False),
        (PortOpen(1), True),
        (PortOpen(1, should_be_open=False), False),
        (ServiceStatusIs("x", ServiceState.RUNNING), True),
        (ServiceStatusIs("x", ServiceState.STOPPED), False),
        (AllOf([ProcessStopped("x"), FileExists("/x", should_exist=False)]), False),
        (AllOf([ProcessStopped("x"), HttpHealthy("http://x")]), True),
    ],
)
def test_start_is_told_by_its_check(check: CompletionCheck | None, is_start: bool) -> None:
    assert waits_for_start(check) is is_start
