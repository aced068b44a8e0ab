"""A Map in the making, and the one way from there to documents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from apps.maps.documents.faults import DocumentFault
from apps.maps.documents.reading import SourceFile
from apps.maps.documents.schema import SCHEMA_ID
from apps.maps.documents.writing import component_files, map_file
from apps.maps.importing.report import Report
from apps.maps.planning.graph import find_cycle

_MAX_CUTS = 200
_MAX_SHOWN = 30
"""So much of a cycle is named; nobody reads one of 10,000."""

GROUPS = {
    "database": "databases",
    "cache": "caches",
    "broker": "brokers",
    "web": "frontends",
    "storage": "storage",
    "batch": "jobs",
    "monitoring": "monitoring",
    "service": "services",
}
"""The group of a component by its type, where nothing else says one."""


@dataclass(slots=True)
class DraftDependency:
    needs: str
    is_strong: bool
    line: int


@dataclass(slots=True)
class DraftComponent:
    """`line` is where it stands in what is imported."""

    name: str
    line: int
    spec: dict[str, Any] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    dependencies: dict[str, DraftDependency] = field(default_factory=dict)

    def needs(self, name: str, *, is_strong: bool, line: int) -> None:
        """Say that it needs another. Said twice, strong wins."""
        known = self.dependencies.get(name)
        if known is None:
            self.dependencies[name] = DraftDependency(name, is_strong, line)
        else:
            known.is_strong |= is_strong


@dataclass(frozen=True, slots=True)
class ImportResult:
    """What an import gives. With `faults` there are no documents."""

    sources: list[SourceFile]
    report: Report
    faults: list[DocumentFault]


def finish(
    name: str,
    description: str,
    drafts: Sequence[DraftComponent],
    report: Report,
    *,
    file: str,
    schema_url: str = SCHEMA_ID,
) -> ImportResult:
    """The documents of these components, whose dependencies are all among them; or the cycle that forbids them."""
    by_name = {draft.name: draft for draft in drafts}
    fault = _cut_cycles(by_name, report, file)
    if fault:
        return ImportResult([], report, [fault])
    groups = list(dict.fromkeys(draft.spec["group"] for draft in drafts if draft.spec.get("group")))
    components = [(draft.name, draft.labels, draft.spec | {"dependsOn": _depends_on(draft)}) for draft in drafts]
    sources = [
        map_file(name, description=description, groups=groups, schema_url=schema_url),
        *component_files(components, schema_url=schema_url),
    ]
    return ImportResult(sources, report, [])


def _depends_on(draft: DraftComponent) -> list[Any]:
    return [
        item.needs if item.is_strong else {"component": item.needs, "kind": "weak"}
        for item in draft.dependencies.values()
    ]


def _cut_cycles(by_name: dict[str, DraftComponent], report: Report, file: str) -> DocumentFault | None:
    """A cycle is cut where only the order is at stake, which is what systemd does too; else it is a fault."""
    for _ in range(_MAX_CUTS):
        cycle = find_cycle({name: draft.dependencies.keys() for name, draft in by_name.items()})
        if not cycle:
            return None
        shown = _shown([*cycle, cycle[0]])
        for name, needed in zip(cycle, [*cycle[1:], cycle[0]], strict=True):
            link = by_name[name].dependencies[needed]
            if not link.is_strong:
                del by_name[name].dependencies[needed]
                report.left_out(
                    link.line, name, "dependsOn", f"{needed}, which only orders: it closes a cycle, {shown}"
                )
                break
        else:
            link = by_name[cycle[0]].dependencies[cycle[1] if len(cycle) > 1 else cycle[0]]
            expected = "dependencies without a cycle"
            return DocumentFault(file, link.line or 1, 1, cycle[0], f"a cycle: {shown}", expected)
    return DocumentFault(file, 1, 1, "", f"more than {_MAX_CUTS} cycles", "dependencies without cycles")


def _shown(names: list[str]) -> str:
    if len(names) > _MAX_SHOWN:
        names = [*names[: _MAX_SHOWN - 1], f"… {len(names) - _MAX_SHOWN} more …", names[-1]]
    return " → ".join(names)
