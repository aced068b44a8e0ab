"""The output of one job on disk: written by the command itself, kept within a size by the agent, read by offsets.

Offsets count what the command has written since it began, and stay true when the oldest part goes. The command appends
to a file that it has open, so nothing can be moved under it: the oldest part becomes a hole, which takes no space.
Where the file system knows no holes, the newest half is written to the beginning and the file is cut behind it; what
the command prints in that very moment is lost then. `output.gone` says what was done: two numbers, the bytes that are
gone, and by how many the rest has moved.
"""

from __future__ import annotations

import ctypes
import errno
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import BinaryIO

_KEEP_SIZE, _PUNCH_HOLE = 0x01, 0x02
_BLOCK_BYTES = 4096
_COPY_BYTES = 1024 * 1024
_READ_TRIES = 3
_SLACK = 8
"""A log may grow by this part of its limit before it is cut again."""


@dataclass(frozen=True, slots=True)
class LogSlice:
    """A piece of a job's output. `offset` is where `text` begins, `next_offset` where to go on reading, in bytes.

    `gone` is how many bytes at the beginning are not there any more; `size` counts them too.
    """

    text: str
    size: int
    offset: int
    next_offset: int
    is_truncated: bool
    gone: int = 0


@dataclass(frozen=True, slots=True)
class JobLog:
    path: Path

    def read(self, max_bytes: int, offset: int | None = None) -> LogSlice:
        """Up to `max_bytes` of output from `offset`, or its end. Bytes that are not UTF-8 become U+FFFD."""
        try:
            with self.path.open("rb") as log:
                gone, moved, size, start, raw = self._read_once(log, max_bytes, offset)
                # What went while it was being read would show as zeros: look again, but not for ever.
                for _ in range(_READ_TRIES):
                    if self._gone() == (gone, moved):
                        break
                    gone, moved, size, start, raw = self._read_once(log, max_bytes, offset)
        except FileNotFoundError:
            return LogSlice("", 0, 0, 0, is_truncated=False)
        head, tail = _partial_characters(raw, is_start=start == 0)
        body = raw[head : len(raw) - tail]
        first = start + head
        next_offset = first + len(body)
        is_truncated = first > 0 if offset is None else next_offset + tail < size
        return LogSlice(body.decode("utf-8", "replace"), size, first, next_offset, is_truncated, gone)

    def limit(self, max_bytes: int) -> None:
        """Let go of the oldest part of a log that is larger than that. Raises OSError."""
        try:
            size = self.path.stat().st_size
        except FileNotFoundError:
            return
        gone, moved = self._gone()
        if size + moved - gone <= max_bytes + max_bytes // _SLACK:
            return
        with self.path.open("r+b") as log:
            new_gone = (size - max_bytes) // _BLOCK_BYTES * _BLOCK_BYTES
            # Told before it is done: whoever reads meanwhile must not take the hole for output.
            if moved == 0 and self._tell(new_gone, 0) and _punch(log.fileno(), new_gone):
                return
            self._cut(log.fileno(), max_bytes // 2, moved)

    def _read_once(self, log: BinaryIO, max_bytes: int, offset: int | None) -> tuple[int, int, int, int, bytes]:
        """What is gone, by how much the rest has moved, the size, where the piece begins, and the piece."""
        gone, moved = self._gone()
        size = os.fstat(log.fileno()).st_size + moved
        begin = max(0, size - max_bytes) if offset is None else min(offset, size)
        start = min(max(begin, gone), size)
        log.seek(start - moved)
        return gone, moved, size, start, log.read(max_bytes)

    def _cut(self, log: int, keep_bytes: int, moved: int) -> None:
        size = os.fstat(log).st_size
        start, place = size - keep_bytes, 0
        # Until nothing has come meanwhile: what is read last is what was written last.
        while piece := os.pread(log, _COPY_BYTES, start + place):
            os.pwrite(log, piece, place)
            place += len(piece)
        os.ftruncate(log, place)
        self._tell(moved + start, moved + start)

    def _gone(self) -> tuple[int, int]:
        try:
            words = self._record.read_text(encoding="ascii").split()
        except (FileNotFoundError, UnicodeDecodeError):
            return 0, 0
        return (int(words[0]), int(words[1])) if len(words) == 2 and all(map(str.isdigit, words)) else (0, 0)

    def _tell(self, gone: int, moved: int) -> bool:
        new = self._record.with_suffix(".new")
        new.write_text(f"{gone} {moved}\n", encoding="ascii")
        new.replace(self._record)
        return True

    @property
    def _record(self) -> Path:
        return self.path.with_suffix(".gone")


def _punch(descriptor: int, length: int) -> bool:
    """Give the first `length` bytes back to the file system; False where it cannot. Raises OSError."""
    libc = _libc()
    if libc.fallocate64(descriptor, _PUNCH_HOLE | _KEEP_SIZE, 0, length) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EOPNOTSUPP, errno.ENOSYS):
        return False
    raise OSError(number, os.strerror(number))


@cache
def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.fallocate64.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    return libc


def _partial_characters(raw: bytes, *, is_start: bool) -> tuple[int, int]:
    """How many bytes at both ends belong to UTF-8 characters that the slice cut in two."""
    head = 0
    while not is_start and head < min(3, len(raw)) and raw[head] & 0xC0 == 0x80:
        head += 1
    for back in range(1, min(4, len(raw) - head) + 1):
        byte = raw[-back]
        if byte & 0xC0 == 0x80:
            continue
        length = 4 if byte >= 0xF0 else 3 if byte >= 0xE0 else 2 if byte >= 0xC0 else 1
        return head, back if back < length else 0
    return head, 0
