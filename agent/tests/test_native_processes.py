"""Processes, compared with /proc and ps; and that no secret leaves the host with them."""

from __future__ import annotations

import asyncio
import os
import pwd
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from opsmap_agent.native import NativeCommandError
from testing_natives import RunNative

Start = Callable[..., AbstractAsyncContextManager[asyncio.subprocess.Process]]


@pytest.fixture
def start() -> Start:
    """`async with start("sleep", "60") as process`: a process that is gone afterwards."""

    @asynccontextmanager
    async def begin(*command: str, **options: object) -> AsyncIterator[asyncio.subprocess.Process]:
        process = await asyncio.create_subprocess_exec(*command, **options)  # type: ignore[arg-type]
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()

    return begin


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {line.split(":\t")[0]: line.split(":\t")[1] for line in lines if ":\t" in line}


async def test_process_list_is_what_proc_and_ps_say(native: RunNative, start: Start) -> None:
    async with start("sleep", "63.5") as process:
        listed = {each["pid"]: each for each in await native("process_list")}
        found = listed[process.pid]
        status = status_of(process.pid)
        assert found["name"] == status["Name"] == "sleep"
        assert found["ppid"] == int(status["PPid"]) == os.getpid()
        assert found["user"] == pwd.getpwuid(int(status["Uid"].split()[1])).pw_name
        assert found["cmd"] == "sleep 63.5"
        assert found["status"] == "sleeping"
        assert found["mem_mb"] == pytest.approx(int(status["VmRSS"].split()[0]) / 1024, abs=0.5)
        now = {int(name.name) for name in Path("/proc").iterdir() if name.name.isdigit()}
        assert len(set(listed) ^ now) < 30  # What began or ended between the two looks.
    own = listed[os.getpid()]
    (cpu,) = subprocess.run(
        ["ps", "-o", "pcpu=", "-p", str(os.getpid())], capture_output=True, text=True
    ).stdout.split()
    assert own["cpu_pct"] == pytest.approx(float(cpu), abs=15)
    assert list(listed) == sorted(listed)


async def test_process_info_is_what_proc_says(native: RunNative, start: Start, tmp_path: Path) -> None:
    code = (
        "import socket, sys\n"
        "server = socket.create_server(('127.0.0.1', 0)); kept = open('data.txt')\n"
        "print(server.getsockname()[1], flush=True); sys.stdin.read()"
    )
    (tmp_path / "data.txt").touch()
    pipe = asyncio.subprocess.PIPE
    async with start(
        sys.executable,
        "-c",
        code,
        cwd=tmp_path,
        stdin=pipe,
        stdout=pipe,
        env={"DB_PASSWORD": "hunter2", "COLOUR": "blue"},
    ) as process:
        assert process.stdout is not None
        port = int(await process.stdout.readline())
        info = await native("process_info", pid=process.pid)
        assert info["exe"] == str(Path(f"/proc/{process.pid}/exe").readlink())
        assert info["name"] == status_of(process.pid)["Name"]
        assert info["cwd"] == str(tmp_path)
        assert info["env"].items() >= {"DB_PASSWORD": "***", "COLOUR": "blue"}.items()
        assert info["open_files"] == [str(tmp_path / "data.txt")]
        assert info["connections"] == [{"local": f"127.0.0.1:{port}", "remote": None, "status": "LISTEN"}]
        assert info["threads"] == int(status_of(process.pid)["Threads"])
    with pytest.raises(NativeCommandError, match="there is no process"):
        await native("process_info", pid=process.pid)
    for pid in (-1, 2**31, 2**63 - 1):
        with pytest.raises(NativeCommandError, match="there is no process"):
            await native("process_info", pid=pid)


async def test_process_find(native: RunNative, start: Start) -> None:
    async with start("sleep", "61.25") as process:
        assert await native("process_find", pattern="SLEEP 61.25") == [
            {"pid": process.pid, "name": "sleep", "cmd": "sleep 61.25"}
        ]
    assert await native("process_find", pattern="sleep 61.25") == []


async def test_secrets_of_command_lines_stay_on_the_host(native: RunNative, start: Start) -> None:
    async with start(sys.executable, "-c", "import sys; sys.stdin.read()", "--password=hunter2", stdin=-1) as process:
        (found,) = [each for each in await native("process_list") if each["pid"] == process.pid]
        assert found["cmd"].endswith("--password=***")
        (found,) = await native("process_find", pattern="--password=***")
        assert "hunter2" not in found["cmd"]
        # Neither can it be guessed letter by letter.
        assert await native("process_find", pattern="--password=hunt") == []


async def test_hostile_names_arrive_as_text(native: RunNative, start: Start) -> None:
    name = "<script>\n\x1b[2J" + "A" * 10_000
    async with start(sys.executable, "-c", "import sys; sys.stdin.read()", name, stdin=-1) as process:
        (found,) = [each for each in await native("process_list") if each["pid"] == process.pid]
    assert len(found["cmd"]) <= 1_000
    assert "<script>\n\x1b[2JAAAA" in found["cmd"]


async def test_connections_of_a_process(native: RunNative) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        info = await native("process_info", pid=os.getpid())
        local, remote = (f"{host}:{port}" for host, port in (client.getsockname(), client.getpeername()))
        assert {"local": local, "remote": remote, "status": "ESTABLISHED"} in info["connections"]
