"""The processes of this host. What they were started with leaves the host without the secrets in it."""

from __future__ import annotations

import errno
import pwd
import time
from collections.abc import Callable, Iterator
from typing import Any, TypedDict, TypeVar

import psutil

from opsmap_agent.host.masking import mask_arguments, mask_environment
from opsmap_agent.native.bounds import Cut, bounded, shortened
from opsmap_agent.native.registry import NativeCommandError, NativeContext, native

_MAX_OPEN_FILES = 200
_MAX_VARIABLES = 500
_SHOWN_COMMAND = 1_000
_SHOWN_TEXT = 1_000
_MIB = 1024**2

Value = TypeVar("Value")


class ListedProcess(TypedDict):
    pid: int
    ppid: int
    name: str
    user: str | None
    cpu_pct: float
    mem_mb: float
    status: str
    cmd: str


class FoundProcess(TypedDict):
    pid: int
    name: str
    cmd: str


class Connection(TypedDict):
    local: str | None
    remote: str | None
    status: str


class ProcessInfo(TypedDict):
    pid: int
    name: str
    exe: str | None
    cwd: str | None
    env: dict[str, str] | None
    open_files: list[str] | None
    connections: list[Connection] | None
    threads: int


@native("process_list", limit_s=20)
def process_list(context: NativeContext) -> list[ListedProcess] | Cut[ListedProcess]:
    """All processes, by pid. `cpu_pct` is of one core and since the process began, as `ps` has it.

    Likely secrets in `cmd` are masked, here and in all other commands.
    """
    return bounded(_listed(context), "processes")


@native("process_find", switches=("process_list", "process_find"), limit_s=20)
async def process_find(context: NativeContext, *, pattern: str) -> list[FoundProcess] | Cut[FoundProcess]:
    """Processes with `pattern` in their name or command line, in any case; not the agent and what holds its jobs."""
    wanted = pattern.casefold()
    entries = await context.prober.processes.entries()

    def found() -> Iterator[FoundProcess]:
        for entry in entries:
            # What is looked through is what is shown: else a secret could be guessed letter by letter.
            command = " ".join(mask_arguments(entry.arguments)) or entry.name
            if wanted in f"{entry.name} {command}".casefold():
                yield {"pid": entry.pid, "name": entry.name, "cmd": shortened(command, _SHOWN_COMMAND)}

    return bounded(found(), "processes")


@native("process_info", limit_s=10)
def process_info(context: NativeContext, *, pid: int) -> ProcessInfo:
    """What the agent's user may see of a process; a field that it may not see is null.

    Of open files and connections the first 200 are told. Values of variables that are likely secrets are masked.
    """
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            return {
                "pid": pid,
                "name": process.name(),
                "exe": _visible(process.exe),
                "cwd": _visible(process.cwd),
                "env": _environment(process),
                "open_files": _open_files(process),
                "connections": _connections(process),
                "threads": process.num_threads(),
            }
    except (psutil.NoSuchProcess, ValueError, OverflowError):
        raise NativeCommandError(f"there is no process {pid}") from None


def _listed(context: NativeContext) -> Iterator[ListedProcess]:
    now_s = time.time()
    users: dict[int, str | None] = {}
    for process in psutil.process_iter():
        if context.is_abandoned.is_set():
            return
        try:
            with process.oneshot():
                yield _describe(process, now_s, users)
        except psutil.Error:
            continue  # It has just ended.


def _describe(process: psutil.Process, now_s: float, users: dict[int, str | None]) -> ListedProcess:
    name = process.name()
    uid = process.uids().effective
    if uid not in users:
        users[uid] = _user_name(uid)
    times = process.cpu_times()
    age_s = max(now_s - process.create_time(), 0.01)
    command = " ".join(mask_arguments(_visible(process.cmdline) or []))
    return {
        "pid": process.pid,
        "ppid": process.ppid(),
        "name": name,
        "user": users[uid],
        "cpu_pct": round((times.user + times.system) / age_s * 100, 1),
        "mem_mb": round(process.memory_info().rss / _MIB, 1),
        "status": process.status(),
        # A kernel thread has no command line; `ps` shows its name in brackets.
        "cmd": shortened(command, _SHOWN_COMMAND) or f"[{name}]",
    }


def _user_name(uid: int) -> str:
    """The name; the number of a user whom this host does not know, as of a container."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _visible(read: Callable[[], Value]) -> Value | None:
    try:
        return read()
    except psutil.AccessDenied:
        return None
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM):
            return None
        raise


def _environment(process: psutil.Process) -> dict[str, str] | None:
    environment: dict[str, str] | None = _visible(process.environ)
    if environment is None:
        return None
    shown = dict(list(environment.items())[:_MAX_VARIABLES])
    return {
        shortened(name, _SHOWN_TEXT): shortened(value, _SHOWN_TEXT) for name, value in mask_environment(shown).items()
    }


def _open_files(process: psutil.Process) -> list[str] | None:
    files: list[Any] | None = _visible(process.open_files)
    return None if files is None else [file.path for file in files[:_MAX_OPEN_FILES]]


def _connections(process: psutil.Process) -> list[Connection] | None:
    connections: list[Any] | None = _visible(process.net_connections)
    if connections is None:
        return None
    return [
        {
            "local": f"{entry.laddr.ip}:{entry.laddr.port}" if entry.laddr else None,
            "remote": f"{entry.raddr.ip}:{entry.raddr.port}" if entry.raddr else None,
            "status": entry.status,
        }
        for entry in connections[:_MAX_OPEN_FILES]
    ]
