"""Opening a file to read it, whatever a path leads to: never a device, never what hangs, never what is private.

A file is taken hold of without being opened, looked at, and then that very file is opened: what a path means may
change in between, what is held does not. Opening a device can already do harm (a watchdog, a tape), and opening a pipe
waits for its writer.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath

from opsmap_agent.commands.refusals import RejectedError
from opsmap_agent.native.bounds import shortened
from opsmap_agent.native.registry import NativeCommandError, NativeContext

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
}
_SHOWN_PATH = 300
_MOUNTS = Path("/proc/self/mountinfo")


def described(path: str, error: OSError | ValueError) -> NativeCommandError:
    """What a person is told of a failed look at a file."""
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return NativeCommandError(f"{shown(path)}: {reason}")


def shown(path: str) -> str:
    """A path within a line for people: not longer than one, and without what a terminal would obey."""
    text = path if path.isprintable() else ascii(path)[1:-1]
    return shortened(text, _SHOWN_PATH)


@contextmanager
def regular_file(context: NativeContext, path: str) -> Iterator[int]:
    """A descriptor of the file to read; also links are followed.

    Raises:
        RejectedError: it is private, or shows the inside of processes.
        NativeCommandError: it is no regular file, or cannot be read.
    """
    check_path(path)
    descriptor = -1
    try:
        held = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            _check_is_regular(path, held)
            _check_is_public(context, path, held)
            descriptor = os.open(f"/proc/self/fd/{held}", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        finally:
            os.close(held)
        yield descriptor
    except (OSError, ValueError) as error:
        raise described(path, error) from None
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def check_path(path: str) -> None:
    """Raises RejectedError for what is no absolute path: the agent has no folder that another would be below."""
    if not path.startswith("/"):
        raise RejectedError(f"{shown(path)!r} is not an absolute path")


def _check_is_regular(path: str, held: int) -> None:
    mode = os.fstat(held).st_mode
    if not stat.S_ISREG(mode):
        raise NativeCommandError(f"{shown(path)} is {_KINDS.get(stat.S_IFMT(mode), 'no file')}, not a file to read")


def _check_is_public(context: NativeContext, path: str, held: int) -> None:
    real = Path(f"/proc/self/fd/{held}").readlink()
    found = os.fstat(held)
    if any(_is_within(found, real, Path(private)) for private in context.private_paths):
        raise RejectedError(f"{shown(path)} is the agent's own: nobody reads it through the agent")
    if _file_system(found.st_dev) == "proc" and _shows_processes(real):
        # The memory and environment of each process of the agent's user, the agent's own included.
        raise RejectedError(f"{shown(path)} shows the inside of a process; process_info tells what may be known")


def _is_within(found: os.stat_result, real: PurePath, private: Path) -> bool:
    """Whether it is that file, or in that folder: also by what it is, since a hard link or a mount changes its name."""
    if real.is_relative_to(private.resolve()):
        return True
    files = [private, *private.iterdir()] if private.is_dir() else [private]
    return any(_is_same(found, file) for file in files)


def _is_same(found: os.stat_result, file: Path) -> bool:
    try:
        return os.path.samestat(found, file.stat())
    except OSError:
        return False  # It has just been removed, or was never there.


def _shows_processes(real: PurePath) -> bool:
    return real.name in ("kcore", "kmsg") or any(part.isdigit() for part in real.parts)


def _file_system(device: int) -> str | None:
    """The kind of the file system with that device number, wherever it is mounted."""
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in _MOUNTS.read_text(encoding="utf-8", errors="replace").splitlines():
        fields, _, rest = line.partition(" - ")
        if fields.split(" ", 3)[2] == wanted:
            return rest.split(" ", 1)[0]
    return None
