"""A plain CSV of components and dependencies to documents and a report.

The first line names the columns, in any order; only `name` must be there. Several rows of one name add to each other,
so that a table of components, a list of edges (`name,needs,kind`) and both in one are all read alike.
"""

from __future__ import annotations

import csv
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from io import StringIO
from typing import Any
from urllib.parse import urlsplit

from apps.maps.documents.faults import DocumentFault
from apps.maps.documents.hints import nearest
from apps.maps.documents.schema import SCHEMA_ID
from apps.maps.importing.drafts import GROUPS, DraftComponent, ImportResult, finish
from apps.maps.importing.names import Names, component_name
from apps.maps.importing.report import Report
from apps.maps.importing.technologies import technology_type

COLUMNS = {
    "name": "The component. Rows of the same name add to each other.",
    "type": "service, database, cache, broker, web, batch, …; by the technology if it is empty.",
    "host": "Where it runs: a hostname or an agent's id.",
    "group": "The group it is shown in.",
    "technology": "What it is made with, such as postgresql.",
    "version": "The version of the technology.",
    "description": "What it is for.",
    "labels": "`key=value` pairs, separated by `;` or `|`.",
    "needs": "The components that it needs, separated by `;`, `|` or `,`; `name:weak` orders and does not spread.",
    "kind": "strong or weak: the kind of all dependencies of this row that do not say their own.",
    "service": "A unit of systemd: gives start, stop, restart, status and the health check.",
    "start": "A command line; it is run without a shell.",
    "stop": "A command line.",
    "restart": "A command line.",
    "status": "A command line.",
    "health": "`http://…`, `https://…`, `host:port`, a port, or `service:name`.",
}
_SYNONYMS = {
    "component": "name",
    "depends_on": "needs",
    "dependson": "needs",
    "dependencies": "needs",
    "unit": "service",
}

MAX_BYTES = 32 * 1024 * 1024
MAX_ROWS = 200_000
MAX_COMPONENTS = 50_000
MAX_FAULTS = 1_000
_MAX_CELL = 10_000
_FILE = "table.csv"
_SEPARATORS = ",;\t|"
_LISTED = re.compile(r"[;|,\n]")
_LENGTHS = {"type": 60, "host": 253, "technology": 120, "version": 60}
_SIMPLE = ("type", "host", "description")
_COMMANDS = ("start", "stop", "restart", "status")
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class CsvOptions:
    """`host` and `group` are for rows that have none of their own."""

    name: str = ""
    host: str = ""
    group: str = ""


def import_csv(content: str, options: CsvOptions, *, schema_url: str = SCHEMA_ID) -> ImportResult:
    """The Map of a table."""
    report = Report()
    table = _Table(options, report)
    try:
        table.read(content)
    except _TableError as error:
        return ImportResult([], report, [DocumentFault(_FILE, error.line, 1, "", error.found, error.expected)])
    if table.faults:
        return ImportResult([], report, table.faults)
    drafts = table.finished()
    if not drafts:
        fault = DocumentFault(_FILE, 1, 1, "", "no component", "at least one row with a name")
        return ImportResult([], report, [fault])
    title = options.name or "Imported table"
    return finish(title, "Imported from a table.", drafts, report, file=_FILE, schema_url=schema_url)


class _TableError(Exception):
    """What makes the whole unreadable."""

    def __init__(self, line: int, found: str, expected: str) -> None:
        super().__init__(found)
        self.line, self.found, self.expected = line, found, expected


