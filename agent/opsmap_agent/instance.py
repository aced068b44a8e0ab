"""One agent per journal: two would run every command twice."""

from __future__ import annotations

import ctypes
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_M_ARENA_MAX = -8
"""From glibc's malloc.h."""


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
        descriptor = os.open(folder / "agent.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StartError(f"buffer.path {folder} cannot be used: {error.strerror}") from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StartError(f"another agent is running with buffer.path {folder}") from None
        yield
    finally:
        os.close(descriptor)


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
    """Let all threads allocate from one heap: glibc gives each its own, which costs 2 of the agent's 40 MB.

    Threads here mostly wait for the kernel, so they hardly ever compete for it.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # not glibc, no such heaps
        mallopt(_M_ARENA_MAX, 1)


def keep_descriptors_private() -> None:
    """What we inherited open must not reach the commands we run."""
    for entry in Path("/proc/self/fd").iterdir():
        descriptor = int(entry.name)
        if descriptor > 2:
            try:
                os.set_inheritable(descriptor, False)
            except OSError:
                continue  # The one that listed the folder is closed by now.
