"""One fault of one document, in words for the person who wrote it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class DocumentFault:
    """`line` and `column` count from 1; `key` is the path of the value, such as `spec.commands.start`."""

    file: str
    line: int
    column: int
    key: str
    found: str
    expected: str

    @property
    def message(self) -> str:
        where = f"{self.file}:{self.line}:{self.column}"
        key = f" {self.key}:" if self.key else ""
        return f"{where}:{key} found {self.found}, expected {self.expected}"

    def as_json(self) -> dict[str, Any]:
        return {
            "file": self.file,
            "line": self.line,
            "column": self.column,
            "key": self.key,
            "found": self.found,
            "expected": self.expected,
            "message": self.message,
        }
