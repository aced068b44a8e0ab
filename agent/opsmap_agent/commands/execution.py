"""Commands that are answered when they are done: native ones, and programs under a time limit."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from concurrent.futures import Executor
from dataclasses import dataclass, field

from opsmap_agent.commands.output import Output, describe, is_told_apart
from opsmap_agent.commands.sync import ProcessResult, SyncRunner
from opsmap_agent.configuration import Scripts
from opsmap_agent.native import NativeCommandError, Natives, only_looks
from opsmap_agent.rules.policy import Policy, Runnable
from opsmap_protocol.codec import encode
from opsmap_protocol.enums import CommandOutcome, OutputStream, ServiceAction
from opsmap_protocol.messages import Command, CommandOutput, CommandResult
from opsmap_protocol.specs import CommandSpec, NativeCommand, ServiceControlCommand, SyncMode

_MAX_NATIVE_S = 60.0
_MAX_RESULT_BYTES = 3 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """How a command ended. `output` is told before the result, and only if that is too small for it."""

    result: CommandResult
    output: list[CommandOutput] = field(default_factory=list)


class Execution:
    """`executor` takes what blocks."""

    def __init__(
        self,
        *,
        policy: Policy,
        runner: SyncRunner,
        natives: Natives,
        scripts: Scripts,
        executor: Executor,
    ) -> None:
        self._policy = policy
        self._runner = runner
        self._natives = natives
        self._scripts = scripts
        self._executor = executor

    async def run(self, command: Command) -> Answer:
        """The end of a command.

        Raises:
            RefusalError: it was not run.
        """
        begun = time.monotonic()
        spec = _as_native(command)
        if isinstance(spec, NativeCommand):
            limit_s = self._limit_s(command, _MAX_NATIVE_S)
            answer = Answer(await self._run_native(command.request_id, spec, limit_s))
        else:
            limit_s = self._limit_s(command, self._scripts.max_timeout_secs)
            process = await self._run_program(spec, limit_s)
            answer = _of_process(command.request_id, process, limit_s)
        result = dataclasses.replace(answer.result, duration_ms=round((time.monotonic() - begun) * 1000))
        return dataclasses.replace(answer, result=result)

    def _limit_s(self, command: Command, most_s: float) -> float:
        mode = command.execution_mode
        asked_ms = mode.timeout_ms if isinstance(mode, SyncMode) else command.timeout_ms
        return min(asked_ms / 1000 if asked_ms > 0 else self._scripts.default_timeout_secs, most_s)

    async def _run_native(self, request_id: str, spec: NativeCommand, limit_s: float) -> CommandResult:
        try:
            answer = await self._natives.run(spec.name, spec.params, limit_s)
        except NativeCommandError as error:
            return dataclasses.replace(_failed(request_id, str(error)), result=error.result)
        result = CommandResult(request_id, True, CommandOutcome.SUCCEEDED, result=answer.result, error=answer.remark)
        if len(encode(result)) > _MAX_RESULT_BYTES:
            return _failed(request_id, f"the answer is larger than {_MAX_RESULT_BYTES // 1024**2} MiB")
        return result

    async def _run_program(self, spec: Runnable, limit_s: float) -> ProcessResult:
        loop = asyncio.get_running_loop()
        program = await loop.run_in_executor(self._executor, self._policy.resolve, spec)
        return await self._runner.run(program, limit_s)


def looks_only(command: Command) -> bool:
    """Whether running it twice does no more than running it once."""
    spec = _as_native(command)
    return isinstance(spec, NativeCommand) and only_looks(spec.name)


def _as_native(command: Command) -> CommandSpec:
    """What is asked for, as the native command that answers it if there is one."""
    spec = command.command
    if isinstance(spec, ServiceControlCommand) and spec.action is ServiceAction.STATUS:
        return NativeCommand("service_status", {"name": spec.service_name})
    return spec


def _of_process(request_id: str, process: ProcessResult, limit_s: float) -> Answer:
    outcome = CommandOutcome.SUCCEEDED if process.is_success else CommandOutcome.FAILED
    error = None
    if process.timed_out:
        error = f"it did not end within {limit_s:g} s"
    elif process.exit_code != 0:
        error = f"exit code {process.exit_code}"
    stdout = Output(OutputStream.STDOUT, process.stdout, process.lost_stdout)
    stderr = Output(OutputStream.STDERR, process.stderr, process.lost_stderr)
    shown = {"exit_code": process.exit_code, "timed_out": process.timed_out, **describe(stdout, stderr)}
    pieces = stdout.pieces(request_id) + stderr.pieces(request_id) if is_told_apart(stdout, stderr) else []
    return Answer(CommandResult(request_id, process.is_success, outcome, result=shown, error=error), pieces)


def _failed(request_id: str, error: str) -> CommandResult:
    return CommandResult(request_id, False, CommandOutcome.FAILED, error=error)
