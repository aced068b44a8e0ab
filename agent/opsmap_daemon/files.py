"""Files that are there whole or not at all, whatever crashes when."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def write_whole(path: Path, text: str, mode: int) -> None:
    """Write and make durable a file that may exist already. Raises OSError.

    Behind a symbolic link it is the file itself that is replaced. Root leaves it to the owner of its folder: whoever
    may put files there, an account of its own perhaps, has to read them as well.
    """
    target = path.resolve()
    place(write_beside(target, text, mode), target)


def write_beside(path: Path, text: str, mode: int) -> Path:
    """Write a file to replace `path` later, by `place`; where it is. Raises OSError."""
    temporary = beside(path)
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        os.fchmod(descriptor, mode)
        if os.geteuid() == 0:
            folder = path.parent.stat()
            os.fchown(descriptor, folder.st_uid, folder.st_gid)
        stream.write(text)
        stream.flush()
        os.fsync(descriptor)
    return temporary


def beside(path: Path) -> Path:
    """Where the next content of a file waits."""
    return path.with_name(path.name + ".next")


def place(temporary: Path, path: Path) -> None:
    temporary.replace(path)
    sync_folder(path.parent)


@contextmanager
def folder_locked(folder: Path) -> Iterator[None]:
    """Alone with the files of a folder, among the processes that ask. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
