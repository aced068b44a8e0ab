"""Commands from the gateway: taken in once, run or refused, and always answered. The rules are those of DESIGN 3."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol, TypeVar

from opsmap_agent.commands.execution import Answer, Execution, looks_only
from opsmap_agent.commands.refusals import RefusalError, RejectedError
from opsmap_agent.host.clocks import why_not_now
from opsmap_agent.jobs.jobs import Jobs
from opsmap_agent.journal.committer import CommitError
from opsmap_agent.journal.journal import Journal
from opsmap_agent.journal.rows import Admission, OpenCommand
from opsmap_agent.rules.policy import Runnable
from opsmap_protocol import codec
from opsmap_protocol.enums import CommandOutcome, ServiceAction
from opsmap_protocol.errors import ProtocolError
from opsmap_protocol.messages import CancelCommand, Command, CommandReceived, CommandResult, Error
from opsmap_protocol.specs import AsyncMode, NativeCommand, ServiceControlCommand

_logger = logging.getLogger(__name__)
T = TypeVar("T")

_REQUEST_ID = re.compile(r"[A-Za-z0-9-]{1,64}", re.ASCII)
_BAD_REQUEST_ID = "request_id: expected letters, digits and '-', at most 64"

MAX_BEING_ADMITTED = 256
"""Commands on their way into the journal; the backend is told not to send more at once."""

_UNSTORABLE = "internal error of the agent: the result cannot be stored, see its log"
_MAX_RUNNING = 1_000
_STOP_GRACE_S = 3.0
_RECEIPT_PAUSE_S = 0.2
"""How long a receipt waits for the end of its command: most commands are that quick, and then it is not needed."""


class Origin(Protocol):
    """The session that a message came by."""

    @property
    def gets_events(self) -> bool:
        """Whether the backend hears of events by it."""

    async def reply(self, message: CommandReceived | Error) -> None:
        """Send a message by it, or by the one in use if it is gone.

        Not durable, and never raises: what must arrive is an event in the journal.
        """


@dataclass(slots=True)
class _Progress:
    """A command on its way. A cancellation may come at any moment of it: `kill` remembers it until it can act.

    `task` is set while there is something to interrupt: a sync command that has begun.
    """

    kill: bool | None = None
    task: asyncio.Task[Any] | None = None


class Dispatcher:
    """Commands run as tasks of `group` and outlive the session that brought them."""

    def __init__(
        self,
        *,
        agent_id: str,
        journal: Journal,
        jobs: Jobs,
        execution: Execution,
        group: asyncio.TaskGroup,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._agent_id = agent_id
        self._journal = journal
        self._jobs = jobs
        self._execution = execution
        self._group = group
        self._clock = clock
        self._running: dict[str, _Progress] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._admissions = asyncio.Semaphore(MAX_BEING_ADMITTED)
        self._is_stopping = False

    @property
    def active_count(self) -> int:
        return len(self._running) + self._jobs.active_count

    def is_at_work_on(self, request_id: str) -> bool:
        """Whether this command is being taken in or run, also if it is not in the journal yet."""
        return request_id in self._running

    async def accept(self, command: Command, frame: str, origin: Origin) -> None:
        """Take a command in and let it run. Waits only while too many others are being written to the journal."""
        if not is_request_id(command.request_id):
            await self._complain(origin, "malformed_message", _BAD_REQUEST_ID, command.request_id)
            return
        # Known from here on, and not only once it runs: a cancellation may be the very next frame.
        is_first = command.request_id not in self._running
        progress = self._running.setdefault(command.request_id, _Progress())
        if not looks_only(command):
            await self._admissions.acquire()
            taking = self._take(command, frame, progress, is_first, origin)
        elif is_first:
            taking = self._look(command, frame, progress, origin)
        else:
            return  # It is being answered.
        self._group.create_task(taking, name=f"take {command.request_id}")

    async def refuse(self, request_id: str, frame: str, reason: str, origin: Origin) -> None:
        """End a command that cannot be understood, so that nobody waits for it."""
        refusal = CommandResult(request_id, False, CommandOutcome.REJECTED, error=reason)
        try:
            await self._journal.refuse(refusal, frame)
        except CommitError as error:
            await self._complain_of_journal(origin, error, request_id)

    async def cancel(self, request: CancelCommand, origin: Origin) -> None:
        """A sync command is always ended; the process of a job only if `kill` says so."""
        if self._jobs.cancel(request.request_id, kill=request.kill):
            return
        progress = self._running.get(request.request_id)
        if progress is None:
            reason = "this agent has no such command whose end is open"
            await self._complain(origin, "unknown_request", reason, request.request_id)
            return
        progress.kill = request.kill
        if progress.task is not None:
            progress.task.cancel()

    async def recover(self) -> None:
        """Give every command of the agent's former life its end, and watch again what still runs."""
        for row in await self._journal.ended_jobs_with_live_process():
            self._jobs.resume(row, AsyncMode())
        for open_command in await self._journal.open_commands():
            try:
                command: Command = codec.decode(open_command.frame, Command)
            except ProtocolError as error:
                reason = f"it was taken in by another version of the agent and is not understood: {error}"
                await self._journal.record(_failed(open_command.request_id, reason))
            else:
                await self._recover_one(command, open_command)

    async def stop(self) -> None:
        """Let running commands end, for a moment; then end them. Detached processes are left alone."""
        self._is_stopping = True
        if not self._tasks:
            return
        _, unfinished = await asyncio.wait(self._tasks, timeout=_STOP_GRACE_S)
        for task in unfinished:
            task.cancel()
        if unfinished:
            await asyncio.wait(unfinished)

    async def _take(self, command: Command, frame: str, progress: _Progress, is_first: bool, origin: Origin) -> None:
        try:
            admission = await self._admit(command, frame, self._refuse_at_once(command), origin)
        finally:
            self._admissions.release()
        has_ended = False
        if admission is Admission.NEW:
            working = self._begin(command, frame, progress)
            if origin.gets_events and _as_job(command) is None:
                await asyncio.wait({working}, timeout=_RECEIPT_PAUSE_S)
                has_ended = working.done()
        elif is_first:
            self._running.pop(command.request_id, None)
        if admission in (Admission.NEW, Admission.KNOWN) and not has_ended:
            await origin.reply(CommandReceived(self._agent_id, "", command.request_id))

    async def _look(self, command: Command, frame: str, progress: _Progress, origin: Origin) -> None:
        """A command that only looks may do so twice, so it begins at once: if it is quick, as nearly all are, it is
        taken in together with its answer, which is one write instead of two.
        """
        try:
            await self._take_with_answer(command, frame, progress, origin)
        finally:
            self._running.pop(command.request_id, None)

    async def _take_with_answer(self, command: Command, frame: str, progress: _Progress, origin: Origin) -> None:
        refusal = self._refuse_at_once(command)
        answering = None if refusal is not None else self._track(command, self._answer(command, progress), progress)
        if answering is not None:
            await asyncio.wait({answering}, timeout=_RECEIPT_PAUSE_S)
        is_answered = answering is not None and answering.done()
        end = answering.result().result if answering is not None and is_answered else refusal
        async with self._admissions:
            admission = await self._admit(command, frame, end, origin)
        if admission is not None and not (admission is Admission.ENDED and origin.gets_events):
            await origin.reply(CommandReceived(self._agent_id, "", command.request_id))
        if answering is None or is_answered:
            return
        if admission is Admission.NEW:
            await self._record(command, await answering)
        else:
            # It is known, or the journal did not take it: nobody waits for this answer.
            answering.cancel()

    async def _admit(self, command: Command, frame: str, end: CommandResult | None, origin: Origin) -> Admission | None:
        """None if the journal did not take it."""
        try:
            return await self._journal.admit(command, frame, end)
        except CommitError as error:
            await self._complain_of_journal(origin, error, command.request_id)
        except Exception as error:
            # A fault of ours with one command must not end the agent, and with it all others.
            _logger.exception("command %s", command.request_id)
            if end is not None and end.result is not None:
                return await self._admit(command, frame, _failed(command.request_id, _UNSTORABLE), origin)
            await self.refuse(command.request_id, frame, f"internal error of the agent: {error!r}", origin)
        return None

    async def _complain_of_journal(self, origin: Origin, error: CommitError, request_id: str) -> None:
        await self._complain(origin, "journal_unavailable", f"the agent cannot write its journal: {error}", request_id)

    async def _complain(self, origin: Origin, code: str, reason: str, request_id: str) -> None:
        await origin.reply(Error(code, reason, about=request_id[:80], agent_id=self._agent_id))

    def _refuse_at_once(self, command: Command) -> CommandResult | None:
        untimely = why_not_now(command, self._clock())
        if untimely is not None:
            return _refusal(command, untimely)
        if len(self._tasks) >= _MAX_RUNNING:
            return _refusal(command, RejectedError(f"{_MAX_RUNNING} commands are running, more are not accepted"))
        return None

    def _begin(self, command: Command, frame: str, progress: _Progress) -> asyncio.Task[None]:
        job = _as_job(command)
        work = self._run(command, progress) if job is None else self._launch(command, progress, *job, frame)
        task = self._track(command, work, progress)
        task.add_done_callback(lambda _: self._running.pop(command.request_id, None))
        return task

    def _track(self, command: Command, work: Coroutine[Any, Any, T], progress: _Progress) -> asyncio.Task[T]:
        """Do it as a task that `stop` waits for."""
        task = self._group.create_task(work, name=f"command {command.request_id}")
        self._running[command.request_id] = progress
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _run(self, command: Command, progress: _Progress) -> None:
        """A command whose end is its answer."""
        await self._record(command, await self._answer(command, progress))

    async def _answer(self, command: Command, progress: _Progress) -> Answer:
        progress.task = asyncio.current_task()
        try:
            # A task that is cancelled before its first step never gets here: hence the flag beside the task.
            cancelled = Answer(_cancelled(command))
            answer = cancelled if progress.kill is not None else await self._execution.run(command)
        except RefusalError as refusal:
            answer = Answer(_refusal(command, refusal))
        except asyncio.CancelledError:
            answer = Answer(self._interrupted(command))
        except Exception:
            _logger.exception("command %s", command.request_id)
            answer = Answer(_failed(command.request_id, "internal error of the agent, see its log"))
        progress.task = None
        return answer

    async def _record(self, command: Command, answer: Answer) -> None:
        try:
            await self._journal.record(*answer.output, answer.result)
        except Exception:
            # What cannot be written as it is must not end the agent, nor leave its command without an end.
            _logger.exception("the result of command %s", command.request_id)
            await self._journal.record(_failed(command.request_id, _UNSTORABLE))

    async def _launch(self, command: Command, progress: _Progress, spec: Runnable, mode: AsyncMode, frame: str) -> None:
        """A command that becomes a job. A cancellation meanwhile waits until there is something to cancel."""
        if progress.kill is not None:
            await self._journal.record(_cancelled(command))
            return
        try:
            await self._jobs.start(command, spec, mode, frame)
        except RefusalError as refusal:
            await self._journal.record(_refusal(command, refusal))
        except Exception:
            _logger.exception("command %s", command.request_id)
            reason = "internal error of the agent, see its log"
            await self._journal.record(_failed(command.request_id, reason))
        if progress.kill is not None:
            self._jobs.cancel(command.request_id, kill=progress.kill)

    def _interrupted(self, command: Command) -> CommandResult:
        if self._is_stopping:
            return _failed(command.request_id, "the agent was stopped while the command ran")
        return _cancelled(command)

    async def _recover_one(self, command: Command, open_command: OpenCommand) -> None:
        job = _as_job(command)
        if job is None:
            error = "the agent was restarted while the command ran: whether it took effect is not known"
            await self._journal.record(_failed(command.request_id, error))
        elif open_command.job is not None:
            self._jobs.resume(open_command.job, job[1])
        elif await self._jobs.adopt(command, job[1], open_command.frame):
            _logger.info("command %s: its process was found", command.request_id)
        elif (untimely := why_not_now(command, self._clock())) is not None:
            await self._journal.record(_refusal(command, untimely))
        else:
            self._begin(command, open_command.frame, _Progress())


def is_request_id(text: str) -> bool:
    """Strict, because request ids become names of folders."""
    return _REQUEST_ID.fullmatch(text) is not None


def _as_job(command: Command) -> tuple[Runnable, AsyncMode] | None:
    """The parts of a command that launches a process and is done later; None if its answer is its end."""
    spec, mode = command.command, command.execution_mode
    if not isinstance(mode, AsyncMode) or isinstance(spec, NativeCommand):
        return None
    if isinstance(spec, ServiceControlCommand) and spec.action is ServiceAction.STATUS:
        return None
    return spec, mode


def _cancelled(command: Command) -> CommandResult:
    return CommandResult(command.request_id, False, CommandOutcome.CANCELLED, error="cancelled")


def _refusal(command: Command, refusal: RefusalError) -> CommandResult:
    return CommandResult(command.request_id, False, refusal.outcome, error=str(refusal))


def _failed(request_id: str, error: str) -> CommandResult:
    return CommandResult(request_id, False, CommandOutcome.FAILED, error=error)
