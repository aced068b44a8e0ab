"""What the supervisor shows: each process's lines with its name in front; the same lines go to log files."""

import os
import re
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO, TextIO

# Colours of the prefixes (ANSI, readable on dark and light), given out in the order in which names appear.
PREFIX_COLOURS = (36, 32, 35, 34, 33, 96, 92, 95, 94)
OWN_NAME = "opsmap"
BOLD, RED, YELLOW, DIM = 1, 31, 33, 2
MAX_LOG_BYTES = 8 * 1024 * 1024
TAIL_LINES = 12
# A log line is data: it may not move the cursor, change the title or forge the prefix of another process.
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class LogFile:
    """An append-only file, private to its owner; at its limit it becomes `<name>.1` and a new one begins."""

    def __init__(self, path: Path, *, max_bytes: int = MAX_LOG_BYTES) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._file = self._open()
        self._size = self._file.tell()

    def write(self, line: str) -> None:
        encoded = line.encode("utf-8", "replace") + b"\n"
        if self._size and self._size + len(encoded) > self._max_bytes:
            self._file.close()
            self._path.replace(self._path.with_name(f"{self._path.name}.1"))
            self._file = self._open()
            self._size = 0
        self._file.write(encoded)
        self._size += len(encoded)

    def close(self) -> None:
        self._file.close()

    def _open(self) -> BinaryIO:
        def private(name: str, flags: int) -> int:
            return os.open(name, flags | os.O_NOFOLLOW, 0o600)

        return open(self._path, "ab", buffering=0, opener=private)


class Output:
    """The terminal and the log folder of one run.

    A terminal that has gone away (a closed window, `| head`) silences the output and calls `on_gone` once; the log
    files go on. With `is_quiet` the terminal shows the supervisor's own lines only.
    """

    def __init__(
        self,
        stream: TextIO,
        logs: Path | None,
        *,
        environment: Mapping[str, str],
        names: tuple[str, ...] = (),
        is_quiet: bool = False,
    ) -> None:
        self._stream = stream
        self._logs = logs
        self._files: dict[str, LogFile] = {}
        self._tails: dict[str, deque[str]] = {}
        self._colours: dict[str, int] = {}
        self._width = max((len(name) for name in (*names, OWN_NAME)), default=0)
        self._is_coloured = stream.isatty() and "NO_COLOR" not in environment and environment.get("TERM") != "dumb"
        self._is_quiet = is_quiet
        self._is_gone = False
        self.on_gone: Callable[[], None] | None = None
        if logs is not None:
            logs.mkdir(mode=0o700, exist_ok=True)

    @property
    def can_draw(self) -> bool:
        """Whether box-drawing characters can be encoded."""
        return (self._stream.encoding or "ascii").lower().replace("-", "") == "utf8"

    def line(self, name: str, text: str, *, is_shown: bool = True) -> None:
        """One line of a child: into its log file, its tail and, unless it is noise, onto the terminal."""
        self._tails.setdefault(name, deque(maxlen=TAIL_LINES)).append(text)
        self._log(name, text)
        if is_shown and not self._is_quiet:
            self._print(f"{self._prefix(name)} {CONTROL.sub('', text)}")

    def say(self, text: str, *codes: int) -> None:
        """One line of the supervisor's own."""
        self._log(OWN_NAME, text)
        self._print(f"{self._prefix(OWN_NAME)} {self.paint(text, *(codes or (BOLD,)))}")

    def warn(self, text: str) -> None:
        self.say(text, YELLOW)

    def fail(self, text: str) -> None:
        self.say(text, BOLD, RED)

    def plain(self, text: str) -> None:
        """Text without a prefix: the box."""
        self._print(text)

    def tail(self, name: str) -> tuple[str, ...]:
        """The last lines of a child, for the message about its end."""
        return tuple(self._tails.get(name, ()))

    def paint(self, text: str, *codes: int) -> str:
        if not self._is_coloured:
            return text
        return f"\x1b[{';'.join(map(str, codes))}m{text}\x1b[0m"

    def close(self) -> None:
        for file in self._files.values():
            file.close()
        self._files.clear()

    def _prefix(self, name: str) -> str:
        if name == OWN_NAME:
            return self.paint(f"{name:<{self._width}} |", BOLD)
        colour = self._colours.setdefault(name, PREFIX_COLOURS[len(self._colours) % len(PREFIX_COLOURS)])
        return self.paint(f"{name:<{self._width}} |", colour)

    def _log(self, name: str, text: str) -> None:
        if self._logs is None:
            return
        if name not in self._files:
            self._files[name] = LogFile(self._logs / f"{name}.log")
        self._files[name].write(text)

    def _print(self, text: str) -> None:
        if self._is_gone:
            return
        try:
            print(
                text.encode(self._stream.encoding or "ascii", "replace").decode(self._stream.encoding or "ascii"),
                file=self._stream,
                flush=True,
            )
        except OSError:
            self._lose_terminal()

    def _lose_terminal(self) -> None:
        """Nobody reads any more (EPIPE, EIO). Python would complain again when it flushes at exit."""
        self._is_gone = True
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, self._stream.fileno())
        os.close(silence)
        if self.on_gone is not None:
            self.on_gone()
