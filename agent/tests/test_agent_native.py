"""Native commands: their fields are those of the reference (6.1), their refusals clear."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from opsmap_agent.configuration import Configuration, NativeCommands
from opsmap_agent.jobfolder import JobFolder
from opsmap_agent.journal import Journal
from opsmap_agent.journal_rows import JobRow
from opsmap_agent.native import NativeCommandError, NativeContext, native_names, run_native
from opsmap_agent.policy import Policy
from opsmap_agent.probes import Prober
from opsmap_agent.refusals import RejectedError
from opsmap_agent.sync import SyncRunner
from opsmap_protocol.messages import AsyncStarted


class Natives:
    def __init__(self, context: NativeContext, executor: ThreadPoolExecutor) -> None:
        self._context = context
        self._executor = executor
        self.switches = NativeCommands()

    async def __call__(self, command: str, /, **params: Any) -> Any:
        return await run_native(command, params, self._context, self.switches, self._executor)


@pytest.fixture
async def native(agent_configuration: Configuration, tmp_path: Path) -> AsyncIterator[Natives]:
    (tmp_path / "buffer").mkdir()
    journal = await Journal.open(tmp_path / "buffer")
    with ThreadPoolExecutor(2) as executor:
        prober = Prober(Policy(agent_configuration), SyncRunner(executor, 1000), executor)
        context = NativeContext(prober, journal, lambda request_id: JobFolder(tmp_path / request_id))
        yield Natives(context, executor)
    await journal.close()


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("os_info", {"os_type", "os_release", "hostname", "kernel", "arch", "uptime_secs"}),
        ("uptime", {"uptime_secs", "boot_time"}),
        ("cpu_load", {"load_1m", "load_5m", "load_15m", "cpu_count", "cpu_usage_pct"}),
        ("memory_usage", {"total_mb", "used_mb", "free_mb", "cached_mb", "swap_total_mb", "swap_used_mb"}),
    ],
)
async def test_fields_of_the_host(native: Natives, name: str, fields: set[str]) -> None:
    assert set(await native(name)) == fields


async def test_disk_space(native: Natives) -> None:
    disks = await native("disk_space")
    for disk in disks:
        assert set(disk) == {"mount", "device", "fs_type", "total_gb", "used_gb", "avail_gb", "pct"}


async def test_port_check(native: Natives, free_port: int) -> None:
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    async with server:
        found = await native("port_check", port=server.sockets[0].getsockname()[1])
    assert found["reachable"]
    assert found["latency_ms"] >= 0
    closed = await native("port_check", host="127.0.0.1", port=free_port, timeout_ms=500)
    assert closed == {"reachable": False, "latency_ms": None, "error": "connection refused"}


async def test_files(native: Natives, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("12345")
    path.chmod(0o640)
    assert await native("file_exists", path=str(path)) == {"exists": True, "is_file": True, "is_dir": False}
    assert await native("file_exists", path=str(tmp_path / "none" / "x")) == {
        "exists": False,
        "is_file": False,
        "is_dir": False,
    }
    found = await native("file_stat", path=str(path))
    assert (found["size"], found["mode"], found["uid"]) == (5, "0640", os.getuid())
    assert set(found) == {"size", "mode", "uid", "gid", "mtime", "atime", "ctime"}
    with pytest.raises(NativeCommandError, match="No such file"):
        await native("file_stat", path=str(tmp_path / "none"))


async def test_processes(native: Natives, monkeypatch: pytest.MonkeyPatch) -> None:
    process = await asyncio.create_subprocess_exec("sleep", "61.25", env={"DB_PASSWORD": "hunter2", "COLOUR": "blue"})
    try:
        (found,) = await native("process_find", pattern="SLEEP 61.25")
        assert found == {"pid": process.pid, "name": "sleep", "cmd": "sleep 61.25"}
        info = await native("process_info", pid=process.pid)
        assert set(info) == {"pid", "name", "exe", "cwd", "env", "open_files", "connections", "threads"}
        assert info["env"] == {"DB_PASSWORD": "***", "COLOUR": "blue"}
        assert (info["name"], info["threads"]) == ("sleep", 1)
    finally:
        process.kill()
        await process.wait()
    with pytest.raises(NativeCommandError, match="there is no process"):
        await native("process_info", pid=process.pid)


async def test_service_status(native: Natives, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("opsmap_agent.probes._SYSTEMD_FOLDER", tmp_path / "none")
    status = await native("service_status", name="nginx")
    assert set(status) == {"name", "status", "pid", "enabled", "description", "error"}
    assert status["status"] == "unknown"


async def test_unknown_name_is_refused(native: Natives) -> None:
    with pytest.raises(RejectedError, match="no native command 'format_disk'"):
        await native("format_disk")


async def test_switched_off_is_refused(native: Natives) -> None:
    native.switches = NativeCommands(uptime=False, process_list=False)
    with pytest.raises(RejectedError, match="native command 'uptime' is switched off in native_commands"):
        await native("uptime")
    with pytest.raises(RejectedError, match="'process_find' is switched off"):
        await native("process_find", pattern="x")
    assert await native("memory_usage")


async def test_parameters_are_checked(native: Natives) -> None:
    with pytest.raises(RejectedError, match="'port_check': port: expected an integer, found \"80\""):
        await native("port_check", port="80")
    with pytest.raises(RejectedError, match="'port_check': port: expected a value"):
        await native("port_check")
    with pytest.raises(RejectedError, match="'uptime' has no parameter 'verbose'; it takes none"):
        await native("uptime", verbose=True)
    with pytest.raises(RejectedError, match="has no parameter 'context'"):
        await native("file_stat", context=1, path="/")


def test_every_switch_exists() -> None:
    assert {"os_info", "disk_space", "job_log", "process_find", "service_status"} <= set(native_names())


async def test_job_log(native: Natives, tmp_path: Path) -> None:
    folder = JobFolder(tmp_path / "r-1")
    folder.create()
    folder.log_path.write_text("first line\nsecond line\n")
    row = JobRow("job_r-1", "r-1", "{}", "kafka", True, datetime.now(UTC))
    started = AsyncStarted("r-1", "job_r-1", 1, datetime.now(UTC), 2000)
    await native._context.journal.record(started, job=row)
    expected = {"text": "second line\n", "size": 23, "offset": 11, "next_offset": 23, "is_truncated": True}
    assert await native("job_log", request_id="r-1", max_bytes=12) == expected
    assert await native("job_log", subject="kafka", max_bytes=12) == expected
    following = await native("job_log", subject="kafka", max_bytes=5, offset=6)
    assert (following["text"], following["next_offset"], following["is_truncated"]) == ("line\n", 11, True)


async def test_job_log_of_nobody(native: Natives) -> None:
    with pytest.raises(NativeCommandError, match="no job of this agent"):
        await native("job_log", request_id="../../etc")
    with pytest.raises(RejectedError, match="either request_id or subject"):
        await native("job_log")
    with pytest.raises(RejectedError, match="max_bytes is at least 1"):
        await native("job_log", subject="kafka", max_bytes=0)
