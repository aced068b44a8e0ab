"""The place of one component on disk: its lock, its pid file, and whatever data it keeps.

Two questions have two different answers here. "Is anything of it left?" is answered by the lock, which every
process of the component inherits and the kernel drops with the last of them. "Did it die?" is answered by
the pid file, which names the process that does the work together with its start time, because pids are used
again.
"""

from __future__ import annotations

import fcntl
import os
import signal
import time
from pathlib import Path

_POLL_S = 0.02


class Slot:
    """The folder `<state>/<name>` of one component."""

    def __init__(self, state: Path, name: str) -> None:
        self.name = name
        self.directory = state / name
        self.pid_file = self.directory / "pid"
        self._lock_file = self.directory / "lock"
        self._lock: int | None = None

    def acquire(self, *, timeout_s: float) -> bool:
        """Take the component's lock for the life of this process and its children.

        Waits for a predecessor on its way out; False if another process has the lock for longer than
        `timeout_s`.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        deadline = time.monotonic() + timeout_s
        lock = os.open(self._lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    os.close(lock)
                    return False
                time.sleep(_POLL_S)
            else:
                self._lock = lock
                return True

    def bequeath(self) -> None:
        """Let the program that this process is about to become hold the lock as well. Call it in the child."""
        if self._lock is not None:
            os.set_inheritable(self._lock, True)

    def is_held(self) -> bool:
        """True while any process of the component is left."""
        try:
            lock = os.open(self._lock_file, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(lock)
        return False

    def end(self, signum: signal.Signals, *, timeout_s: float) -> bool:
        """Send `signum` to the recorded process, once, and wait until nothing of the component is left.

        Returns:
            False if something of it outlives `timeout_s`.

        Raises:
            PermissionError: the process belongs to another user.
        """
        deadline = time.monotonic() + timeout_s
        asked: set[int] = set()
        while self.is_held():
            # Asked again each time: a component that is just starting may record another process meanwhile.
            pid = self.main_pid()
            if pid is not None and pid not in asked:
                asked.add(pid)
                self._signal(pid, signum)
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_S)
        return True

    def _signal(self, pid: int, signum: signal.Signals) -> None:
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        try:
            # The descriptor holds on to one process; only if that is still the recorded one, it is ours to
            # end.
            if self.main_pid() == pid:
                signal.pidfd_send_signal(descriptor, signum)
        except ProcessLookupError:
            return
        finally:
            os.close(descriptor)

    def record(self, pid: int) -> None:
        """Name `pid` as the process whose death is the component's death."""
        draft = self.directory / "pid.new"
        draft.write_text(f"{pid} {_start_ticks(pid)}\n", encoding="ascii")
        draft.replace(self.pid_file)

    def forget(self) -> None:
        self.pid_file.unlink(missing_ok=True)

    def main_pid(self) -> int | None:
        """The recorded process, if it lives and is the one that was recorded."""
        try:
            pid, ticks = (int(word) for word in self.pid_file.read_text(encoding="ascii").split())
        except (FileNotFoundError, ValueError):
            # No file, or not what `record` writes: it names no process of ours.
            return None
        return pid if ticks and _start_ticks(pid) == ticks else None


def _start_ticks(pid: int) -> int:
    """When `pid` started, in clock ticks since boot; 0 if it does not live (a zombie does not)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return 0
    # The program's name, in parentheses, may hold anything: count the fields from behind it.
    fields = stat[stat.rindex(")") + 2 :].split()
    return 0 if fields[0] in "ZX" else int(fields[19])
