"""Opening a file that nobody but root and the agent's own user can have changed, and knowing that it is that file.

A path is walked by descriptors, folder by folder, and no link is followed on the way: what another process renames
meanwhile has no effect on what was opened. Access control lists need no look of their own: what they grant at most
shows in the group's bits.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePath

from opsmap_agent.commands.refusals import NotStartedError, RejectedError

_ROOT = PurePath("/")
_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


@contextmanager
def trusted_file(path: PurePath, *, base: PurePath) -> Iterator[tuple[int, os.stat_result]]:
    """A readable descriptor of the regular file at `path`, an absolute path without links, and what it is.

    Folders above `base` may be writable by everybody if they are sticky, as /tmp is: what is in them cannot be renamed
    by others. `base` itself and all below may not.

    Raises:
        RejectedError: somebody else could have changed it; the message says where.
        NotStartedError: it does not exist, or cannot be read.
    """
    descriptor = _walk(path, base)
    try:
        status = os.fstat(descriptor)
        _check_file(path, status)
        # Opened for reading only now that it is known to be a file: opening a device or pipe may do something.
        try:
            readable = os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_CLOEXEC)
        except PermissionError:
            raise NotStartedError(f"permission denied: the agent cannot read {path}") from None
        try:
            yield readable, status
        finally:
            os.close(readable)
    finally:
        os.close(descriptor)


def _walk(path: PurePath, base: PurePath) -> int:
    """The descriptor (O_PATH) of what is at `path`, also if that is a link."""
    current = os.open(_ROOT, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        walked = _ROOT
        for name in path.parts[1:]:
            _check_folder(walked, os.fstat(current), may_be_sticky=not walked.is_relative_to(base))
            entered = _enter(name, current, walked / name)
            os.close(current)
            current, walked = entered, walked / name
    except BaseException:
        os.close(current)
        raise
    return current


def _enter(name: str, folder: int, path: PurePath) -> int:
    try:
        return os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    except PermissionError:
        raise NotStartedError(f"permission denied: {path} cannot be reached") from None
    except OSError as error:
        raise NotStartedError(f"{path} does not exist ({error.strerror})") from None


def _check_folder(path: PurePath, status: os.stat_result, *, may_be_sticky: bool) -> None:
    if stat.S_ISLNK(status.st_mode):
        raise RejectedError(f"{path} is a link, and links are not followed here")
    if not stat.S_ISDIR(status.st_mode):
        raise NotStartedError(f"{path} is not a folder")
    _check_owner(path, status)
    is_sticky = bool(status.st_mode & stat.S_ISVTX)
    if status.st_mode & _WRITABLE_BY_OTHERS and not (may_be_sticky and is_sticky):
        raise RejectedError(f"the folder {path} is writable by its group or others: anybody could swap what is in it")


def _check_file(path: PurePath, status: os.stat_result) -> None:
    if stat.S_ISLNK(status.st_mode):
        raise RejectedError(f"{path} is a link, and links are not followed here")
    if not stat.S_ISREG(status.st_mode):
        raise RejectedError(f"{path} is not a regular file")
    _check_owner(path, status)
    if status.st_mode & _WRITABLE_BY_OTHERS:
        raise RejectedError(f"{path} is writable by its group or others")
    if status.st_nlink != 1 and status.st_uid != 0:
        # Everybody may link to a file of ours on some systems; only root can link to one of root's on all.
        raise RejectedError(f"{path} has {status.st_nlink} names (hard links), so it is also elsewhere")


def _check_owner(path: PurePath, status: os.stat_result) -> None:
    if status.st_uid not in (0, os.geteuid()):
        raise RejectedError(f"{path} belongs to user {status.st_uid}, neither root nor the agent's own user")
