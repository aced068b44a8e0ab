"""Is this process still there, and the same one? For processes that are not our children."""

import asyncio
import contextlib
import signal
import time
from collections.abc import Iterable, Sequence

import psutil

POLL_S = 0.03
# The kernel counts a process's start from a boot time of whole seconds, which moves when the clock is set.
CLOCK_SLACK_S = 2.0


async def end(processes: Sequence[psutil.Process], *, patience_s: float) -> None:
    """SIGTERM, and SIGKILL for those that are still there after `patience_s`."""
    for number, seconds in ((signal.SIGTERM, patience_s), (signal.SIGKILL, 5.0)):
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)
        processes = await wait_gone(processes, timeout_s=seconds)
        if not processes:
            return


async def wait_gone(processes: Iterable[psutil.Process], *, timeout_s: float) -> list[psutil.Process]:
    """Wait until the processes have ended; those that have not after `timeout_s` are returned."""
    deadline = time.monotonic() + timeout_s
    alive = [process for process in processes if is_alive(process)]
    while alive and time.monotonic() < deadline:
        await asyncio.sleep(POLL_S)
        alive = [process for process in alive if is_alive(process)]
    return alive


def is_alive(process: psutil.Process) -> bool:
    """A zombie has ended; where nothing reaps orphans (a container without init) it stays listed for ever."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def same_process(pid: int, started_at: float) -> psutil.Process | None:
    """The live process with this pid, if it is the one that started then and not a later one."""
    try:
        process = psutil.Process(pid)
        is_same = abs(process.create_time() - started_at) < CLOCK_SLACK_S
    except psutil.NoSuchProcess:
        return None
    return process if is_same and is_alive(process) else None
