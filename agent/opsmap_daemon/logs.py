"""Logs of a daemon: text for people or one JSON object a line, to standard error or to a rotated file."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from opsmap_daemon.configuration import at_least, between, setting
from opsmap_daemon.log_file import LogFile

_LEVELS = {
    "trace": logging.DEBUG,
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "error": logging.ERROR,
}
_CONTROLS = (*range(32), *range(127, 160))
_DIRECTIONS_AND_LINES = (0x061C, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A), 0xFEFF)
"""What makes a text look other than it is: marks that turn the direction of writing, and separators of lines."""
_ESCAPED = {code: f"\\x{code:02x}" for code in _CONTROLS} | {code: f"\\u{code:04x}" for code in _DIRECTIONS_AND_LINES}
_LIBRARY_FIELDS = {"message", "asctime", "taskName", "websocket"}
_STANDARD_FIELDS = frozenset(logging.makeLogRecord({}).__dict__) | _LIBRARY_FIELDS


Level = Literal["trace", "debug", "info", "warn", "error"]


@dataclass(frozen=True)
class Logging:
    """The `logging` section of both daemons.

    Without `file`, lines go to standard error, where systemd and containers pick them up, and nothing is rotated.
    `trace` is `debug` plus every frame of the WebSocket library.
    """

    level: Level = "info"
    file: Path | None = None
    max_size_mb: int = setting(50, rule=at_least(1))
    max_files: int = setting(5, rule=between(1, 1_000))
    """How many full files are kept beside the one that is written."""
    compress: bool = False
    format: Literal["json", "text"] = "text"
    include_timestamps: bool = True
    include_target: bool = True
    """The module that wrote the line."""
    include_span: bool = False
    """In the course of what it was written: the name of the task, such as the command or the health check."""


def configure(settings: Logging) -> None:
    """Direct the root logger of this process. Raises OSError if the file cannot be opened."""
    handler = _handler(settings)
    handler.setFormatter(_JsonFormatter(settings) if settings.format == "json" else _text_formatter(settings))
    if settings.include_span:
        handler.addFilter(_add_span)
    logging.basicConfig(handlers=[handler], force=True)
    set_level(settings.level)


def set_level(level: Level) -> None:
    """What is written from now on."""
    logging.getLogger().setLevel(_LEVELS[level])
    # The library tells of each connection at its own info level; ours say it better.
    logging.getLogger("websockets").setLevel(logging.DEBUG if level == "trace" else logging.WARNING)
    logging.getLogger("asyncio").setLevel(logging.WARNING)


def _add_span(record: logging.LogRecord) -> bool:
    try:
        task = asyncio.current_task()
    except RuntimeError:  # another thread, or no event loop
        task = None
    record.span = "" if task is None else task.get_name()
    return True


def _handler(settings: Logging) -> logging.Handler:
    if settings.file is None:
        return logging.StreamHandler(sys.stderr)
    return LogFile(
        settings.file,
        max_bytes=settings.max_size_mb * 1024 * 1024,
        max_files=settings.max_files,
        is_compressed=settings.compress,
    )


def on_one_line(text: str) -> str:
    """The text with everything escaped that would make it look like another, or like more lines."""
    return text.translate(_ESCAPED)


class _TextFormatter(logging.Formatter):
    """Keeps a record on its line: what peers send gets into messages, and must not look like lines of ours.

    A traceback keeps its lines, all of them indented: it may quote a peer as well.
    """

    def format(self, record: logging.LogRecord) -> str:
        lines = super().format(record).split("\n")
        return "\n    ".join(on_one_line(line) for line in lines)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name is the library's
        return on_one_line(super().formatMessage(record))


def _text_formatter(settings: Logging) -> logging.Formatter:
    parts = ["%(asctime)s"] if settings.include_timestamps else []
    parts.append("%(levelname)-7s")
    if settings.include_target:
        parts.append("%(name)s:")
    if settings.include_span:
        parts.append("[%(span)s]")
    parts.append("%(message)s")
    return _TextFormatter(" ".join(parts))


class _JsonFormatter(logging.Formatter):
    """One object a line; whatever a caller passes in `extra` becomes a key of its own."""

    def __init__(self, settings: Logging) -> None:
        super().__init__()
        self._settings = settings

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {}
        if self._settings.include_timestamps:
            line["time"] = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line["level"] = record.levelname.lower()
        if self._settings.include_target:
            line["target"] = record.name
        line["message"] = record.getMessage()
        line.update((key, value) for key, value in record.__dict__.items() if key not in _STANDARD_FIELDS)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)
