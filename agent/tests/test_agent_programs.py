"""Allowed programs: which file a name means, whether others could change it, and the limits that it gets."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from opsmap_agent.commands.refusals import NotStartedError, RejectedError
from opsmap_agent.commands.sync import ProcessResult, SyncRunner
from opsmap_agent.configuration import Configuration, ProcessLimits
from opsmap_agent.host.processes import wait_for_end
from opsmap_agent.jobs.folder import JobFolder
from opsmap_agent.jobs.launcher import launch
from opsmap_agent.rules.policy import Policy
from opsmap_agent.rules.program import Program
from opsmap_protocol.specs import ExecuteCommand, ScriptCommand

Run = Callable[..., Program]


@pytest.fixture
def folder(agent_configuration: Configuration) -> Path:
    return agent_configuration.scripts.allowed_paths[0]


@pytest.fixture
def runner() -> Iterator[SyncRunner]:
    with ThreadPoolExecutor(2) as executor:
        yield SyncRunner(executor, 100_000)


@pytest.fixture
def resolve(agent_configuration: Configuration) -> Run:
    def resolve_(spec: Any, **changed: Any) -> Program:
        configuration = replace(agent_configuration, scripts=replace(agent_configuration.scripts, **changed))
        return Policy(configuration).resolve(spec)

    return resolve_


def write(path: Path, text: str, mode: int = 0o755) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


async def test_allowed_program_that_was_replaced_is_refused(resolve: Run, runner: SyncRunner, tmp_path: Path) -> None:
    tool = write(tmp_path / "tool", "#!/bin/sh\necho checked\n")
    program = resolve(ExecuteCommand(str(tool)), allowed_commands=[str(tool)])
    assert (await runner.run(program, 5)).stdout == "checked\n"
    write(tmp_path / "new", "#!/bin/sh\necho evil\n").rename(tool)
    with pytest.raises(RejectedError, match="was replaced after it was checked"):
        await runner.run(program, 5)


def test_allowed_program_that_others_may_replace_is_refused(resolve: Run, tmp_path: Path) -> None:
    tool = write(tmp_path / "open" / "tool", "#!/bin/sh\n")
    tool.parent.chmod(0o777)
    with pytest.raises(RejectedError, match="writable by its group or others"):
        resolve(ExecuteCommand(str(tool)), allowed_commands=[str(tool)])
    assert resolve(ExecuteCommand(str(tool))).checked == ()


def test_path_of_a_command_does_not_choose_the_interpreter(resolve: Run, folder: Path, tmp_path: Path) -> None:
    impostor = write(tmp_path / "bin" / "sh", "#!/bin/sh\n")
    script = write(folder / "tool.sh", "true", 0o600)
    spec = ScriptCommand(path=str(script), env={"PATH": str(impostor.parent)})
    assert resolve(spec).argv[0] == str(impostor)
    assert resolve(spec, allowed_commands=["true"]).argv[0].endswith("bin/sh")
    assert resolve(spec, allowed_commands=["true"]).argv[0] != str(impostor)


def test_link_to_an_allowed_program_must_stand_safely(resolve: Run, tmp_path: Path) -> None:
    link = tmp_path / "open" / "tool"
    link.parent.mkdir()
    link.parent.chmod(0o777)
    link.symlink_to("/bin/true")
    with pytest.raises(RejectedError, match="stands in a folder that others may write to"):
        resolve(ExecuteCommand(str(link)), allowed_commands=[str(link)])
    assert resolve(ExecuteCommand("sh", ["-c", ""]), allowed_commands=["sh"]).checked[0].path.endswith("/sh")


# Limits


async def limited(resolve: Run, runner: SyncRunner, text: str, **limits: int) -> ProcessResult:
    program = resolve(ExecuteCommand("sh", ["-c", text]), limits=ProcessLimits(**limits))
    return await runner.run(program, 10)


async def test_limits_hold(resolve: Run, runner: SyncRunner) -> None:
    shown = await limited(resolve, runner, "ulimit -n; ulimit -v; nice", max_open_files=33, max_memory_mb=256, nice=7)
    assert shown.stdout.split() == ["33", str(256 * 1024), str(os.nice(0) + 7)]
    greedy = await limited(resolve, runner, "exec python3 -c 'bytearray(500_000_000)'", max_memory_mb=200)
    assert (greedy.exit_code, "MemoryError" in greedy.stderr) == (1, True)
    assert (await limited(resolve, runner, "while :; do :; done", max_cpu_secs=1)).exit_code in (152, 137)


async def test_limits_hold_for_jobs(resolve: Run, tmp_path: Path) -> None:
    program = resolve(ExecuteCommand("sh", ["-c", "ulimit -n"]), limits=ProcessLimits(max_open_files=34))
    job = JobFolder(tmp_path / "job")
    launched = await asyncio.to_thread(launch, program, job)
    await wait_for_end(launched.shim)
    assert job.log_path.read_text() == "34\n"


def test_limits_without_their_tool_are_refused(resolve: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("opsmap_agent.rules.limits.shutil.which", lambda name, path: None)
    with pytest.raises(NotStartedError, match=r"scripts\.limits needs prlimit .* not installed"):
        resolve(ExecuteCommand("/bin/true"), limits=ProcessLimits(max_open_files=34))
