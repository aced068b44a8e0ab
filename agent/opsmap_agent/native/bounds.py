"""Answers that fit: lists are cut by count and by size, and say so."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

Entry = TypeVar("Entry")

MAX_ENTRIES = 5_000
_MAX_BYTES = 1024 * 1024
_PER_VALUE_BYTES = 8
"""What JSON puts around each value: quotes, comma, brackets."""


@dataclass(frozen=True, slots=True)
class Cut(Generic[Entry]):
    """The first entries of a list that is longer; `remark` tells a person."""

    entries: list[Entry]
    remark: str


def bounded(entries: Iterable[Entry], what: str, most: int = MAX_ENTRIES) -> list[Entry] | Cut[Entry]:
    """The entries, or the first of them if they are more than `most` or than fit an answer; no more are asked for.

    `what` names them in the remark: "processes".
    """
    kept: list[Entry] = []
    room = _MAX_BYTES
    for entry in entries:
        room -= _size(entry)
        if len(kept) == most or room < 0:
            return Cut(kept, f"not all: these are the first {len(kept)} {what}")
        kept.append(entry)
    return kept


def shortened(text: str, most: int) -> str:
    """`text`, with "…" at the end if something was left off."""
    return text if len(text) <= most else text[: most - 1] + "…"


def _size(value: Any) -> int:
    """About as many bytes as JSON needs, never far less."""
    if isinstance(value, str):
        # Each control character becomes six bytes, each other one at most four.
        return _PER_VALUE_BYTES + (len(value) if value.isprintable() and value.isascii() else len(value) * 6)
    if isinstance(value, dict):
        return _PER_VALUE_BYTES + sum(_size(key) + _size(item) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return _PER_VALUE_BYTES + sum(_size(item) for item in value)
    return 24
