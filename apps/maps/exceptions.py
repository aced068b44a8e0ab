"""What can be wrong with a Map."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, Protocol

from opsmap.lib.problems import ProblemError


class Fault(Protocol):
    """What `documents.faults.DocumentFault` is; this module is below it."""

    @property
    def message(self) -> str: ...

    def as_json(self) -> dict[str, Any]: ...


class DocumentsError(ProblemError):
    """Documents that cannot become a Map; all faults at once."""

    code = "invalid_documents"
    status = HTTPStatus.UNPROCESSABLE_ENTITY

    def __init__(self, faults: Sequence[Fault]) -> None:
        count = f"{len(faults)} faults" if len(faults) != 1 else "1 fault"
        super().__init__(f"The documents have {count}.", errors=[fault.as_json() for fault in faults])
        self.faults = faults


class ImportRefusedError(ProblemError):
    """Something that cannot be imported; all faults at once, and what was understood besides."""

    code = "invalid_import"
    status = HTTPStatus.UNPROCESSABLE_ENTITY

    def __init__(self, faults: Sequence[Fault], report: dict[str, Any]) -> None:
        count = f"{len(faults)} faults" if len(faults) != 1 else "1 fault"
        super().__init__(f"What was sent has {count}.", errors=[fault.as_json() for fault in faults], report=report)
        self.faults = faults


class NameTakenError(ProblemError):
    code = "name_taken"
    status = HTTPStatus.CONFLICT


class MapBusyError(ProblemError):
    """The structure cannot lose a component that an operation holds."""

    code = "map_busy"
    status = HTTPStatus.CONFLICT
