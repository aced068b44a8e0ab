"""The processes of this host, and which of them a name means."""

from __future__ import annotations

import asyncio
import fnmatch
import os
import re
import time
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import PurePath

import psutil

from opsmap_agent.jobs.launcher import is_shim
from opsmap_agent.rules.interpreters import without_carrier

_INTERPRETER = re.compile(r"(python|perl|ruby|php|node|java|bash|dash|sh)[0-9.]*")


@dataclass(frozen=True, slots=True)
class ProcessEntry:
    pid: int
    name: str
    arguments: tuple[str, ...]

    @property
    def command_line(self) -> str:
        return " ".join(self.arguments) or self.name


class ProcessTable:
    """A view of all processes, without the agent itself and the shims of its jobs.

    A shim's command line holds that of its command: it must not pass for the command.
    """

    def __init__(self, executor: Executor, clock: Callable[[], float] = time.monotonic) -> None:
        self._executor = executor
        self._clock = clock
        self._lock = asyncio.Lock()
        self._entries: list[ProcessEntry] = []
        self._read_at = float("-inf")

    async def entries(self, max_age_s: float = 0.0) -> list[ProcessEntry]:
        """All processes as they were when asked, or up to `max_age_s` before.

        Who asks while a look at the host is under way waits for the next one and shares it with all who do.
        """
        not_before = self._clock() - max_age_s
        async with self._lock:
            if self._read_at < not_before:
                self._read_at = self._clock()
                loop = asyncio.get_running_loop()
                self._entries = await loop.run_in_executor(self._executor, _read_processes)
        return self._entries

    async def named(self, name: str, max_age_s: float = 0.0) -> list[ProcessEntry]:
        """Those that `name` means; see `is_named`."""
        return [entry for entry in await self.entries(max_age_s) if is_named(entry, name)]

    async def containing(self, text: str) -> list[ProcessEntry]:
        """Those with `text` in their name or command line, whatever its case."""
        wanted = text.casefold()
        found = await self.entries()
        return [entry for entry in found if wanted in f"{entry.name} {entry.command_line}".casefold()]


def is_named(entry: ProcessEntry, name: str) -> bool:
    """Whether a person would call this process `name`.

    A plain word is its name, its program, or what an interpreter runs: `java -jar /opt/trading-api.jar` and
    `python3 -m trading_api` are "java" and "python3", and also "trading-api" and "trading_api". It is not just
    any argument, or `tail -f trading-api.log` would count. A name with a space, a slash, or a wildcard is looked
    for in the whole command line.
    """
    if any(character in name for character in "*?["):
        return fnmatch.fnmatchcase(entry.command_line, f"*{name}*")
    if " " in name or "/" in name:
        return name in entry.command_line
    return name in _names(entry)


def _names(entry: ProcessEntry) -> set[str]:
    names = {entry.name}
    if not entry.arguments:
        return names
    program = PurePath(entry.arguments[0]).name
    names.add(program)
    if _INTERPRETER.fullmatch(program):
        names |= _interpreted(without_carrier(entry.arguments[1:]))
    return names


def _interpreted(arguments: tuple[str, ...]) -> set[str]:
    """The script, module, or archive among an interpreter's arguments: the first that is no option."""
    for argument in arguments:
        if not argument.startswith("-"):
            path = PurePath(argument)
            return {argument, path.name, path.stem}
    return set()


def _read_processes() -> list[ProcessEntry]:
    own = os.getpid()
    entries = []
    for process in psutil.process_iter(["name", "cmdline", "status"]):
        info = process.info
        arguments = tuple(info["cmdline"] or ())
        if process.pid == own or is_shim(arguments) or info["status"] == psutil.STATUS_ZOMBIE:
            continue
        entries.append(ProcessEntry(process.pid, info["name"] or "", arguments))
    return entries
