"""What the host is and how busy it is."""

from __future__ import annotations

import asyncio
import os
import stat
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypedDict

import psutil

from opsmap_agent.host.description import describe_os, hostname
from opsmap_agent.native.blocking import NoThreadError
from opsmap_agent.native.bounds import Cut, bounded, shortened
from opsmap_agent.native.registry import NativeContext, native

_GIB = 1024**3
_MIB = 1024**2

_REMOTE = frozenset({"9p", "afs", "beegfs", "ceph", "cifs", "glusterfs", "gpfs", "lustre", "nfs", "nfs4", "smb3"})
_REMOTE_S = 3.0
_MAX_REMOTE = 100


class OsDescription(TypedDict):
    os_type: str
    os_release: str
    hostname: str
    kernel: str
    arch: str
    uptime_secs: int


class Uptime(TypedDict):
    uptime_secs: int
    boot_time: str


class CpuLoad(TypedDict):
    load_1m: float
    load_5m: float
    load_15m: float
    cpu_count: int
    cpu_usage_pct: float


class MemoryUsage(TypedDict):
    total_mb: int
    used_mb: int
    free_mb: int
    cached_mb: int
    swap_total_mb: int
    swap_used_mb: int


class FileSystem(TypedDict):
    mount: str
    device: str
    fs_type: str
    total_gb: float
    used_gb: float
    avail_gb: float
    pct: float


@native("os_info", limit_s=5)
def os_info(context: NativeContext) -> OsDescription:
    """What the host runs. `os_release` is the name that the distribution gives itself."""
    host = describe_os()
    return {
        "os_type": host.os_type,
        "os_release": host.os_release,
        "hostname": hostname(),
        "kernel": host.kernel,
        "arch": host.arch,
        "uptime_secs": _uptime_s(),
    }


@native("uptime", limit_s=5)
def uptime(context: NativeContext) -> Uptime:
    """Since when the host runs. `boot_time` is in UTC and ISO 8601."""
    booted = datetime.fromtimestamp(psutil.boot_time(), UTC)
    return {"uptime_secs": _uptime_s(), "boot_time": booted.isoformat()}


@native("cpu_load", limit_s=5)
def cpu_load(context: NativeContext) -> CpuLoad:
    """How busy the processors are. `cpu_usage_pct` counts since the last such command, or the agent's start."""
    load_1m, load_5m, load_15m = (round(load, 2) for load in psutil.getloadavg())
    return {
        "load_1m": load_1m,
        "load_5m": load_5m,
        "load_15m": load_15m,
        "cpu_count": os.cpu_count() or 1,
        # A measurement of its own would take time.
        "cpu_usage_pct": psutil.cpu_percent(interval=None),
    }


@native("memory_usage", limit_s=5)
def memory_usage(context: NativeContext) -> MemoryUsage:
    """Memory in MiB. `used_mb` is what processes and the kernel cannot do without; caches are not in it."""
    memory, swap = psutil.virtual_memory(), psutil.swap_memory()
    return {
        "total_mb": memory.total // _MIB,
        "used_mb": memory.used // _MIB,
        "free_mb": memory.free // _MIB,
        "cached_mb": getattr(memory, "cached", 0) // _MIB,
        "swap_total_mb": swap.total // _MIB,
        "swap_used_mb": swap.used // _MIB,
    }


@native("disk_space", limit_s=10)
async def disk_space(context: NativeContext) -> list[FileSystem] | Cut[FileSystem]:
    """One entry for each file system that has a size, network file systems and memory among them, in GiB.

    What is mounted in several places is told once, as `df` does. `pct` is the share of what its users may fill. One
    that does not answer, as a network file system without its server, is left out, and the answer says so.
    """
    local, remote = await context.blocking.run("disk_space", _mounts)
    found: list[_Look] = await context.blocking.run("disk_space", lambda: [_look_at(mount) for mount in local])
    asked = remote[:_MAX_REMOTE]
    answers = await asyncio.gather(*(_look_at_remote(context, mount) for mount in asked))
    silent = [mount.mountpoint for mount, answer in zip(asked, answers, strict=True) if answer is None]
    silent += [mount.mountpoint for mount in remote[_MAX_REMOTE:]]
    told = bounded(_each_once([*found, *(answer for answer in answers if answer is not None)]), "file systems")
    if not silent:
        return told
    entries = told.entries if isinstance(told, Cut) else told
    return Cut(entries, shortened(f"not all: no answer from {', '.join(silent)}", 1_000))


_Look = tuple[int, FileSystem] | Literal["nothing"]
"""A file system with its device number; "nothing" for what has no size, or may not be seen."""


def _mounts() -> tuple[list[Any], list[Any]]:
    """What is mounted of this host, and of others."""
    local: list[Any] = []
    remote: list[Any] = []
    for mount in psutil.disk_partitions(all=True):
        is_remote = mount.fstype in _REMOTE or mount.fstype.startswith("fuse.")
        (remote if is_remote else local).append(mount)
    return local, remote


async def _look_at_remote(context: NativeContext, mount: Any) -> _Look | None:
    """None if it does not answer."""
    try:
        async with asyncio.timeout(_REMOTE_S):
            answer: _Look = await context.blocking.run(f"disk_space of {mount.mountpoint}", lambda: _look_at(mount))
            return answer
    except (TimeoutError, NoThreadError):
        return None


def _look_at(mount: Any) -> _Look:
    try:
        state = Path(mount.mountpoint).stat()
        usage = psutil.disk_usage(mount.mountpoint)
    except OSError:
        return "nothing"  # A mount of another user's session, or one that was just removed.
    if usage.total == 0 or not stat.S_ISDIR(state.st_mode):
        return "nothing"
    return state.st_dev, {
        "mount": mount.mountpoint,
        "device": mount.device,
        "fs_type": mount.fstype,
        "total_gb": round(usage.total / _GIB, 2),
        "used_gb": round(usage.used / _GIB, 2),
        "avail_gb": round(usage.free / _GIB, 2),
        "pct": usage.percent,
    }


def _each_once(looks: list[_Look]) -> list[FileSystem]:
    """Of several places of one file system the one with the shortest path."""
    chosen: dict[int, FileSystem] = {}
    found = [look for look in looks if not isinstance(look, str)]
    for device, entry in sorted(found, key=lambda each: len(each[1]["mount"])):
        chosen.setdefault(device, entry)
    return sorted(chosen.values(), key=lambda entry: entry["mount"])


def _uptime_s() -> int:
    return int(time.time() - psutil.boot_time())
