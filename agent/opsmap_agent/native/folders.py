"""What is in a folder."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import PurePath
from typing import TypedDict

from opsmap_agent.commands.refusals import RejectedError
from opsmap_agent.native.bounds import Cut, bounded
from opsmap_agent.native.files import iso_time
from opsmap_agent.native.opening import check_path, described
from opsmap_agent.native.registry import NativeContext, native

_MAX_DEPTH = 32
_DEFAULT_DEPTH = 8
_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NONBLOCK


class FolderEntry(TypedDict):
    name: str
    path: str
    is_dir: bool
    size: int
    mtime: str


@native("dir_list", limit_s=30)
def dir_list(
    context: NativeContext, *, path: str, recursive: bool = False, max_depth: int | None = None
) -> list[FolderEntry] | Cut[FolderEntry]:
    """What is in a folder, and with `recursive` in those below it, at most `max_depth` (8, never above 32) levels.

    Links are listed as what they are and not followed. Entries come in the order of the file system, the content of a
    folder after its siblings. What cannot be looked into below the folder itself is left out.
    """
    check_path(path)
    if max_depth is not None and not 1 <= max_depth <= _MAX_DEPTH:
        raise RejectedError(f"native command 'dir_list': max_depth is between 1 and {_MAX_DEPTH}")
    depth = (max_depth or _DEFAULT_DEPTH) if recursive else 1
    try:
        descriptor = os.open(path, _OPEN_FOLDER)
    except (OSError, ValueError) as error:
        raise described(path, error) from None
    return bounded(_entries(context, descriptor, PurePath(path), depth), "entries")


def _entries(context: NativeContext, descriptor: int, path: PurePath, depth: int) -> Iterator[FolderEntry]:
    """Takes the descriptor over. Folders below are opened by their names in it, so that no link leads anywhere else."""
    folders: list[str] = []
    try:
        with os.scandir(descriptor) as found:
            for entry in found:
                if context.is_abandoned.is_set():
                    return
                try:
                    state = entry.stat(follow_symlinks=False)
                except OSError:
                    continue  # It has just been removed.
                is_folder = stat.S_ISDIR(state.st_mode)
                if is_folder and depth > 1:
                    folders.append(entry.name)
                yield {
                    "name": entry.name,
                    "path": str(path / entry.name),
                    "is_dir": is_folder,
                    "size": state.st_size,
                    "mtime": iso_time(state.st_mtime),
                }
        for name in folders:
            try:
                below = os.open(name, _OPEN_FOLDER | os.O_NOFOLLOW, dir_fd=descriptor)
            except OSError:
                continue
            yield from _entries(context, below, path / name, depth - 1)
    finally:
        os.close(descriptor)
