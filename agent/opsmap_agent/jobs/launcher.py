"""Starting a detached command: through setsid and shim.sh, so that it belongs to init before it begins.

Blocking (about 3 ms, of which the agent itself spends less than one); callers run it in a thread.
"""

from __future__ import annotations

import fcntl
import os
import select
import shutil
import signal
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from opsmap_agent.commands.refusals import NotStartedError
from opsmap_agent.host.processes import ProcessIdentity
from opsmap_agent.jobs.folder import JobFolder
from opsmap_agent.rules.program import Program

SHIM = str(Path(__file__).with_name("shim.sh"))
_SHELL = "/bin/sh"
_CHECKED_FD, _STARTED_FD, _LOCK_FD = 7, 8, 9
_START_TIMEOUT_S = 10.0
_REQUIRED_TOOLS = ("setsid", "sync")
_TOOLS_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"

# What is ignored stays ignored across exec: Python ignores SIGPIPE, a shell that starts the agent with & also SIGINT.
_DEFAULT_SIGNALS = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}


class LaunchUnknownError(Exception):
    """The shim neither began the command nor ended in time: what becomes of it must be read from its records."""


@dataclass(frozen=True, slots=True)
class Launched:
    """A command that has begun. `shim` is the process to wait for, `process` the command itself."""

    shim: ProcessIdentity
    process: ProcessIdentity


def missing_tools() -> list[str]:
    """What the shim needs and this host does not have."""
    path = f"{_TOOLS_PATH}:{os.environ.get('PATH', '')}"
    return [tool for tool in _REQUIRED_TOOLS if shutil.which(tool, path=path) is None]


def is_shim(arguments: Sequence[str]) -> bool:
    """Whether this is the command line of a shim, also of another copy of the agent: an upgrade leaves them alone."""
    first = arguments[:4]
    return any(program.endswith("/shim.sh") and "/job_" in job for program, job in pairwise(first))


def launch(program: Program, folder: JobFolder) -> Launched:
    """Start `program` detached, with its records and output in `folder`.

    Raises:
        NotStartedError: it certainly did not begin.
        RejectedError: what was checked is not there any more.
        LaunchUnknownError: it may begin yet.
    """
    lock = _prepare(program, folder)
    try:
        started = _spawn(program, folder, lock)
    finally:
        # The shim has its own copy of the lock; ours would outlive it.
        os.close(lock)
    if not started:
        if folder.has_shim():
            raise LaunchUnknownError(f"the command has not begun within {_START_TIMEOUT_S:.0f} s")
        raise NotStartedError(folder.log_tail(1024).strip() or "its shim ended before it could begin")
    shim, process = folder.shim(), folder.process()
    if shim is None or process is None:
        raise LaunchUnknownError("the command began, but its records cannot be read")
    return Launched(shim, process)


def _prepare(program: Program, folder: JobFolder) -> int:
    """The locked descriptor of a folder that is ready for the shim."""
    try:
        folder.create()
        lock = folder.take_lock()
        if lock is None:
            raise LaunchUnknownError("another shim holds this job")
        if folder.is_claimed():
            os.close(lock)
            raise LaunchUnknownError("this job has begun before")
        folder.remove_partial_claim()
    except OSError as error:
        raise NotStartedError(f"the job folder cannot be prepared: {error}") from None
    return lock


def _spawn(program: Program, folder: JobFolder, lock: int) -> bool:
    setsid = shutil.which("setsid", path=f"{_TOOLS_PATH}:{os.environ.get('PATH', '')}")
    if setsid is None:
        raise NotStartedError("detached commands need setsid (util-linux), which is not installed")
    checked = program.checked[-1].path if program.checked else ""
    argv = [setsid, _SHELL, SHIM, str(folder.path), program.working_dir, setsid, checked, *program.argv]
    with ExitStack() as held:
        given, compared = _open_what_it_gets(program, held)
        reading, writing = os.pipe()
        held.callback(os.close, reading)
        with ExitStack() as copies:
            copies.callback(os.close, writing)
            # Copies above the targets: a dup2 onto one must not hit the descriptor that the next one copies from.
            sources = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _LOCK_FD + 1) for fd in (given, compared, writing, lock)]
            for descriptor in sources:
                copies.callback(os.close, descriptor)
            pid = _start_shim(setsid, argv, program.env, sources)
        os.waitpid(pid, 0)
        return _wait_for_start(reading)


def _open_what_it_gets(program: Program, held: ExitStack) -> tuple[int, int]:
    """The standard input of the command, and the file that the shim compares with before it runs it."""
    try:
        given = program.open_input()
    except OSError as error:
        raise NotStartedError(f"the input of the command cannot be prepared: {error.strerror}") from None
    held.callback(os.close, given)
    program.check_again()
    compared = program.checked[-1].open_again() if program.checked else os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    held.callback(os.close, compared)
    return given, compared


def _start_shim(setsid: str, argv: list[str], env: dict[str, str], sources: Sequence[int]) -> int:
    given, compared, started, lock = sources
    try:
        return os.posix_spawn(
            setsid,
            argv,
            env,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                (os.POSIX_SPAWN_DUP2, 1, 2),
                (os.POSIX_SPAWN_DUP2, given, 0),
                (os.POSIX_SPAWN_DUP2, compared, _CHECKED_FD),
                (os.POSIX_SPAWN_DUP2, started, _STARTED_FD),
                (os.POSIX_SPAWN_DUP2, lock, _LOCK_FD),
            ],
            # As leader of a group, setsid has to fork before it can make a session: that is the double fork.
            setpgroup=0,
            setsigmask=(),
            setsigdef=_DEFAULT_SIGNALS,
        )
    except (OSError, ValueError) as error:
        raise NotStartedError(f"the command cannot be started: {error}") from None


def _wait_for_start(reading: int) -> bool:
    poll = select.poll()
    poll.register(reading, select.POLLIN)
    return bool(poll.poll(_START_TIMEOUT_S * 1000)) and os.read(reading, 64) != b""
