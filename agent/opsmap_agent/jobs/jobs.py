"""All jobs of this host: starting them, finding them again after a restart, asking, cancelling, forgetting."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from datetime import UTC, datetime, timedelta

from opsmap_agent.checks.completion import waits_for_start
from opsmap_agent.commands.refusals import RejectedError
from opsmap_agent.configuration import DetachedExecution
from opsmap_agent.host.processes import ProcessIdentity, poll_until
from opsmap_agent.jobs import launcher
from opsmap_agent.jobs.folder import JobFolder
from opsmap_agent.jobs.job import Job, JobTools
from opsmap_agent.jobs.log import JobLog
from opsmap_agent.journal.rows import JobRow
from opsmap_agent.rules.policy import Policy, Runnable
from opsmap_protocol import codec
from opsmap_protocol.enums import JobStatus
from opsmap_protocol.messages import AsyncStarted, AsyncStatus, Command
from opsmap_protocol.specs import AsyncMode

_logger = logging.getLogger(__name__)

_ID_PREFIX = "job_"
_CLAIM_WAIT_S = 5.0
_CLAIM_POLL_S = 0.02
_LOG_LIMIT_INTERVAL_S = 5.0


class Jobs:
    """Jobs run as tasks of `group`, which the owner cancels at shutdown: processes go on without them."""

    def __init__(
        self,
        *,
        settings: DetachedExecution,
        policy: Policy,
        executor: Executor,
        tools: JobTools,
        group: asyncio.TaskGroup,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._log_dir = settings.log_dir
        self._policy = policy
        self._executor = executor
        self._tools = tools
        self._group = group
        self._max_jobs = settings.max_jobs
        self._max_log_bytes = settings.max_log_mb * 1024 * 1024
        self._clock = clock
        self._jobs: dict[str, Job] = {}
        self._launching = 0

    @property
    def active_count(self) -> int:
        return sum(job.is_active for job in self._jobs.values()) + self._launching

    def folder_of(self, request_id: str) -> JobFolder:
        return JobFolder(self._log_dir / f"{_ID_PREFIX}{request_id}")

    async def start(self, command: Command, spec: Runnable, mode: AsyncMode, frame: str) -> None:
        """Launch the process of a command and watch it from now on.

        Raises:
            RefusalError: it was not started.
        """
        if len(self._jobs) + self._launching >= self._max_jobs:
            raise RejectedError(
                f"{self._max_jobs} detached processes are alive, as many as detached_execution.max_jobs allows"
            )
        folder = self.folder_of(command.request_id)
        self._launching += 1
        try:
            launched = await asyncio.get_running_loop().run_in_executor(
                self._executor, self._resolve_and_launch, spec, folder
            )
        except launcher.LaunchUnknownError as error:
            _logger.warning("job of command %s: %s; looking at its records", command.request_id, error)
            await self.adopt(command, mode, frame)
            return
        finally:
            self._launching -= 1
        await self._begin(command, mode, frame, launched.shim, launched.process, self._clock())

    async def adopt(self, command: Command, mode: AsyncMode, frame: str) -> bool:
        """Take over a process that an earlier life of the agent may have launched. False if there never was one.

        Nobody else can begin it afterwards: the lock is free only when the shim is gone, and without a complete
        claim that shim began nothing.
        """
        folder = self.folder_of(command.request_id)
        await _begun_or_gone(folder)
        if not folder.has_shim() and not folder.is_claimed():
            return False
        started_at = folder.claimed_at() or self._clock()
        await self._begin(command, mode, frame, folder.shim(), folder.process(), started_at)
        return True

    def resume(self, row: JobRow, mode: AsyncMode) -> None:
        """Watch a job again that the journal knows."""
        folder = self.folder_of(row.request_id)
        self._watch(Job(row, mode, folder, folder.shim(), self._tools))

    def cancel(self, request_id: str, *, kill: bool) -> bool:
        """False if there is no such job whose end is still open."""
        job = self._jobs.get(_ID_PREFIX + request_id)
        if job is None or not job.is_active:
            return False
        job.cancel(kill=kill)
        return True

    async def statuses(self, job_ids: Sequence[str]) -> list[AsyncStatus]:
        """One for each id, in order; an unknown one has failed, "job not found"."""
        # Those that live first: one that ends while the journal is asked was in no list, and would pass for unknown.
        living = {job_id: self._jobs[job_id].status() for job_id in job_ids if job_id in self._jobs}
        finals = await self._tools.journal.final_statuses([each for each in job_ids if each not in living])
        return [living.get(job_id) or _ended(job_id, finals.get(job_id)) for job_id in job_ids]

    async def clean(self, keep: timedelta) -> None:
        """Forget jobs, and remove folders with their output, that ended longer than `keep` ago."""
        before = self._clock() - keep
        await self._tools.journal.prune(before)
        await asyncio.to_thread(self._remove_folders, before)

    async def limit_logs_regularly(self) -> None:
        """Keep the logs of running processes within their size, until cancelled."""
        while True:
            await asyncio.sleep(_LOG_LIMIT_INTERVAL_S)
            await self.limit_logs()

    async def limit_logs(self) -> None:
        """Let go of the oldest part of every log of a running process that is larger than its limit."""
        logs = [JobLog(self.folder_of(job.request_id).log_path) for job in self._jobs.values()]
        if logs:
            await asyncio.to_thread(self._limit, logs)

    def _limit(self, logs: Sequence[JobLog]) -> None:
        for log in logs:
            try:
                log.limit(self._max_log_bytes)
            except OSError as error:
                _logger.error("%s cannot be kept within its size: %s", log.path, error)

    def _resolve_and_launch(self, spec: Runnable, folder: JobFolder) -> launcher.Launched:
        return launcher.launch(self._policy.resolve(spec), folder)

    async def _begin(
        self,
        command: Command,
        mode: AsyncMode,
        frame: str,
        shim: ProcessIdentity | None,
        process: ProcessIdentity | None,
        started_at: datetime,
    ) -> None:
        job_id = _ID_PREFIX + command.request_id
        row = JobRow(
            job_id,
            command.request_id,
            frame,
            command.subject,
            waits_for_start(mode.completion_check),
            started_at,
        )
        pid = process.pid if process is not None else 0
        started = AsyncStarted(command.request_id, job_id, pid, started_at, mode.poll_interval_ms)
        await self._tools.journal.record(started, job=row)
        _logger.info("job %s: started as process %d", job_id, pid)
        self._watch(Job(row, mode, self.folder_of(command.request_id), shim, self._tools))

    def _watch(self, job: Job) -> None:
        self._jobs[job.job_id] = job
        self._group.create_task(self._run(job), name=job.job_id)

    async def _run(self, job: Job) -> None:
        try:
            await job.run()
            await asyncio.to_thread(self._limit, [JobLog(self.folder_of(job.request_id).log_path)])
        except Exception:
            # A fault of ours in one job must not end the agent, and with it the watch over all others.
            _logger.exception("job %s is not watched any more", job.job_id)
            final = AsyncStatus(
                job.request_id, job.job_id, JobStatus.FAILED, 0, error="internal error of the agent, see its log"
            )
            if job.is_active:
                await self._tools.journal.record(final)
        finally:
            del self._jobs[job.job_id]

    def _remove_folders(self, before: datetime) -> None:
        for path in self._log_dir.iterdir():
            if not path.name.startswith(_ID_PREFIX):
                continue
            folder = JobFolder(path)
            if path.stat().st_mtime < before.timestamp() and not folder.has_shim():
                folder.remove()


def _ended(job_id: str, final: str | None) -> AsyncStatus:
    if final is None:
        return AsyncStatus(job_id.removeprefix(_ID_PREFIX), job_id, JobStatus.FAILED, 0, error="job not found")
    status: AsyncStatus = codec.build(AsyncStatus, json.loads(final))
    return status


async def _begun_or_gone(folder: JobFolder) -> None:
    """Gives a shim that is just starting the time to begin its command."""
    try:
        async with asyncio.timeout(_CLAIM_WAIT_S):
            await poll_until(lambda: folder.process() is not None or not folder.has_shim(), _CLAIM_POLL_S)
    except TimeoutError:
        _logger.warning("%s: its shim is alive but has not begun the command", folder.path)
