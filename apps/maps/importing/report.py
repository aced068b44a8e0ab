"""What became of each thing that an importer met."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

MAX_REMARKS = 5_000
"""More than anybody reads. What is beyond is counted and not listed."""

_MAX_TEXT = 300


class Outcome(StrEnum):
    TAKEN = "taken"
    """It is in the documents as it was."""
    GUESSED = "guessed"
    """Something like it is in the documents, or something that was not said; a person should look."""
    LEFT_OUT = "left_out"
    """It is not in the documents; the text says why."""


@dataclass(frozen=True, slots=True)
class Remark:
    """One line of the report. `line` counts from 1 in what was imported; 0 is the whole of it."""

    outcome: Outcome
    line: int
    item: str
    key: str
    text: str

    def as_json(self) -> dict[str, Any]:
        return {"outcome": self.outcome, "line": self.line, "item": self.item, "key": self.key, "text": self.text}


@dataclass(slots=True)
class Report:
    remarks: list[Remark] = field(default_factory=list)
    counts: Counter[Outcome] = field(default_factory=Counter)

    def taken(self, line: int, item: str, key: str, text: str) -> None:
        self._add(Outcome.TAKEN, line, item, key, text)

    def guessed(self, line: int, item: str, key: str, text: str) -> None:
        self._add(Outcome.GUESSED, line, item, key, text)

    def left_out(self, line: int, item: str, key: str, text: str) -> None:
        self._add(Outcome.LEFT_OUT, line, item, key, text)

    def _add(self, outcome: Outcome, line: int, item: str, key: str, text: str) -> None:
        self.counts[outcome] += 1
        if len(self.remarks) < MAX_REMARKS:
            self.remarks.append(Remark(outcome, line, item[:_MAX_TEXT], key[:_MAX_TEXT], text[:_MAX_TEXT]))

    def as_json(self) -> dict[str, Any]:
        ordered = sorted(self.remarks, key=lambda remark: remark.line)
        return {
            "counts": {outcome: self.counts[outcome] for outcome in Outcome},
            "isComplete": len(self.remarks) == self.counts.total(),
            "items": [remark.as_json() for remark in ordered],
        }
