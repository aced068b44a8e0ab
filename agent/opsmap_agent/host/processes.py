"""Processes that are not our children: telling them from later ones with the same number, waiting for their end."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_POLL_INTERVAL_S = 1.0
"""How often a process is looked at where the kernel cannot tell us of its end."""


@cache
def boot_id() -> str:
    """Names this boot of the host: process numbers of another boot mean nothing."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """A process for ever: the number alone is reused by the kernel. `start_time` counts clock ticks since boot."""

    pid: int
    start_time: int
    boot_id: str

    @classmethod
    def parse(cls, record: str) -> ProcessIdentity | None:
        """The identity in a record of the shim; None if it is not a complete line (its writer died half way)."""
        fields = record.split()
        if not record.endswith("\n") or len(fields) != 3 or not (fields[0].isdigit() and fields[1].isdigit()):
            return None
        return cls(int(fields[0]), int(fields[1]), fields[2])

    @classmethod
    def of(cls, pid: int) -> ProcessIdentity:
        """The identity of a process that exists. Raises OSError if it does not."""
        return cls(pid, int(_stat_fields(pid)[19]), boot_id())

    def age_s(self) -> float | None:
        """Since when it has been there, however the host's clock was set meanwhile; None if it is of another boot."""
        if self.boot_id != boot_id():
            return None
        since_boot_s = time.clock_gettime(time.CLOCK_BOOTTIME)
        return max(0.0, since_boot_s - self.start_time / os.sysconf("SC_CLK_TCK"))

    def is_alive(self) -> bool:
        """Whether exactly this process exists and has not ended (a zombie has)."""
        if self.boot_id != boot_id():
            return False
        try:
            fields = _stat_fields(self.pid)
        except (FileNotFoundError, ProcessLookupError):
            return False
        return fields[0] not in "ZX" and int(fields[19]) == self.start_time


def _stat_fields(pid: int) -> list[str]:
    """From field 3 on: the name in field 2 may hold anything, also spaces and parentheses."""
    stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    return stat.rpartition(")")[2].split()


def signal_group(leader: ProcessIdentity, number: signal.Signals) -> bool:
    """Signals the process group that `leader` leads. False if the leader is gone.

    Raises:
        PermissionError: the group belongs to another user.
    """
    if not leader.is_alive():
        return False
    try:
        if os.getpgid(leader.pid) == leader.pid:
            os.killpg(leader.pid, number)
        else:
            # It has just begun and is about to make its group; nothing else is in there yet.
            os.kill(leader.pid, number)
    except ProcessLookupError:
        return False
    return True


async def wait_for_end(process: ProcessIdentity) -> None:
    """Returns when the process has ended. It need not be a child; nothing is reaped.

    Costs one descriptor for as long as it waits; without one to spare it looks every second instead.
    """
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    except OSError as error:
        if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOSYS, errno.EPERM):
            raise
        await poll_until(lambda: not process.is_alive(), _POLL_INTERVAL_S)
        return
    try:
        # Looked at after the descriptor exists: from here on the number cannot be given to another process unnoticed.
        if process.is_alive():
            await _readable(descriptor)
    finally:
        os.close(descriptor)


async def _readable(descriptor: int) -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(descriptor, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(descriptor)


async def poll_until(is_true: Callable[[], bool], interval_s: float) -> None:
    """For what the kernel cannot wake us for."""
    while True:
        if is_true():
            return
        await asyncio.sleep(interval_s)
