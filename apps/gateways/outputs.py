"""Reading what a command printed: from the pieces that were kept of it, or from its result if it was small."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.db.models import Subquery
from django.db.models.functions import Length

from apps.gateways.models import Command, CommandOutput
from opsmap_protocol.enums import OutputStream

MAX_PIECES = 2000
"""Read at once: an agent may have cut its output into very small ones."""


@dataclass(frozen=True, slots=True)
class OutputSlice:
    """A part of a stream; all figures are characters.

    `total` is how much was printed, None while nobody knows; `kept` how much of it is here so far. `next_offset` is
    where to read on, None at the end of a command that has ended. `is_truncated`: something printed was not kept.
    """

    text: str
    offset: int
    next_offset: int | None
    total: int | None
    kept: int
    is_truncated: bool


def read_output(command: Command, stream: OutputStream, *, offset: int, limit: int) -> OutputSlice:
    """Up to `limit` characters from `offset` on. No more of a long output than that is ever in memory."""
    kept = _count_kept(command, stream)
    if kept is None:
        return _read_inline(command, stream, offset, limit)
    text = _read_pieces(command, stream, offset, limit)
    end = offset + len(text)
    is_at_end = not command.is_open and (end >= kept or not text)
    total = _facts(command.output, stream).get("total")
    is_truncated = total is not None and total > kept
    return OutputSlice(text, offset, None if is_at_end else end, total, kept, is_truncated)


def _count_kept(command: Command, stream: OutputStream) -> int | None:
    """How far the pieces reach; None if there are none."""
    pieces = CommandOutput.objects.filter(command=command, stream=stream)
    last = pieces.order_by("-offset").annotate(length=Length("text")).values_list("offset", "length").first()
    return None if last is None else last[0] + last[1]


def _read_pieces(command: Command, stream: OutputStream, offset: int, limit: int) -> str:
    """What the pieces hold without a gap from `offset` on: one that has not come yet ends it."""
    pieces = CommandOutput.objects.filter(command=command, stream=stream)
    first = pieces.filter(offset__lte=offset).order_by("-offset").values("offset")[:1]
    end = offset + limit
    wanted = pieces.filter(offset__gte=Subquery(first), offset__lt=end).order_by("offset")
    parts: list[str] = []
    position = offset
    for begin, text in wanted.values_list("offset", "text")[:MAX_PIECES]:
        if begin > position:
            break
        part = text[position - begin : end - begin]
        parts.append(part)
        position += len(part)
    return "".join(parts)


def _read_inline(command: Command, stream: OutputStream, offset: int, limit: int) -> OutputSlice:
    """A small output travels in the result. Of a job's log the end does, cut from nobody knows how much."""
    result = command.result if isinstance(command.result, dict) else {}
    facts = _facts(result.get("output"), stream)
    is_cut = result.get("is_truncated") is True if not facts else facts["total"] > facts["kept"]
    if stream is OutputStream.LOG:
        whole, total = command.log_tail, None
    else:
        printed = result.get(stream)
        whole = printed if isinstance(printed, str) else ""
        total = facts.get("total", None if is_cut or command.is_open else len(whole))
    text = whole[offset : offset + limit]
    end = offset + len(text)
    has_more = command.is_open or end < len(whole)
    return OutputSlice(text, offset, end if has_more else None, total, len(whole), is_cut)


def _facts(output: Any, stream: OutputStream) -> dict[str, int]:
    """What an agent says of a stream: `total` and `kept`, or nothing."""
    facts = output.get(stream) if isinstance(output, dict) else None
    if not isinstance(facts, dict) or not all(isinstance(facts.get(name), int) for name in ("total", "kept")):
        return {}
    return facts
