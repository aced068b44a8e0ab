"""Signalling processes: what is signalled is what was meant, and some never are."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from opsmap_agent.commands.refusals import RejectedError
from opsmap_agent.configuration import NativeCommands
from opsmap_agent.jobs.launcher import SHIM
from opsmap_agent.native import NativeCommandError, process_kill
from testing_natives import RunNative

_LAST_PID = Path("/proc/sys/kernel/ns_last_pid")


@pytest.fixture
async def sleeper() -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec("sleep", "64")
    yield process
    if process.returncode is None:
        process.kill()
        await process.wait()


@pytest.mark.parametrize(("params", "number"), [({}, 15), ({"signal": 9}, 9), ({"signal": 2, "name": "sleep"}, 2)])
async def test_a_process_is_signalled(
    native: RunNative, sleeper: asyncio.subprocess.Process, params: dict[str, object], number: int
) -> None:
    assert await native("process_kill", pid=sleeper.pid, **params) == {"success": True}
    assert await asyncio.wait_for(sleeper.wait(), 10) == -number


async def test_it_is_off_unless_asked_for(native: RunNative, sleeper: asyncio.subprocess.Process) -> None:
    native.switches = NativeCommands()
    with pytest.raises(RejectedError, match="'process_kill' is switched off in native_commands"):
        await native("process_kill", pid=sleeper.pid)
    assert sleeper.returncode is None


async def test_a_number_that_is_now_another_process(native: RunNative, sleeper: asyncio.subprocess.Process) -> None:
    with pytest.raises(NativeCommandError, match="is 'sleep', not 'postgres'") as refusal:
        await native("process_kill", pid=sleeper.pid, name="postgres")
    assert refusal.value.result == {"success": False}
    assert sleeper.returncode is None


async def test_a_number_given_to_another_after_the_check_hits_nobody(
    native: RunNative, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not os.access(_LAST_PID, os.W_OK):
        pytest.skip("only root may say which number the next process gets")
    process = _started()
    heirs: list[subprocess.Popen[bytes]] = []
    check = process_kill._check_may_be_signalled

    def check_and_replace(pid: int, name: str | None) -> None:
        check(pid, name)
        process.kill()
        process.wait()
        heirs.append(_started_with(pid))

    monkeypatch.setattr(process_kill, "_check_may_be_signalled", check_and_replace)
    with pytest.raises(NativeCommandError, match="there is no process"):
        await native("process_kill", pid=process.pid, signal=9)
    (heir,) = heirs
    try:
        assert heir.pid == process.pid
        assert heir.poll() is None
    finally:
        heir.kill()
        heir.wait()


def _started() -> subprocess.Popen[bytes]:
    return subprocess.Popen(["sleep", "64"])


def _started_with(pid: int) -> subprocess.Popen[bytes]:
    """A process with just this number; others on this machine may take it first, so more than one try."""
    for _ in range(200):
        _LAST_PID.write_text(str(pid - 1))
        heir = _started()
        if heir.pid == pid:
            return heir
        heir.kill()
        heir.wait()
    pytest.skip("others take every number on this machine")


@pytest.mark.parametrize("pid", [0, 1, -1, -(2**31)])
async def test_groups_and_init_are_refused(native: RunNative, pid: int) -> None:
    with pytest.raises(RejectedError, match=f"process {pid} is not one that may be signalled"):
        await native("process_kill", pid=pid)


async def test_the_agent_and_what_started_it_are_refused(native: RunNative) -> None:
    for process in [psutil.Process(), *psutil.Process().parents()]:
        with pytest.raises(RejectedError, match=r"is this agent, or what started it|may be signalled"):
            await native("process_kill", pid=process.pid)


async def test_what_holds_a_job_is_refused(native: RunNative) -> None:
    shim = await asyncio.create_subprocess_exec("sh", "-c", "read line", SHIM, stdin=asyncio.subprocess.PIPE)
    try:
        with pytest.raises(RejectedError, match="holds a job of this agent: cancel the job instead"):
            await native("process_kill", pid=shim.pid)
    finally:
        shim.kill()
        await shim.wait()


async def test_threads_of_the_kernel_are_refused(native: RunNative) -> None:
    if Path("/proc/2/comm").exists() and Path("/proc/2/comm").read_text() == "kthreadd\n":
        with pytest.raises(RejectedError, match="process 2 is a thread of the kernel"):
            await native("process_kill", pid=2)
    else:
        pytest.skip("in a container there are no kernel threads to be seen")


@pytest.mark.parametrize("number", [0, 11, 19, 64, -9, 2**40])
async def test_other_signals_are_refused(native: RunNative, sleeper: asyncio.subprocess.Process, number: int) -> None:
    with pytest.raises(RejectedError, match=r"signal is one of 1 \(SIGHUP\), 2 \(SIGINT\)"):
        await native("process_kill", pid=sleeper.pid, signal=number)
    assert sleeper.returncode is None


async def test_nobody_there(native: RunNative, sleeper: asyncio.subprocess.Process) -> None:
    sleeper.kill()
    await sleeper.wait()
    for pid in (sleeper.pid, 2**22 + 1, 2**40):
        with pytest.raises(NativeCommandError, match="there is no process"):
            await native("process_kill", pid=pid)
