"""What the agent says about the host it runs on."""

from __future__ import annotations

import os
import platform
import socket
from pathlib import Path

import psutil

from opsmap_protocol.messages import OsInfo

_OS_RELEASE = Path("/etc/os-release")


def hostname() -> str:
    return socket.gethostname()


def describe_os() -> OsInfo:
    return OsInfo(
        os_type=platform.system().lower(),
        os_release=_release_name(),
        kernel=platform.release(),
        arch=platform.machine(),
    )


def interface_address(interface: str) -> str | None:
    """The first IPv4, else IPv6 address of a network interface; None if it has none now."""
    addresses = psutil.net_if_addrs().get(interface, [])
    for family in (socket.AF_INET, socket.AF_INET6):
        for entry in addresses:
            if entry.family is family:
                return entry.address
    return None


def own_addresses() -> set[str]:
    """All IP addresses of this host."""
    families = (socket.AF_INET, socket.AF_INET6)
    entries = [entry for found in psutil.net_if_addrs().values() for entry in found]
    return {entry.address.partition("%")[0] for entry in entries if entry.family in families}


def load() -> list[float]:
    return [round(value, 2) for value in os.getloadavg()]


def memory_percent() -> float:
    return float(psutil.virtual_memory().percent)


def _release_name() -> str:
    try:
        lines = _OS_RELEASE.read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.version()
    fields = dict(line.split("=", 1) for line in lines if "=" in line)
    return fields.get("PRETTY_NAME", platform.version()).strip('"')
