"""What the host is and how busy it is."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from typing import Any

import psutil

from opsmap_agent.host import describe_os, hostname
from opsmap_agent.native.registry import NativeContext, native

_GIB = 1024**3
_MIB = 1024**2


@native("os_info")
def os_info(context: NativeContext) -> dict[str, Any]:
    host = describe_os()
    return {
        "os_type": host.os_type,
        "os_release": host.os_release,
        "hostname": hostname(),
        "kernel": host.kernel,
        "arch": host.arch,
        "uptime_secs": _uptime_s(),
    }


@native("uptime")
def uptime(context: NativeContext) -> dict[str, Any]:
    booted = datetime.fromtimestamp(psutil.boot_time(), UTC)
    return {"uptime_secs": _uptime_s(), "boot_time": booted.isoformat()}


@native("cpu_load")
def cpu_load(context: NativeContext) -> dict[str, Any]:
    load_1m, load_5m, load_15m = (round(load, 2) for load in psutil.getloadavg())
    return {
        "load_1m": load_1m,
        "load_5m": load_5m,
        "load_15m": load_15m,
        "cpu_count": os.cpu_count() or 1,
        # Since the last call, or the start of the agent: a measurement of its own would take time.
        "cpu_usage_pct": psutil.cpu_percent(interval=None),
    }


@native("memory_usage")
def memory_usage(context: NativeContext) -> dict[str, Any]:
    memory, swap = psutil.virtual_memory(), psutil.swap_memory()
    return {
        "total_mb": memory.total // _MIB,
        "used_mb": memory.used // _MIB,
        "free_mb": memory.free // _MIB,
        "cached_mb": getattr(memory, "cached", 0) // _MIB,
        "swap_total_mb": swap.total // _MIB,
        "swap_used_mb": swap.used // _MIB,
    }


@native("disk_space")
def disk_space(context: NativeContext) -> list[dict[str, Any]]:
    """One entry for each real file system that can be asked."""
    answer = []
    for partition in psutil.disk_partitions(all=False):
        try:
            usage = psutil.disk_usage(partition.mountpoint)
        except OSError:
            continue  # A mount of another user's session, or one that was just removed.
        answer.append(
            {
                "mount": partition.mountpoint,
                "device": partition.device,
                "fs_type": partition.fstype,
                "total_gb": round(usage.total / _GIB, 2),
                "used_gb": round(usage.used / _GIB, 2),
                "avail_gb": round(usage.free / _GIB, 2),
                "pct": usage.percent,
            }
        )
    return answer


def _uptime_s() -> int:
    return int(time.time() - psutil.boot_time())
