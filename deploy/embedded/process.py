"""One child process: it cannot outlive the supervisor, its lines are read, its end is awaited or brought about.

Every child gets a session of its own (a Ctrl-C in the terminal reaches the supervisor alone, which stops the
children in order) and PR_SET_PDEATHSIG (the kernel signals it when the supervisor dies, even by kill -9).
"""

import asyncio
import contextlib
import ctypes
import os
import signal
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from deploy.embedded.account import Account
from deploy.embedded.errors import EmbeddedError
from deploy.embedded.waiting import first_of

PR_SET_PDEATHSIG = 1
READ_BYTES = 64 * 1024
MAX_LINE_BYTES = 64 * 1024
KILL_TIMEOUT_S = 5.0

_libc = ctypes.CDLL(None, use_errno=True)

Line = Callable[[str], None]


@dataclass(frozen=True)
class ProcessSpec:
    """What to run and how to end it.

    `stop` lists signals with the seconds each is given before the next, `force` those that even a person in a hurry
    waits for; what is left then is killed with its group. `death_signal` is what the kernel sends when the supervisor
    has vanished.
    """

    name: str
    argv: tuple[str, ...]
    environment: Mapping[str, str]
    cwd: Path
    account: Account | None = None
    stdin: bytes = b""
    stop: tuple[tuple[signal.Signals, float], ...] = ((signal.SIGTERM, 10.0),)
    force: tuple[tuple[signal.Signals, float], ...] = ()
    death_signal: signal.Signals = signal.SIGTERM
    is_line_shown: Callable[[str], bool] = field(default=lambda line: True)


class Child:
    """A running process. Create it in the main thread: PDEATHSIG follows the thread that forked."""

    def __init__(self, spec: ProcessSpec, on_line: Line) -> None:
        self.spec = spec
        self._on_line = on_line
        self._partial = b""
        self._loop = asyncio.get_running_loop()
        self._process = _start(spec)
        self.pid = self._process.pid
        # A child that has already ended is still a zombie of ours here, so this cannot meet a stranger.
        self.started_at = psutil.Process(self.pid).create_time()
        self._ended: asyncio.Future[int] = self._loop.create_future()
        self._pidfd = os.pidfd_open(self.pid)
        self._loop.add_reader(self._pidfd, self._reap)
        assert self._process.stdout is not None
        self._output = self._process.stdout.fileno()
        os.set_blocking(self._output, False)
        self._loop.add_reader(self._output, self._read)

    @property
    def has_ended(self) -> bool:
        return self._ended.done()

    async def wait(self) -> int:
        """The exit status as subprocess gives it (negative: the signal); any number of waiters."""
        return await asyncio.shield(self._ended)

    def signal(self, number: signal.Signals) -> None:
        # Popen does not signal a process it has reaped, so a recycled pid is never hit.
        self._process.send_signal(number)

    async def stop(self, hurry: asyncio.Event) -> int:
        """End it by the signals of its spec; `hurry` (a second Ctrl-C) skips the waiting."""
        hurried = asyncio.create_task(hurry.wait())
        try:
            for number, patience_s in self.spec.stop:
                if not self.has_ended:
                    self.signal(number)
                    await first_of(self._ended, hurried, timeout_s=patience_s)
            for number, patience_s in self.spec.force:
                if not self.has_ended:
                    self.signal(number)
                    await first_of(self._ended, timeout_s=patience_s)
            if not self.has_ended:
                self._kill_group()
            return await asyncio.wait_for(self.wait(), KILL_TIMEOUT_S)
        finally:
            hurried.cancel()

    def _kill_group(self) -> None:
        # It leads a session of its own, so its pid is its group's id. Detached jobs of an agent have left that.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def _reap(self) -> None:
        # What it leaves in its group ends with it. First this, then poll(): until it is reaped the number is its own.
        self._kill_group()
        code = self._process.poll()
        if code is None:
            return
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._read()  # what it said last
        self._close_output()
        self._ended.set_result(code)

    def _read(self) -> None:
        while self._output >= 0:
            try:
                data = os.read(self._output, READ_BYTES)
            except BlockingIOError:
                return
            if not data:
                self._close_output()
                return
            self._split(data)

    def _split(self, data: bytes) -> None:
        *lines, self._partial = (self._partial + data).split(b"\n")
        for line in lines:
            self._on_line(line.decode("utf-8", "replace").rstrip("\r"))
        if len(self._partial) > MAX_LINE_BYTES:
            self._flush_partial()

    def _flush_partial(self) -> None:
        if self._partial:
            self._on_line(self._partial.decode("utf-8", "replace"))
            self._partial = b""

    def _close_output(self) -> None:
        if self._output < 0:
            return
        self._flush_partial()
        self._loop.remove_reader(self._output)
        self._output = -1
        assert self._process.stdout is not None
        self._process.stdout.close()


def describe_end(code: int) -> str:
    """`exit code 1` or `killed by SIGSEGV`."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


def die_with_parent(death_signal: signal.Signals, parent: int) -> None:
    """Runs in the child between fork and exec, after the change of user, which would clear the setting."""
    if _libc.prctl(PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
    # A parent that died before the line above can send nothing any more.
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def _start(spec: ProcessSpec) -> subprocess.Popen[bytes]:
    parent = os.getpid()
    account = spec.account
    try:
        process = subprocess.Popen(
            spec.argv,
            stdin=subprocess.PIPE if spec.stdin else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=spec.cwd,
            env=dict(spec.environment),
            start_new_session=True,
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=[] if account else None,
            # Safe here: the supervisor has one thread, so no lock can be held by another one across the fork.
            preexec_fn=lambda: die_with_parent(spec.death_signal, parent),  # noqa: PLW1509
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise EmbeddedError(f"{spec.name} cannot be started: {error} ({spec.argv[0]})") from error
    if process.stdin is not None:
        _feed(process, spec.stdin)
    return process


def _feed(process: subprocess.Popen[bytes], data: bytes) -> None:
    """Configuration and SQL are far smaller than a pipe's buffer: this never waits for the child."""
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # it ended at once: its exit code and its lines tell why
        process.stdin.write(data)
        process.stdin.flush()
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()
