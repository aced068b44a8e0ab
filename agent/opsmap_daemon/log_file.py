"""A log file that a daemon can live with for years: bounded, rotated, and never the reason that the daemon stops.

A full disk loses lines, counts them, and says so when there is room again. A file that somebody has moved or removed
is made anew. Old files are compressed in a thread of their own: 50 MB take seconds.
"""

from __future__ import annotations

import logging
import os
import shutil
import threading
from pathlib import Path

_MODE = 0o640


class LogFile(logging.Handler):
    """Writes each record as one line, or some lines if it has a traceback.

    Args:
        max_bytes: the file is rotated before it would be larger.
        max_files: how many former files are kept, as `NAME.1` (the newest) and so on, with `.gz` if compressed.

    Raises:
        OSError: the file cannot be opened.
    """

    def __init__(self, path: Path, *, max_bytes: int, max_files: int, is_compressed: bool) -> None:
        super().__init__()
        self._path = path
        self._max_bytes = max_bytes
        self._max_files = max_files
        self._is_compressed = is_compressed
        self._compressing: threading.Thread | None = None
        self._lost_lines = 0
        self._descriptor = -1
        self._size = 0
        self._open()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = _encode(self.format(record))
        except Exception:
            # Arguments that do not fit their text: a fault of ours, to be seen on standard error.
            self.handleError(record)
            return
        try:
            self._make_ready(len(line))
            if self._lost_lines:
                self._write(self._tell_of_lost_lines())
                self._lost_lines = 0
            self._write(line)
        except OSError:
            self._lost_lines += 1

    def close(self) -> None:
        with self.lock or threading.Lock():
            if self._descriptor >= 0:
                os.close(self._descriptor)
                self._descriptor = -1
        if self._compressing is not None:
            self._compressing.join()
        super().close()

    def _open(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, _MODE)
        self._size = os.fstat(self._descriptor).st_size

    def _make_ready(self, more: int) -> None:
        if not self._is_in_place():
            self._open()
        if self._size and self._size + more > self._max_bytes:
            try:
                self._rotate()
            except OSError:
                # No room or no right to rename: a file that is too large is better than no log.
                self._open()

    def _is_in_place(self) -> bool:
        """Whether the name still leads to what we write to."""
        if self._descriptor < 0:
            return False
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return False
        own = os.fstat(self._descriptor)
        return (found.st_dev, found.st_ino) == (own.st_dev, own.st_ino)

    def _write(self, line: bytes) -> None:
        """The whole line or nothing of it. Raises OSError."""
        try:
            written = os.write(self._descriptor, line)
            while written < len(line):
                written += os.write(self._descriptor, line[written:])
        except OSError:
            os.ftruncate(self._descriptor, self._size)
            raise
        self._size += len(line)

    def _tell_of_lost_lines(self) -> bytes:
        text = f"{self._lost_lines} lines before the next one could not be written"
        record = logging.LogRecord(__name__, logging.WARNING, __file__, 0, text, None, None)
        self.filter(record)
        return _encode(self.format(record))

    # Rotation

    def _rotate(self) -> None:
        if self._compressing is not None:
            self._compressing.join()
        for number in range(self._max_files, 0, -1):
            for ending in ("", ".gz"):
                former = self._former(number, ending)
                if number == self._max_files:
                    former.unlink(missing_ok=True)
                elif former.exists():
                    former.rename(self._former(number + 1, ending))
        newest = self._former(1, "")
        self._path.rename(newest)
        self._open()
        if self._is_compressed:
            self._compressing = threading.Thread(target=_compress, args=(newest,), name="compress log", daemon=True)
            self._compressing.start()

    def _former(self, number: int, ending: str) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}{ending}")


def _encode(line: str) -> bytes:
    return line.encode("utf-8", "backslashreplace") + b"\n"


def _compress(path: Path) -> None:
    # Loaded when it is needed: an agent has to stay small.
    import gzip

    packed = path.with_name(path.name + ".gz")
    partial = path.with_name(path.name + ".part")
    try:
        raw = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, _MODE)
        with path.open("rb") as plain, os.fdopen(raw, "wb") as file, gzip.GzipFile("", "wb", 6, file) as to:
            shutil.copyfileobj(plain, to)
        partial.rename(packed)
        path.unlink()
    except OSError:
        # It stays as it is, and goes in its turn.
        partial.unlink(missing_ok=True)
