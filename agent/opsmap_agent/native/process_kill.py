"""Signalling a process: the one native command that ends what the backend did not start."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TypedDict

import psutil

from opsmap_agent.commands.refusals import RejectedError
from opsmap_agent.jobs.launcher import SHIM, is_shim
from opsmap_agent.native.registry import NativeCommandError, NativeContext, native

_ALLOWED = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGKILL,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGTERM,
    signal.SIGCONT,
)
_PF_KTHREAD = 0x00200000
"""In the flags of /proc/PID/stat, as the kernel's sched.h has it."""


class ProcessSignalled(TypedDict):
    success: bool


@native("process_kill", limit_s=5, changes_host=True)
def process_kill(
    context: NativeContext, *, pid: int, signal: int | None = None, name: str | None = None
) -> ProcessSignalled:
    """Send a signal (15, TERM, if none is given) to one process; it may take its time to end.

    With `name` only if the process is called so: between a list and this command a pid may have become another's.
    Never signalled are init, the kernel, the agent with what started it, and what holds its jobs: those are cancelled.
    """
    number = _allowed(signal)
    if pid <= 1:
        raise RejectedError(f"process {pid} is not one that may be signalled")
    try:
        # What is checked from here on is what is signalled: the number cannot be given to another unnoticed.
        descriptor = os.pidfd_open(pid)
    except (OSError, OverflowError):
        raise NativeCommandError(f"there is no process {pid}", _not_done()) from None
    try:
        _check_may_be_signalled(pid, name)
        _signal(descriptor, number)
    except ProcessLookupError:
        raise NativeCommandError(f"there is no process {pid}", _not_done()) from None
    except PermissionError:
        raise NativeCommandError(f"the agent's user may not signal process {pid}", _not_done()) from None
    finally:
        os.close(descriptor)
    return {"success": True}


def _signal(descriptor: int, number: signal.Signals) -> None:
    signal.pidfd_send_signal(descriptor, number)


def _allowed(number: int | None) -> signal.Signals:
    if number is None:
        return signal.SIGTERM
    for allowed in _ALLOWED:
        if allowed == number:
            return allowed
    names = ", ".join(f"{each.value} ({each.name})" for each in sorted(_ALLOWED))
    raise RejectedError(f"native command 'process_kill': signal is one of {names}")


def _check_may_be_signalled(pid: int, name: str | None) -> None:
    try:
        process = psutil.Process(pid)
        if name is not None and process.name() != name:
            raise NativeCommandError(f"process {pid} is {process.name()!r}, not {name[:80]!r}", _not_done())
        if _is_kernel_thread(pid):
            raise RejectedError(f"process {pid} is a thread of the kernel")
        if pid in _own_line():
            raise RejectedError(f"process {pid} is this agent, or what started it")
        if _is_shim(process):
            raise RejectedError(f"process {pid} holds a job of this agent: cancel the job instead")
    except psutil.NoSuchProcess:
        raise NativeCommandError(f"there is no process {pid}", _not_done()) from None


def _own_line() -> Iterator[int]:
    """The agent and its ancestors."""
    process: psutil.Process | None = psutil.Process()
    while process is not None:
        yield process.pid
        process = process.parent()


def _is_kernel_thread(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        raise psutil.NoSuchProcess(pid) from None
    # After the name, which may hold anything: state, ppid, group, session, terminal, its group, flags.
    return bool(int(stat.rpartition(")")[2].split()[6]) & _PF_KTHREAD)


def _is_shim(process: psutil.Process) -> bool:
    try:
        arguments = process.cmdline()
        return SHIM in arguments[:4] or is_shim(arguments)
    except psutil.AccessDenied:
        return False  # The agent's own children it may always see.


def _not_done() -> ProcessSignalled:
    return {"success": False}
