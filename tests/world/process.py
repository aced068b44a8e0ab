"""One process of a world: it can be killed, frozen and started again, each time with its current command line."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import psutil

from deploy.embedded import postgres
from deploy.embedded.process import ProcessSpec, describe_end
from tests.processes import describe, is_alive

Wrap = Callable[[ProcessSpec], ProcessSpec]
"""Changes what is about to be run; `spec.name` says which process it is. Called at each start."""

IsReady = Callable[["WorldProcess"], bool]

READY_TIMEOUT_S = 60.0
POLL_S = 0.02
KILL_TIMEOUT_S = 10.0
_TAIL_LINES = 30


class WorldError(Exception):
    """The world is not as it must be; the text says what was expected, and quotes the log."""


class WorldProcess:
    """Safe to use from any thread, but one process from one thread at a time.

    Args:
        make_spec: what to run; called at each start, so that configuration files may be written by it.
        is_ready: looks from outside whether it does its work.
        log: standard output and error of all its lives, one after the other.
        environment: added to the one of the specification.
    """

    def __init__(
        self,
        name: str,
        make_spec: Callable[[], ProcessSpec],
        is_ready: IsReady,
        *,
        log: Path,
        environment: Mapping[str, str],
    ) -> None:
        self.name = name
        self.log = log
        self.starts = 0
        self._make_spec = make_spec
        self._is_ready = is_ready
        self._environment = environment
        self._spec: ProcessSpec | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._log_offset = 0

    @property
    def pid(self) -> int:
        """Of its current, or else its last life."""
        assert self._process is not None, f"{self.name} was never started"
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """A frozen process is alive."""
        return self._process is not None and self._process.poll() is None

    @property
    def returncode(self) -> int | None:
        """How its last life ended, as subprocess gives it; None while it lives."""
        return None if self._process is None else self._process.poll()

    def start(self, *, wait: bool = True) -> None:
        """Start it; with `wait`, until it is ready.

        Raises:
            WorldError: it already runs, or ended instead of getting ready.
        """
        if self.is_alive:
            raise WorldError(f"{self.name} already runs (pid {self.pid})")
        self._spec = spec = self._make_spec()
        self._log_offset = self.log.stat().st_size if self.log.exists() else 0
        account = spec.account
        # No preexec_fn: callers have threads, and after a fork in one of them only exec is safe.
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                spec.argv,
                cwd=spec.cwd,
                env={**spec.environment, **self._environment},
                stdin=subprocess.PIPE if spec.stdin else subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                user=account.uid if account else None,
                group=account.gid if account else None,
                extra_groups=[] if account else None,
            )
        self.starts += 1
        if self._process.stdin is not None:
            # Far smaller than a pipe's buffer. If it ended at once, its log tells why.
            with contextlib.suppress(BrokenPipeError), self._process.stdin as stdin:
                stdin.write(spec.stdin)
        if wait:
            self.wait_ready()

    def wait_ready(self, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Raises WorldError if it ends before, or is not ready in time."""
        deadline = time.monotonic() + timeout_s
        while not self._is_ready(self):
            if not self.is_alive:
                raise WorldError(f"{self.name} ended ({describe_end(self.returncode or 0)}):\n{self.log_tail()}")
            if time.monotonic() > deadline:
                raise WorldError(f"{self.name} is not ready after {timeout_s:g} s:\n{self.log_tail()}")
            time.sleep(POLL_S)

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone, with what cannot live without it (the backends of PostgreSQL)."""
        if not self.is_alive:
            return
        helpers = self._helpers()
        self._send(signal.SIGKILL)
        assert self._process is not None
        self._process.wait(KILL_TIMEOUT_S)
        # Zombies count as gone: where nothing reaps orphans they stay listed.
        deadline = time.monotonic() + KILL_TIMEOUT_S
        while left := [helper for helper in helpers if is_alive(helper)]:
            if time.monotonic() > deadline:
                raise WorldError(f"{self.name} was killed, and still there is {', '.join(map(describe, left))}")
            time.sleep(POLL_S)

    def terminate(self) -> int:
        """End it in order, as its supervisor would; its exit code."""
        if self._process is None:
            return 0
        assert self._spec is not None
        self.resume()
        for number, patience_s in (*self._spec.stop, *self._spec.force, (signal.SIGKILL, KILL_TIMEOUT_S)):
            self._send(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                return self._process.wait(patience_s)
        raise WorldError(f"{self.name} (pid {self.pid}) cannot be ended")

    def restart(self, *, wait: bool = True) -> None:
        """Start it again, ending it in order before if it is alive."""
        if self.is_alive:
            self.terminate()
        self.start(wait=wait)

    def pause(self) -> None:
        """SIGSTOP: its connections stay open, and nobody answers. Together with PostgreSQL's backends."""
        frozen = [psutil.Process(self.pid), *self._helpers()]
        _each(frozen, psutil.Process.suspend)
        while any(is_alive(process) and process.status() != psutil.STATUS_STOPPED for process in frozen):
            # Each of its threads stops when it is next scheduled.
            time.sleep(POLL_S)

    def resume(self) -> None:
        """SIGCONT; nothing happens to one that was not frozen or has ended."""
        if self.is_alive:
            _each([psutil.Process(self.pid), *self._helpers()], psutil.Process.resume)

    def cpu_s(self) -> float:
        """The processor time that it has used in this life; of PostgreSQL, that of the backends there are now."""
        total = 0.0
        for process in (psutil.Process(self.pid), *self._helpers()):
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                total += times.user + times.system
        return total

    def log_text(self) -> str:
        """What it has said in its current, or else its last life."""
        with self.log.open("rb") as file:
            file.seek(self._log_offset)
            return file.read().decode("utf-8", "replace")

    def log_tail(self) -> str:
        return "\n".join(self.log_text().splitlines()[-_TAIL_LINES:])

    def _send(self, number: signal.Signals) -> None:
        # Popen does not signal a process that it has reaped, so a recycled pid is never hit.
        assert self._process is not None
        self._process.send_signal(number)

    def _helpers(self) -> list[psutil.Process]:
        """What it consists of besides itself. Commands of an agent are no part of it."""
        if self.name != postgres.NAME:
            return []
        try:
            return psutil.Process(self.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []


def _each(processes: Iterable[psutil.Process], do: Callable[[psutil.Process], None]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            do(process)
