"""One job: a detached process, and the check that says when what it was started for is true.

The process and the check are watched at the same time, because either may decide: a service never ends and its check
passes; a script ends and its exit code tells; `systemctl start` ends with 0 at once while the check takes a minute.
"""

from __future__ import annotations

import asyncio
import logging
import os
import pwd
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from opsmap_agent.checks.completion import CheckRunner
from opsmap_agent.commands.output import Output
from opsmap_agent.host.processes import ProcessIdentity, poll_until, signal_group, wait_for_end
from opsmap_agent.jobs.folder import JobFolder
from opsmap_agent.journal.journal import Journal
from opsmap_agent.journal.rows import JobRow
from opsmap_agent.rules.runas import signal_group_of
from opsmap_protocol import codec
from opsmap_protocol.checks import CheckResult
from opsmap_protocol.enums import JobStatus, OutputStream
from opsmap_protocol.errors import ProtocolError
from opsmap_protocol.messages import AsyncStatus, Command, CommandOutput, JobExited
from opsmap_protocol.specs import AsyncMode, ExecuteCommand, ScriptCommand

_logger = logging.getLogger(__name__)

_FIRST_INTERVAL_S = 0.1
_INTERVAL_GROWTH = 1.5
_LAST_CHECK_S = 0.5
"""What a check gets at least, also when the time of the job is up: it may have come true while nobody looked."""

_TERM_GRACE_S = 5.0
_KILL_GRACE_S = 2.0
_LOCK_POLL_S = 0.2
_LOG_TAIL_BYTES = 4096


@dataclass(frozen=True, slots=True)
class JobTools:
    """What every job needs. `poke` asks for a health check of a subject now."""

    journal: Journal
    checks: CheckRunner
    poke: Callable[[str], None]
    max_output_bytes: int
    """How much of a job's log is told at its end."""


