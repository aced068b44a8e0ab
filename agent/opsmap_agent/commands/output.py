"""What commands print, as it is told: a little of it inside the result, and all that was kept as events of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from opsmap_protocol.enums import OutputStream
from opsmap_protocol.messages import CommandOutput

INLINE_CHARACTERS = 16 * 1024
"""What a result holds of stdout and stderr together."""

_PIECE_CHARACTERS = 64 * 1024
"""At most 384 KiB as JSON, where a control character takes six bytes: several pieces fit a frame."""


@dataclass(frozen=True, slots=True)
class Output:
    """What was kept of one stream, and how many bytes behind it were not."""

    stream: OutputStream
    text: str
    lost_bytes: int = 0

    @property
    def total(self) -> int:
        """Characters; those that were not kept have never been decoded and count as bytes."""
        return len(self.text) + self.lost_bytes

    def pieces(self, request_id: str) -> list[CommandOutput]:
        """All of it, in order; none if there is nothing."""
        starts = range(0, len(self.text), _PIECE_CHARACTERS)
        return [
            CommandOutput(
                request_id,
                self.stream,
                start,
                self.text[start : start + _PIECE_CHARACTERS],
                total=self.total if start == starts[-1] else None,
            )
            for start in starts
        ]


def describe(stdout: Output, stderr: Output) -> dict[str, Any]:
    """The part of a command's result that shows its output.

    `is_truncated` is true only if something was not kept. With `output` there is more than the two texts show: how
    much there was of each stream, and how much was kept.
    """
    shown: dict[str, Any] = {
        "stdout": stdout.text[: _room(stderr)],
        "stderr": stderr.text[: _room(stdout)],
        "is_truncated": stdout.lost_bytes + stderr.lost_bytes > 0,
    }
    if is_told_apart(stdout, stderr) or shown["is_truncated"]:
        shown["output"] = {
            each.stream.value: {"total": each.total, "kept": len(each.text)} for each in (stdout, stderr)
        }
    return shown


def is_told_apart(stdout: Output, stderr: Output) -> bool:
    """Whether there is too much of it for the result alone."""
    return len(stdout.text) + len(stderr.text) > INLINE_CHARACTERS


def _room(other: Output) -> int:
    """What is left for one stream beside the other: half of it at least."""
    return max(INLINE_CHARACTERS // 2, INLINE_CHARACTERS - len(other.text))
