"""Files of the host: whether they are there, what they are, and what they hold."""

from __future__ import annotations

import base64
import hashlib
import os
import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, TypedDict

from opsmap_agent.commands.refusals import RejectedError
from opsmap_agent.native.opening import check_path, described, regular_file
from opsmap_agent.native.registry import NativeCommandError, NativeContext, native

_MAX_READ_BYTES = 256 * 1024
"""Four times as much fits an answer even if each byte has to be escaped."""

_PIECE_BYTES = 1024 * 1024
_MAX_OFFSET = 2**63 - 1
_FIRST_TIME, _LAST_TIME = datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)

Algorithm = Literal["md5", "sha256", "sha512"]
_ALGORITHMS: tuple[Algorithm, ...] = ("md5", "sha256", "sha512")


class FileExistence(TypedDict):
    exists: bool
    is_file: bool
    is_dir: bool


class FileStat(TypedDict):
    size: int
    mode: str
    uid: int
    gid: int
    mtime: str
    atime: str
    ctime: str


class FileContent(TypedDict):
    content: str
    encoding: str
    size: int
    offset: int
    next_offset: int
    truncated: bool


class FileChecksum(TypedDict):
    checksum: str
    algorithm: str


@native("file_exists", limit_s=10)
def file_exists(context: NativeContext, *, path: str) -> FileExistence:
    """Links are followed: one to nowhere does not exist."""
    check_path(path)
    try:
        mode = Path(path).stat().st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return {"exists": False, "is_file": False, "is_dir": False}
    except OSError as error:
        raise described(path, error) from None
    return {"exists": True, "is_file": stat.S_ISREG(mode), "is_dir": stat.S_ISDIR(mode)}


@native("file_stat", limit_s=10)
def file_stat(context: NativeContext, *, path: str) -> FileStat:
    """Links are followed. `mode` is octal without the kind, times are in UTC and ISO 8601."""
    check_path(path)
    try:
        found = Path(path).stat()
    except (OSError, ValueError) as error:
        raise described(path, error) from None
    return {
        "size": found.st_size,
        "mode": f"{stat.S_IMODE(found.st_mode):04o}",
        "uid": found.st_uid,
        "gid": found.st_gid,
        "mtime": iso_time(found.st_mtime),
        "atime": iso_time(found.st_atime),
        "ctime": iso_time(found.st_ctime),
    }


@native("file_read", limit_s=15)
def file_read(context: NativeContext, *, path: str, max_bytes: int = 64 * 1024, offset: int = 0) -> FileContent:
    """At most `max_bytes` (and 262,144) of a file from `offset` on; `next_offset` is where to go on.

    `encoding` says what `content` is: `utf-8`, never cut within a character, or `base64` for what is no such text.
    Refused are devices, pipes, what is inside of processes (as /proc/PID/environ), and the agent's own key and journal.
    """
    if max_bytes < 1 or not 0 <= offset <= _MAX_OFFSET:
        raise RejectedError("native command 'file_read': max_bytes is at least 1, offset at least 0")
    wanted = min(max_bytes, _MAX_READ_BYTES)
    with regular_file(context, path) as descriptor:
        data = _read_at(descriptor, offset, wanted + 1)
        size = os.fstat(descriptor).st_size
    is_more = len(data) > wanted
    data, text = _as_text(data[:wanted], is_more=is_more)
    return {
        "content": base64.b64encode(data).decode("ascii") if text is None else text,
        "encoding": "base64" if text is None else "utf-8",
        "size": size,
        "offset": offset,
        "next_offset": offset + len(data),
        "truncated": is_more,
    }


@native("file_checksum", limit_s=60)
def file_checksum(context: NativeContext, *, path: str, algorithm: str = "sha256") -> FileChecksum:
    """The checksum of a file, in hexadecimal. `algorithm` is md5, sha256 or sha512. Refused is what file_read refuses.

    About a gigabyte a second; a file that takes longer than the limit gets no answer.
    """
    if algorithm not in _ALGORITHMS:
        raise RejectedError(f"native command 'file_checksum': algorithm is one of {', '.join(_ALGORITHMS)}")
    try:
        digest = hashlib.new(algorithm, usedforsecurity=False)
    except ValueError:
        raise NativeCommandError(f"this host's OpenSSL does not allow {algorithm}") from None
    buffer = memoryview(bytearray(_PIECE_BYTES))
    with regular_file(context, path) as descriptor:
        while count := os.readv(descriptor, [buffer]):
            digest.update(buffer[:count])
            if context.is_abandoned.is_set():
                raise NativeCommandError("nobody waits any more")
    return {"checksum": digest.hexdigest(), "algorithm": algorithm}


def iso_time(seconds: float) -> str:
    """UTC, ISO 8601; a time that no calendar has is the nearest one."""
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat()
    except (ValueError, OverflowError, OSError):
        return (_LAST_TIME if seconds > 0 else _FIRST_TIME).isoformat()


def _read_at(descriptor: int, offset: int, count: int) -> bytes:
    """Files of /proc and /sys give a little at a time, and none of them says its size."""
    data = b""
    while len(data) < count:
        piece = os.pread(descriptor, count - len(data), offset + len(data))
        if not piece:
            break
        data += piece
    return data


def _as_text(data: bytes, *, is_more: bool) -> tuple[bytes, str | None]:
    """The bytes, without a character that is only begun at the end if more follow, and their text if they are one."""
    whole = len(data)
    for left_off in range(min(4, whole) if is_more else 1):
        try:
            text = data[: whole - left_off].decode("utf-8")
        except UnicodeDecodeError:
            continue
        return (data, None) if "\0" in text or (not text and whole) else (data[: whole - left_off], text)
    return data, None