class Job:
    """Call `run` once; it ends when the job has its final status and its process is gone.

    `shim` is None when it could not be read (the agent died while launching): then the lock tells.
    """

    def __init__(
        self, row: JobRow, mode: AsyncMode, folder: JobFolder, shim: ProcessIdentity | None, tools: JobTools
    ) -> None:
        self._row = row
        self._mode = mode
        self._folder = folder
        self._shim = shim
        self._tools = tools
        self._begun = time.monotonic() - _age_s(row, shim)
        self._wake = asyncio.Event()
        self._exited = asyncio.Event()
        self._exit_code: int | None = None
        self._last_check: CheckResult | None = None
        self._cancel: bool | None = None
        """Whether a cancellation wants the process killed; None while nobody wants to cancel."""
        self._final: AsyncStatus | None = None

    @property
    def job_id(self) -> str:
        return self._row.job_id

    @property
    def request_id(self) -> str:
        return self._row.request_id

    @property
    def is_active(self) -> bool:
        """Whether its end is still to be reported."""
        return self._final is None and self._row.status is JobStatus.RUNNING

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            watcher = group.create_task(self._watch_process(), name=f"process of {self.job_id}")
            had_exited = False
            if self._row.status is JobStatus.RUNNING:
                final = await self._until_final()
                had_exited = self._exited.is_set()
                await self._finish(final)
            await watcher
        if not had_exited:
            await self._report_exit()

    def cancel(self, *, kill: bool) -> None:
        self._cancel = kill
        self._wake.set()

    def status(self) -> AsyncStatus:
        """Where it stands, from memory."""
        if self._final is not None:
            return self._final
        return self._status(JobStatus.RUNNING)

    async def _watch_process(self) -> None:
        if self._shim is not None:
            await wait_for_end(self._shim)
        await poll_until(lambda: not self._folder.has_shim(), _LOCK_POLL_S)
        self._exit_code = self._folder.exit_code()
        self._exited.set()
        self._wake.set()

    async def _until_final(self) -> AsyncStatus:
        interval_s = _FIRST_INTERVAL_S
        while True:
            self._wake.clear()
            # Looked at before the check: only a check begun after the end of the process may decide it.
            has_exited = self._exited.is_set()
            if self._cancel is not None:
                return await self._cancelled(kill=self._cancel)
            verdict = await self._decide(has_exited)
            if verdict is not None:
                return verdict
            remaining_s = self._remaining_s()
            if remaining_s <= 0:
                return self._timed_out()
            await self._sleep_until_woken(min(interval_s, remaining_s))
            interval_s = min(interval_s * _INTERVAL_GROWTH, max(self._mode.poll_interval_ms / 1000, interval_s))

    async def _decide(self, has_exited: bool) -> AsyncStatus | None:
        """The final status, if it can be told now."""
        if has_exited and self._exit_code is None:
            return self._status(JobStatus.FAILED, "ended without an exit record: the host or its shim was stopped")
        if self._mode.completion_check is None:
            if not has_exited:
                return None
            return self._ended_badly() if self._exit_code else self._status(JobStatus.COMPLETED)
        result = await self._check_unless_woken()
        if result is None:
            return None
        self._last_check = result
        if result.passed:
            return self._status(JobStatus.COMPLETED)
        return self._ended_badly() if has_exited and self._exit_code else None

    async def _check_unless_woken(self) -> CheckResult | None:
        """The check's result; None if the process ended, a cancellation came, or the time was up meanwhile."""
        if self._mode.completion_check is None:
            return None
        checking = asyncio.ensure_future(self._tools.checks.evaluate(self._mode.completion_check))
        woken = asyncio.ensure_future(self._wake.wait())
        try:
            await asyncio.wait(
                {checking, woken},
                timeout=max(self._remaining_s(), _LAST_CHECK_S),
                return_when=asyncio.FIRST_COMPLETED,
            )
            return checking.result() if checking.done() else None
        finally:
            for task in (checking, woken):
                task.cancel()
            await asyncio.gather(checking, woken, return_exceptions=True)

    async def _sleep_until_woken(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            return

    async def _cancelled(self, *, kill: bool) -> AsyncStatus:
        error = await self._end_process() if kill and not self._exited.is_set() else None
        return self._status(JobStatus.CANCELLED, error)

    async def _end_process(self) -> str | None:
        """TERM to the group, KILL if that does not help. Returns why it could not be done."""
        process = self._folder.process()
        if process is None:
            return "its process is not known and was left alone"
        try:
            for number, grace_s in ((signal.SIGTERM, _TERM_GRACE_S), (signal.SIGKILL, _KILL_GRACE_S)):
                await self._signal(process, number)
                if await self._has_exited_within(grace_s):
                    return None
        except PermissionError:
            return "its process runs as another user and was left alone"
        return "its process does not end"

    async def _signal(self, process: ProcessIdentity, number: signal.Signals) -> None:
        """Raises PermissionError if it is another user's, and sudo does not help."""
        user = _run_as_user(self._row)
        if user is None or os.geteuid() == 0:
            signal_group(process, number)
        elif process.is_alive() and not await asyncio.to_thread(signal_group_of, user, process.pid, number):
            raise PermissionError

    async def _has_exited_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._exited.wait()
        except TimeoutError:
            return False
        return True

    def _timed_out(self) -> AsyncStatus:
        waited_s = f"{self._mode.max_wait_ms / 1000:g} s"
        check = self._mode.completion_check
        if check is None:
            return self._status(JobStatus.TIMEOUT, f"still running after {waited_s}")
        if self._last_check is None:
            details = {"error": "no answer before the time was up"}
            self._last_check = CheckResult(check.type, False, details, datetime.now(UTC))
        return self._status(JobStatus.TIMEOUT, f"the completion check has not passed within {waited_s}")

    def _ended_badly(self) -> AsyncStatus:
        return self._status(JobStatus.FAILED, f"the process ended with {describe_exit(self._exit_code)}")

    def _status(self, status: JobStatus, error: str | None = None) -> AsyncStatus:
        return AsyncStatus(
            self._row.request_id,
            self._row.job_id,
            status,
            round((time.monotonic() - self._begun) * 1000),
            check_result=self._last_check,
            exit_code=self._exit_code,
            error=error,
            log_tail=self._folder.log_tail(_LOG_TAIL_BYTES) if status.is_final else None,
        )

    def _remaining_s(self) -> float:
        return self._begun + self._mode.max_wait_ms / 1000 - time.monotonic()

    async def _finish(self, final: AsyncStatus) -> None:
        log = self._log()
        self._final = final
        await self._tools.journal.record(*log, final)
        if self._exited.is_set() and final.exit_code is None:
            await self._tools.journal.mark_exited(self.job_id)
        _logger.info("job %s: %s%s", self.job_id, final.status, f", {final.error}" if final.error else "")
        self._poke()

    def _log(self) -> list[CommandOutput]:
        """What the command has printed so far, from its beginning, if that is more than `log_tail` shows."""
        try:
            log = self._folder.read_log(self._tools.max_output_bytes, offset=0)
        except OSError as error:
            _logger.warning("the log of job %s cannot be read: %s", self.job_id, error)
            return []
        if log.size <= _LOG_TAIL_BYTES:
            return []
        text = f"[the first {log.gone} bytes of this output are gone]\n{log.text}" if log.gone else log.text
        return Output(OutputStream.LOG, text, lost_bytes=log.size - log.next_offset).pieces(self.request_id)

    async def _report_exit(self) -> None:
        """The process outlived the end of its job: a service that stopped, or was killed."""
        if self._exit_code is None:
            await self._tools.journal.mark_exited(self.job_id)
        else:
            await self._tools.journal.record(JobExited(self.request_id, self.job_id, self._exit_code))
        _logger.info("job %s: its process is gone", self.job_id)
        self._poke()

    def _poke(self) -> None:
        if self._row.subject is not None:
            self._tools.poke(self._row.subject)


def _run_as_user(row: JobRow) -> str | None:
    """Whom the command named, by its frame: the agent may have been restarted since."""
    try:
        command: Command = codec.decode(row.frame, Command)
    except ProtocolError:
        return None
    user = command.command.run_as_user if isinstance(command.command, ExecuteCommand | ScriptCommand) else None
    return None if user == pwd.getpwuid(os.geteuid()).pw_name else user


def describe_exit(code: int | None) -> str:
    """ "exit code 3", "signal SIGKILL (exit code 137)": as an operator knows it from a shell."""
    if code is not None and code > 128:
        try:
            return f"signal {signal.Signals(code - 128).name} (exit code {code})"
        except ValueError:
            pass  # A program may use such a code for itself.
    return f"exit code {code}"


def _age_s(row: JobRow, shim: ProcessIdentity | None) -> float:
    """By the shim if it can be known: the host's clock may have jumped since the job began."""
    age_s = shim.age_s() if shim is not None else None
    return max(0.0, time.time() - row.started_at.timestamp()) if age_s is None else age_s
