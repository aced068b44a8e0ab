"""One agent per journal: two would run every command twice."""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
"""From glibc's malloc.h."""

_LARGE_BYTES = 128 * 1024
_TRIM_INTERVAL_S = 5.0
_LOCK = "agent.lock"
_LOCK_TRIES, _LOCK_PAUSE_S = 5, 0.02


class StartError(Exception):
    """The agent cannot start; the message is one clear line."""


@contextmanager
def single_instance(folder: Path) -> Iterator[None]:
    """Hold the lock of the journal in `folder`. The kernel frees it with the process, however that ends.

    Raises:
        StartError: another agent holds it, or the folder cannot be used.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StartError(f"buffer.path {folder} cannot be used: {error.strerror}") from None
    try:
        if not _lock(descriptor):
            raise StartError(f"another agent is running with buffer.path {folder}")
        yield
    finally:
        os.close(descriptor)


def is_running(folder: Path) -> bool:
    """Whether an agent holds the lock of the journal in `folder`."""
    try:
        descriptor = os.open(folder / _LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _lock(descriptor: int) -> bool:
    """Whoever asks if an agent runs holds the lock for a moment: another agent holds it for longer."""
    for _ in range(_LOCK_TRIES):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_LOCK_PAUSE_S)
        else:
            return True
    return False


@contextmanager
def pid_file(path: Path | None) -> Iterator[None]:
    """Keep our process number in a file for whoever watches from outside. Raises StartError."""
    if path is None:
        yield
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{os.getpid()}\n", encoding="ascii")
    except OSError as error:
        raise StartError(f"watchdog.pid_file {path} cannot be written: {error.strerror}") from None
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def stay_small() -> None:
    """Keep the heap within the agent's 40 MB. Call it when everything is loaded.

    All threads allocate from one heap: glibc gives each its own, which costs 2 MB. They mostly wait for the kernel, so
    they hardly ever compete for it. And what is large, like the output of a command, goes back to the system when it
    is freed: glibc otherwise takes the first large piece for a habit, and keeps 4 MB.
    """
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallopt"):  # not glibc, no such heaps
        return
    libc.mallopt(_M_ARENA_MAX, 1)
    libc.mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
    libc.mallopt(_M_TRIM_THRESHOLD, _LARGE_BYTES)
    libc.malloc_trim(0)


async def stay_small_while_running() -> None:
    """Give free memory back to the system, until cancelled.

    What is freed in the middle of the heap stays with the process otherwise: 3 MB after a megabyte of output.
    """
    libc = ctypes.CDLL(None)
    while hasattr(libc, "malloc_trim"):
        await asyncio.sleep(_TRIM_INTERVAL_S)
        libc.malloc_trim(0)


def keep_descriptors_private() -> None:
    """What we inherited open must not reach the commands we run."""
    for entry in Path("/proc/self/fd").iterdir():
        descriptor = int(entry.name)
        if descriptor > 2:
            try:
                os.set_inheritable(descriptor, False)
            except OSError:
                continue  # The one that listed the folder is closed by now.