class _Table:
    def __init__(self, options: CsvOptions, report: Report) -> None:
        self._options, self._report = options, report
        self._names = Names()
        self._drafts: dict[str, DraftComponent] = {}
        self._only_needed: dict[str, int] = {}
        """Components that a row needs and none describes yet, with the line that needs them."""
        self.faults: list[DocumentFault] = []

    def read(self, content: str) -> None:
        if len(content.encode(errors="surrogatepass")) > MAX_BYTES:
            raise _TableError(1, "a larger table", f"at most {MAX_BYTES} bytes")
        found = _UNSTORABLE.search(content)
        if found:
            line = content.count("\n", 0, found.start()) + 1
            raise _TableError(line, "a NUL character", "text in UTF-8")
        columns: list[str | None] | None = None
        for line, cells in _rows(content):
            if not any(cell.strip() for cell in cells):
                continue
            if columns is None:
                columns = self._columns(line, cells)
                continue
            if line > MAX_ROWS:
                raise _TableError(line, "more rows", f"at most {MAX_ROWS}")
            self._row(line, columns, cells)
            if len(self._drafts) > MAX_COMPONENTS:
                raise _TableError(line, "more components", f"at most {MAX_COMPONENTS}")
            if len(self.faults) >= MAX_FAULTS:
                return

    def _columns(self, line: int, cells: list[str]) -> list[str | None]:
        columns: list[str | None] = []
        for cell in cells:
            title = re.sub(r"[\s-]+", "_", cell.strip().lower())
            title = _SYNONYMS.get(title, title)
            if title in COLUMNS and title not in columns:
                columns.append(title)
                continue
            columns.append(None)
            if title:
                close = nearest(title, COLUMNS)
                why = "appears twice" if title in COLUMNS else f"is not known{f'; perhaps {close}' if close else ''}"
                self._report.left_out(line, "", cell.strip(), f"the column {why}")
        if "name" not in columns:
            raise _TableError(line, f"the columns {', '.join(cell.strip() for cell in cells)[:200]}", "a column name")
        return columns

    def _row(self, line: int, columns: list[str | None], cells: list[str]) -> None:
        if len(cells) > len(columns):
            self._fault(line, "", f"{len(cells)} cells", f"at most {len(columns)}, as many as columns")
            return
        row = {column: cell.strip() for column, cell in zip(columns, cells, strict=False) if column and cell.strip()}
        name = row.get("name")
        if not name:
            self._fault(line, "name", "nothing", "the name of a component")
            return
        draft = self._draft(name, line)
        if self._only_needed.pop(draft.name, None):
            draft.line = line
        for column in (*_SIMPLE, "group", "technology", "version"):
            if column in row:
                self._set(draft, line, column, row[column])
        self._labels(draft, line, row.get("labels", ""))
        self._needs(draft, line, row)
        self._commands(draft, line, row)
        self._health(draft, line, row.get("health", ""))

    def _draft(self, written: str, line: int) -> DraftComponent:
        key = written.casefold()
        draft = self._drafts.get(key)
        if draft is None:
            name = self._names.name_for(key, written)
            draft = self._drafts[key] = DraftComponent(name, line)
            if name != written:
                self._report.guessed(line, written, "name", f"components are named otherwise: {name}")
        return draft

    def _set(self, draft: DraftComponent, line: int, column: str, value: str) -> None:
        if len(value) > _LENGTHS.get(column, _MAX_CELL):
            self._fault(line, column, f"{len(value)} characters", f"at most {_LENGTHS.get(column, _MAX_CELL)}")
            return
        if column == "group":
            value = self._group(draft, line, value)
        known = draft.spec.setdefault(column, value)
        if known != value:
            self._fault(line, column, f"{value[:60]!r}", f"{str(known)[:60]!r}, as an earlier row of {draft.name} says")

    def _group(self, draft: DraftComponent, line: int, value: str) -> str:
        name = component_name(value)[:80].strip("-._")
        if name != value:
            self._report.guessed(line, draft.name, "group", f"groups are named otherwise: {name}")
        return name

    def _labels(self, draft: DraftComponent, line: int, text: str) -> None:
        for pair in re.split(r"[;|\n]", text):
            key, equals, value = pair.strip().partition("=")
            if equals and key.strip():
                draft.labels[key.strip()] = value.strip()
            elif pair.strip():
                self._report.left_out(line, draft.name, "labels", f"{pair.strip()[:60]!r} is no key=value")

    def _needs(self, draft: DraftComponent, line: int, row: dict[str, str]) -> None:
        kind = row.get("kind", "strong").lower()
        if kind not in {"strong", "weak"}:
            self._fault(line, "kind", f"{row['kind'][:60]!r}", "strong or weak")
            return
        for item in _LISTED.split(row.get("needs", "")):
            name, _, own = item.strip().rpartition(":")
            if own.lower() not in {"strong", "weak"} or not name:
                name, own = item.strip(), kind
            if not name:
                continue
            needed = self._draft(name, line)
            if needed is draft:
                self._fault(line, "needs", f"{name!r} itself", "another component")
                continue
            if not needed.spec and needed.line == line:
                self._only_needed.setdefault(needed.name, line)
            draft.needs(needed.name, is_strong=own.lower() == "strong", line=line)

    def _commands(self, draft: DraftComponent, line: int, row: dict[str, str]) -> None:
        commands = draft.spec.setdefault("commands", {})
        if "service" in row:
            for verb in _COMMANDS:
                commands.setdefault(verb, {"service": {"name": row["service"]}})
            draft.spec.setdefault("healthcheck", {"type": "service", "service_name": row["service"]})
        for verb in _COMMANDS:
            text = row.get(verb)
            if text is None:
                continue
            try:
                is_line = bool(shlex.split(text))
            except ValueError as error:
                self._fault(line, verb, f"{text[:60]!r} ({str(error).lower()})", "a program and its arguments")
                continue
            if is_line:
                commands[verb] = {"command": text}
                if re.search(r"[|&;<>`]|\$[({A-Za-z]", text):
                    self._report.guessed(line, draft.name, verb, "there is no shell: |, &, ;, <, >, $ are plain text")

    def _health(self, draft: DraftComponent, line: int, text: str) -> None:
        if not text:
            return
        check = _health_check(text)
        if check is None:
            self._fault(line, "health", f"{text[:60]!r}", "http://…, https://…, host:port, a port, or service:name")
        else:
            draft.spec["healthcheck"] = check

    def _fault(self, line: int, column: str, found: str, expected: str) -> None:
        self.faults.append(DocumentFault(_FILE, line, 1, column, found, expected))

    def finished(self) -> list[DraftComponent]:
        """The components with what the table left open."""
        for name, line in self._only_needed.items():
            self._report.guessed(line, name, "name", "no row describes it: it is only needed")
        for draft in self._drafts.values():
            self._complete(draft)
        return list(self._drafts.values())

    def _complete(self, draft: DraftComponent) -> None:
        spec = draft.spec
        technology, version = spec.pop("technology", None), spec.pop("version", None)
        if technology:
            spec["technology"] = {"name": technology, **({"version": version} if version else {})}
        elif version:
            self._report.left_out(draft.line, draft.name, "version", f"{version}: no technology is named")
        if "type" not in spec:
            spec["type"] = technology_type(technology or "") or "service"
            self._report.guessed(draft.line, draft.name, "type", f"{spec['type']}: the table says none")
        if "host" not in spec and self._options.host:
            spec["host"] = self._options.host
        if "group" not in spec:
            group = self._options.group and component_name(self._options.group)[:80].strip("-._")
            spec["group"] = group or GROUPS.get(spec["type"], "services")
        if not spec.get("commands"):
            self._report.left_out(draft.line, draft.name, "commands", "the table says none: it cannot be started")


