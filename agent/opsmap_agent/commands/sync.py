"""Running a program to its end under a strict time limit: sync commands, custom checks, systemctl.

The program gets a process group of its own, and at the limit the whole group is killed. Its output is read to the
end, so that it never blocks on a full pipe, but only the first part is kept.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import time
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass
from typing import IO

from opsmap_agent.commands.refusals import NotStartedError
from opsmap_agent.host.processes import ProcessIdentity, wait_for_end
from opsmap_agent.rules.program import Program
from opsmap_agent.rules.runas import signal_group_of

_logger = logging.getLogger(__name__)

_READ_BYTES = 64 * 1024
_OUTPUT_GRACE_S = 0.25
"""How long after its end a program's output is awaited: a child that it left behind may hold the pipe for ever."""

_KILL_GRACE_S = 1.0


@dataclass(frozen=True, slots=True)
class ProcessResult:
    """How a program ended. `exit_code` is 128 + N for signal N, as shells say it, and -1 after a timeout.

    `lost_stdout` and `lost_stderr` are the bytes behind those texts that were not kept.
    """

    exit_code: int
    stdout: str
    stderr: str
    lost_stdout: int
    lost_stderr: int
    timed_out: bool
    duration_ms: int

    @property
    def is_success(self) -> bool:
        return self.exit_code == 0 and not self.timed_out


@dataclass
class _Budget:
    """How many bytes both outputs together may still keep."""

    left: int

    def take(self, data: bytes) -> bytes:
        kept = data[: self.left]
        self.left -= len(kept)
        return kept


class _Output:
    """What arrives through one pipe."""

    def __init__(self, descriptor: int, budget: _Budget) -> None:
        self._loop = asyncio.get_running_loop()
        self._descriptor = descriptor
        self._budget = budget
        self._kept = bytearray()
        self.lost_bytes = 0
        self.at_end = asyncio.Event()
        os.set_blocking(descriptor, False)
        self._loop.add_reader(descriptor, self._read)

    def _read(self) -> None:
        try:
            data = os.read(self._descriptor, _READ_BYTES)
        except BlockingIOError:
            return
        if data:
            kept = self._budget.take(data)
            self._kept += kept
            self.lost_bytes += len(data) - len(kept)
        else:
            self.close()

    def close(self) -> None:
        if not self.at_end.is_set():
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self.at_end.set()

    def text(self) -> str:
        return self._kept.decode("utf-8", "replace")


class SyncRunner:
    """Runs programs; `executor` is where the blocking start happens."""

    def __init__(self, executor: Executor, max_output_bytes: int) -> None:
        self._executor = executor
        self._max_output_bytes = max_output_bytes

    async def run(self, program: Program, timeout_s: float) -> ProcessResult:
        """Run to the end or to the limit. Cancelling kills the group too.

        Raises:
            NotStartedError: the program did not begin.
        RejectedError: what was checked is not there any more.
        """
        begun = time.monotonic()
        running = _Running(await self._start(program), program.run_as_user, self._max_output_bytes)
        try:
            timed_out = not await running.wait(timeout_s)
        finally:
            exit_code = await running.finish()
        return running.result(-1 if timed_out else exit_code, timed_out, time.monotonic() - begun)

    async def _start(self, program: Program) -> subprocess.Popen[bytes]:
        starting = asyncio.get_running_loop().run_in_executor(self._executor, _start, program)
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError:
            # The thread cannot be stopped: wait for its process, or nobody would ever end it.
            with suppress(NotStartedError):
                await _Running(await starting, program.run_as_user, 0).finish()
            raise


class _Running:
    """One program between its start and the moment that nothing of it is left to wait for."""

    def __init__(self, process: subprocess.Popen[bytes], run_as_user: str | None, max_output_bytes: int) -> None:
        self._process = process
        self._run_as_user = run_as_user
        # Until it is reaped its number stays its own, so this cannot be another process.
        self._identity = ProcessIdentity.of(process.pid)
        self._budget = _Budget(max_output_bytes)
        self._stdout = _Output(_take_over(process.stdout), self._budget)
        self._stderr = _Output(_take_over(process.stderr), self._budget)

    async def wait(self, timeout_s: float) -> bool:
        """Whether the program ended by itself within the limit."""
        try:
            async with asyncio.timeout(timeout_s):
                await wait_for_end(self._identity)
        except TimeoutError:
            return False
        return True

    async def finish(self) -> int:
        """Kill the group if the program still runs, reap it, and give its exit code."""
        if self._process.poll() is None:
            await self._kill()
            await self.wait(_KILL_GRACE_S)
        try:
            async with asyncio.timeout(_OUTPUT_GRACE_S):
                await self._stdout.at_end.wait()
                await self._stderr.at_end.wait()
        except TimeoutError:
            _logger.debug("process %d is gone but something holds its output open", self._process.pid)
        self._stdout.close()
        self._stderr.close()
        code = self._process.poll()
        if code is None:
            # Stuck in the kernel or not ours to kill: it ends when it wants to, and init reaps it after the agent.
            return 128 + signal.SIGKILL
        return code if code >= 0 else 128 - code

    async def _kill(self) -> None:
        pid, user = self._process.pid, self._run_as_user
        if user is not None and await asyncio.to_thread(signal_group_of, user, pid, signal.SIGKILL):
            return
        try:
            os.killpg(pid, signal.SIGKILL)
        except PermissionError:
            _logger.error("process %d runs as another user and cannot be killed", pid)

    def result(self, exit_code: int, timed_out: bool, duration_s: float) -> ProcessResult:
        return ProcessResult(
            exit_code,
            self._stdout.text(),
            self._stderr.text(),
            self._stdout.lost_bytes,
            self._stderr.lost_bytes,
            timed_out,
            round(duration_s * 1000),
        )


def _take_over(pipe: IO[bytes] | None) -> int:
    """The descriptor of a pipe, ours to close."""
    if pipe is None:
        raise AssertionError("started without a pipe")
    descriptor = os.dup(pipe.fileno())
    pipe.close()
    return descriptor


def _start(program: Program) -> subprocess.Popen[bytes]:
    try:
        stdin = program.open_input()
    except OSError as error:
        raise NotStartedError(f"the input of the program cannot be prepared: {error.strerror}") from None
    try:
        program.check_again()
        return subprocess.Popen(
            program.argv,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=program.working_dir,
            env=program.env,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        raise NotStartedError(f"the program cannot be started: {error}") from None
    finally:
        os.close(stdin)
