"""Telling systemd how we are: the datagrams of sd_notify(3), without its library.

Every function does nothing where no service manager listens.
"""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import suppress


def tell_ready() -> None:
    """We do our work from now on."""
    _notify("READY=1")


def tell_stopping() -> None:
    _notify("STOPPING=1")


async def give_signs_of_life() -> None:
    """Those that `WatchdogSec=` asks for, from the event loop, until cancelled; none are given if it does not."""
    interval_s = _interval_s()
    while interval_s is not None:
        _notify("WATCHDOG=1")
        await asyncio.sleep(interval_s)


def _interval_s() -> float | None:
    """Twice in the time after which systemd would end us; None if it would not."""
    limit_us, pid = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", "")
    is_meant = not pid or pid == str(os.getpid())
    if not limit_us.isdigit() or int(limit_us) == 0 or not is_meant:
        return None
    return int(limit_us) / 2_000_000


def _notify(line: str) -> None:
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    # A service manager that does not read must not stop us, and one that is gone is no fault of ours.
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        sender.setblocking(False)
        sender.connect("\0" + address[1:] if address.startswith("@") else address)
        sender.sendall(line.encode())
