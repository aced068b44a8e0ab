"""Which processes a test run has started, also those it has lost sight of: so that nothing of it is left."""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import psutil

MARK = "OPSMAP_TEST_RUN"


def is_alive(process: psutil.Process) -> bool:
    """Whether this very process lives, and not a later one with its pid; a zombie does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def command_line(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except (psutil.AccessDenied, psutil.NoSuchProcess):
        return []


def describe(process: psutil.Process) -> str:
    return f"{process.pid} {' '.join(command_line(process))[:160] or '(ended meanwhile)'}"


class Kin:
    """The processes of one run: they have its mark in their environment, or its folder on their command line.

    Never the process that asks.
    """

    def __init__(self, folder: Path, mark: str | None = None) -> None:
        self.mark = mark or uuid.uuid4().hex
        self._folder = str(folder)
        self._seen: set[psutil.Process] = set()

    @property
    def environment(self) -> dict[str, str]:
        """To be given to every process of the run; whatever those start inherits it."""
        return {MARK: self.mark}

    def survivors(self) -> list[psutil.Process]:
        """Every live process of the run, as far as it was seen in an earlier call or still shows that it belongs."""
        for process in psutil.process_iter():
            try:
                if self._belongs(process):
                    self._seen.update([process, *process.children(recursive=True)])
            except psutil.NoSuchProcess:
                continue
        self._seen = {process for process in self._seen if process.pid != os.getpid() and is_alive(process)}
        return list(self._seen)

    def kill(self) -> None:
        """End whatever is left, at once. What starts others while it is killed is met by the second look."""
        for _ in range(2):
            _signal(self.survivors(), psutil.Process.kill, wait_s=3)

    def end(self, *, patience_s: float) -> None:
        """Ask all to end, also those that are frozen, and kill what has not after `patience_s`."""
        survivors = self.survivors()
        _signal(survivors, psutil.Process.terminate, wait_s=0)
        _signal(survivors, psutil.Process.resume, wait_s=patience_s)
        self.kill()

    def _belongs(self, process: psutil.Process) -> bool:
        try:
            if process.environ().get(MARK) == self.mark:
                return True
        except psutil.AccessDenied:
            # Another user's, so not one of ours unless its command line says so.
            pass
        return any(self._folder in word for word in command_line(process))


def _signal(processes: list[psutil.Process], send: Callable[[psutil.Process], None], *, wait_s: float) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            send(process)
    deadline = time.monotonic() + wait_s
    while any(is_alive(process) for process in processes) and time.monotonic() < deadline:
        time.sleep(0.02)
