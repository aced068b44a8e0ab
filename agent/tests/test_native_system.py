"""What the host is and how busy it is, compared with /proc and the tools that everybody has."""

from __future__ import annotations

import asyncio
import os
import platform
import subprocess
import threading
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest

from opsmap_agent.native import system
from testing_natives import RunNative


class Mount(NamedTuple):
    """As psutil tells of one."""

    device: str
    mountpoint: str
    fstype: str


def proc(name: str) -> str:
    return Path(f"/proc/{name}").read_text()


def run(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | {"LC_ALL": "C"}).stdout


async def test_os_info(native: RunNative) -> None:
    found = await native("os_info")
    assert found["os_type"] == "linux"
    assert found["hostname"] == proc("sys/kernel/hostname").strip()
    assert found["kernel"] == proc("sys/kernel/osrelease").strip()
    assert found["arch"] == run("uname", "-m").strip()
    assert found["os_release"] in Path("/etc/os-release").read_text() or found["os_release"] == platform.version()
    assert abs(found["uptime_secs"] - float(proc("uptime").split()[0])) < 3


async def test_uptime(native: RunNative) -> None:
    found = await native("uptime")
    assert abs(found["uptime_secs"] - float(proc("uptime").split()[0])) < 3
    (booted,) = [line.split()[1] for line in proc("stat").splitlines() if line.startswith("btime")]
    assert abs(datetime.fromisoformat(found["boot_time"]).timestamp() - int(booted)) < 2


async def test_cpu_load(native: RunNative) -> None:
    found = await native("cpu_load")
    loads = [float(each) for each in proc("loadavg").split()[:3]]
    # The kernel counts anew every five seconds: between two looks a load may move by a twelfth of the tasks.
    assert found["load_15m"] == pytest.approx(loads[2], abs=1)
    assert found["load_1m"] == pytest.approx(loads[0], abs=5)
    assert found["cpu_count"] == proc("cpuinfo").count("processor\t:")
    assert 0 <= found["cpu_usage_pct"] <= 100


async def test_memory_usage(native: RunNative) -> None:
    found = await native("memory_usage")
    facts = {line.split(":")[0]: int(line.split()[1]) // 1024 for line in proc("meminfo").splitlines()}
    assert found["total_mb"] == facts["MemTotal"]
    assert found["free_mb"] == pytest.approx(facts["MemFree"], abs=500)
    assert found["cached_mb"] == pytest.approx(facts["Cached"] + facts["SReclaimable"], abs=500)
    assert 0 < found["used_mb"] < facts["MemTotal"]
    assert found["swap_total_mb"] == facts["SwapTotal"]
    assert found["swap_used_mb"] == pytest.approx(facts["SwapTotal"] - facts["SwapFree"], abs=100)


async def test_disk_space_is_what_df_says(native: RunNative) -> None:
    found = {disk["mount"]: disk for disk in await native("disk_space")}
    lines = run("df", "--output=target,source,fstype,size,used,avail", "-k").splitlines()[1:]
    expected = {line.split()[0]: line.split()[1:] for line in lines}
    # Mounts of others (a test in a namespace, a container) come and go between the two looks.
    assert "/" in set(found) & set(expected)
    for mount in set(found) & set(expected):
        source, kind, *sizes = expected[mount]
        size, used, avail = (int(each) / 1024**2 for each in sizes)
        disk = found[mount]
        assert (disk["device"], disk["fs_type"]) == (source, kind)
        assert disk["total_gb"] == pytest.approx(size, abs=0.01)
        assert disk["used_gb"] == pytest.approx(used, abs=1)
        assert disk["avail_gb"] == pytest.approx(avail, abs=1)
        assert disk["pct"] == pytest.approx(100 * used / (used + avail), abs=1) if used + avail else True


async def test_file_system_that_does_not_answer_is_left_out(native: RunNative, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a network file system does whose server is gone."""
    dead = Mount("server:/dead", "/mnt/dead", "nfs4")
    partitions, stop = psutil.disk_partitions(all=True), threading.Event()
    monkeypatch.setattr(system, "_REMOTE_S", 0.05)
    monkeypatch.setattr(psutil, "disk_partitions", lambda all: [*partitions, dead])
    look = system._look_at

    def look_or_hang(mount: Any) -> Any:
        if mount is dead:
            stop.wait()
        return look(mount)

    monkeypatch.setattr(system, "_look_at", look_or_hang)
    try:
        answer = await native.answer("disk_space")
    finally:
        stop.set()
    assert answer.remark == "not all: no answer from /mnt/dead"
    (root,) = [disk for disk in answer.result if disk["mount"] == "/"]
    assert root["total_gb"] == round(psutil.disk_usage("/").total / 1024**3, 2)


async def test_they_do_not_stall_the_event_loop(native: RunNative) -> None:
    """Another task goes on while the host is looked at."""
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    await native("process_list")
    counting.cancel()
    assert turns > 10