def _rows(content: str) -> Iterator[tuple[int, list[str]]]:
    """Rows with the line each begins at. `sep=;` as Excel writes it says the separator, else the first line does."""
    text = content.removeprefix("\ufeff")
    first, _, rest = text.partition("\n")
    skipped = 0
    if first.strip().lower().startswith("sep=") and len(first.strip()) == 5:
        separator, text, skipped = first.strip()[4], rest, 1
    else:
        unquoted = re.sub(r'"[^"]*"', "", first)
        separator = max(_SEPARATORS, key=unquoted.count)
    reader = csv.reader(StringIO(text, newline=""), delimiter=separator, strict=True)
    begin = 1
    try:
        for cells in reader:
            if any(len(cell) > _MAX_CELL for cell in cells):
                raise _TableError(begin + skipped, "a longer cell", f"at most {_MAX_CELL} characters")
            yield begin + skipped, cells
            begin = reader.line_num + 1
    except csv.Error as error:
        raise _TableError(begin + skipped, str(error), "cells in quotes that are closed") from None


def _health_check(text: str) -> dict[str, Any] | None:
    kind, _, name = text.partition(":")
    if kind == "service" and name and not name.startswith("//"):
        return {"type": "service", "service_name": name.strip()}
    if text.startswith(("http://", "https://")):
        try:
            is_address = bool(urlsplit(text).hostname)
        except ValueError:
            is_address = False
        return {"type": "http", "url": text} if is_address and " " not in text else None
    host, _, port = text.rpartition(":")
    if not port.isdecimal() or len(port) > 5 or not 0 < int(port) <= 65_535 or " " in host:
        return None
    return {"type": "tcp", "port": int(port), **({"host": host.strip("[]")} if host else {})}
