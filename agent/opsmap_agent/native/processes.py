"""The processes of this host."""

from __future__ import annotations

from typing import Any

import psutil

from opsmap_agent.native.registry import NativeCommandError, NativeContext, native

_MAX_FOUND = 200
_MAX_OPEN_FILES = 200
_SHOWN_TEXT = 4096
_SECRET_WORDS = ("pass", "secret", "token", "key", "credential", "auth")
_MASK = "***"


@native("process_find", switch="process_list")
async def process_find(context: NativeContext, *, pattern: str) -> list[dict[str, Any]]:
    """Processes with `pattern` in their name or command line, at most 200."""
    found = await context.prober.processes.containing(pattern)
    return [
        {"pid": entry.pid, "name": entry.name, "cmd": entry.command_line[:_SHOWN_TEXT]} for entry in found[:_MAX_FOUND]
    ]


@native("process_info")
def process_info(context: NativeContext, *, pid: int) -> dict[str, Any]:
    """What the agent's user may see of a process; a field that it may not see is null."""
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            return {
                "pid": pid,
                "name": process.name(),
                "exe": _visible(process.exe),
                "cwd": _visible(process.cwd),
                "env": _masked(_visible(process.environ)),
                "open_files": _open_files(process),
                "connections": _connections(process),
                "threads": process.num_threads(),
            }
    except (psutil.NoSuchProcess, ValueError, OverflowError):
        raise NativeCommandError(f"there is no process {pid}") from None


def _visible(read: Any) -> Any:
    try:
        return read()
    except psutil.AccessDenied:
        return None


def _masked(env: dict[str, str] | None) -> dict[str, str] | None:
    """Names stay, values that are likely secrets do not leave the host."""
    if env is None:
        return None
    return {
        name: _MASK if any(word in name.lower() for word in _SECRET_WORDS) else value for name, value in env.items()
    }


def _open_files(process: psutil.Process) -> list[str] | None:
    files = _visible(process.open_files)
    return None if files is None else [file.path for file in files[:_MAX_OPEN_FILES]]


def _connections(process: psutil.Process) -> list[dict[str, Any]] | None:
    connections = _visible(process.net_connections)
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
