"""Log lines that stay lines: what hosts say gets into messages, and must not act or look like ours."""

from __future__ import annotations

import logging
from types import TracebackType

_CONTROLS = [*range(32), *range(127, 160), 0x2028, 0x2029]
_REORDERING = [0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
"""Make a terminal show the text in another order than it is written in (Unicode's bidirectional controls)."""

_ESCAPED = {code: f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" for code in (*_CONTROLS, *_REORDERING)}
_ESCAPED_IN_BLOCKS = {code: text for code, text in _ESCAPED.items() if chr(code) not in "\n\t"}

_Trace = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


class LineFormatter(logging.Formatter):
    """A record's message is one line whatever is in it; a traceback keeps its lines, and nothing else that acts."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name is the library's
        return super().formatMessage(record).translate(_ESCAPED)

    def formatException(self, ei: _Trace) -> str:  # noqa: N802 - the name is the library's
        return super().formatException(ei).translate(_ESCAPED_IN_BLOCKS)

    def formatStack(self, stack_info: str) -> str:  # noqa: N802 - the name is the library's
        return super().formatStack(stack_info).translate(_ESCAPED_IN_BLOCKS)
