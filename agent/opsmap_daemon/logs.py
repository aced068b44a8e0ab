"""Logs of a daemon: text for people or one JSON object a line, to standard error or to a rotated file."""

from __future__ import annotations

import gzip
import json
import logging
import logging.handlers
import shutil
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from opsmap_daemon.configuration import at_least, setting

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


@dataclass(frozen=True)
class Logging:
    """The `logging` section of both daemons.

    Without `file`, lines go to standard error, where systemd and containers pick them up. `trace` is `debug`
    plus every frame of the WebSocket library. `include_span` has no effect: there are no spans.
    """

    level: Literal["trace", "debug", "info", "warn", "error"] = "info"
    file: Path | None = None
    max_size_mb: int = setting(50, rule=at_least(1))
    max_files: int = setting(5, rule=at_least(1))
    compress: bool = False
    format: Literal["json", "text"] = "text"
    include_timestamps: bool = True
    include_target: bool = True
    include_span: bool = False


def configure(settings: Logging) -> None:
    """Direct the root logger of this process. Raises OSError if the file cannot be opened."""
    handler = _handler(settings)
    handler.setFormatter(_JsonFormatter(settings) if settings.format == "json" else _text_formatter(settings))
    logging.basicConfig(level=_LEVELS[settings.level], handlers=[handler], force=True)
    # The library tells of each connection at its own info level; ours say it better.
    logging.getLogger("websockets").setLevel(logging.DEBUG if settings.level == "trace" else logging.WARNING)
    logging.getLogger("asyncio").setLevel(logging.WARNING)


def _handler(settings: Logging) -> logging.Handler:
    if settings.file is None:
        return logging.StreamHandler(sys.stderr)
    settings.file.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.handlers.RotatingFileHandler(
        settings.file,
        maxBytes=settings.max_size_mb * 1024 * 1024,
        backupCount=settings.max_files,
        encoding="utf-8",
        errors="backslashreplace",
    )
    if settings.compress:
        handler.namer = lambda name: name + ".gz"
        handler.rotator = _compress
    return handler


def _compress(source: str, destination: str) -> None:
    with Path(source).open("rb") as plain, gzip.open(destination, "wb") as packed:
        shutil.copyfileobj(plain, packed)
    Path(source).unlink()


class _TextFormatter(logging.Formatter):
    """Keeps a record on its line: what peers send gets into messages, and must not look like lines of ours.

    A traceback keeps its lines, all of them indented: it may quote a peer as well.
    """

    def format(self, record: logging.LogRecord) -> str:
        lines = super().format(record).split("\n")
        return "\n    ".join(line.translate(_ESCAPED) for line in lines)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name is the library's
        return super().formatMessage(record).translate(_ESCAPED)


def _text_formatter(settings: Logging) -> logging.Formatter:
    parts = ["%(asctime)s"] if settings.include_timestamps else []
    parts.append("%(levelname)-7s")
    if settings.include_target:
        parts.append("%(name)s:")
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
