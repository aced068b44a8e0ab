"""From what a caller sends to the right importer: content and options in camelCase, checked one by one."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any

from apps.maps.documents.archives import path_fault
from apps.maps.documents.faults import DocumentFault
from apps.maps.documents.hints import with_hint
from apps.maps.documents.reading import shown
from apps.maps.documents.schema import SCHEMA_ID
from apps.maps.importing.compose.importer import import_compose
from apps.maps.importing.compose.interpolation import read_environment
from apps.maps.importing.compose.project import MAX_FILES, ComposeOptions
from apps.maps.importing.csv_table import CsvOptions, import_csv
from apps.maps.importing.drafts import ImportResult
from apps.maps.importing.report import Report
from apps.maps.importing.systemd import MAX_UNITS, SystemdOptions, import_systemd

_MAX_VARIABLES = 10_000
_HOST = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.:-]{0,251}[A-Za-z0-9_])?")


class ImportKind(StrEnum):
    COMPOSE = "compose"
    SYSTEMD = "systemd"
    CSV = "csv"


class _OptionError(Exception):
    def __init__(self, key: str, found: str, expected: str) -> None:
        super().__init__(found)
        self.fault = DocumentFault("options", 1, 1, key, found, expected)


def import_content(
    kind: ImportKind, content: Any, options: Mapping[str, Any], *, schema_url: str = SCHEMA_ID
) -> ImportResult:
    """The documents of what was sent, or its faults; a wrong option is one, too."""
    try:
        return _IMPORTERS[kind](content, options, schema_url)
    except _OptionError as error:
        return ImportResult([], Report(), [error.fault])


def _import_compose(content: Any, options: Mapping[str, Any], schema_url: str) -> ImportResult:
    known = {
        "host": _host,
        "name": _title,
        "project": _title,
        "folder": _folder,
        "file": _file_name,
        "files": _files,
        "environment": _environment,
        "profiles": _names,
    }
    return import_compose(_text(content), ComposeOptions(**_read(options, known)), schema_url=schema_url)


def _import_systemd(content: Any, options: Mapping[str, Any], schema_url: str) -> ImportResult:
    if isinstance(content, str):
        try:
            content = json.loads(content)
        except (ValueError, RecursionError) as error:
            line = getattr(error, "lineno", 1)
            fault = DocumentFault("units", line, getattr(error, "colno", 1), "", f"{error}"[:200], "a list in JSON")
            return ImportResult([], Report(), [fault])
    known = {"host": _host, "name": _title, "units": _names}
    return import_systemd(content, SystemdOptions(**_read(options, known)), schema_url=schema_url)


def _import_csv(content: Any, options: Mapping[str, Any], schema_url: str) -> ImportResult:
    known = {"host": _host, "name": _title, "group": _title}
    return import_csv(_text(content), CsvOptions(**_read(options, known)), schema_url=schema_url)


_IMPORTERS: dict[ImportKind, Callable[[Any, Mapping[str, Any], str], ImportResult]] = {
    ImportKind.COMPOSE: _import_compose,
    ImportKind.SYSTEMD: _import_systemd,
    ImportKind.CSV: _import_csv,
}


def _text(content: Any) -> str:
    if not isinstance(content, str):
        raise _OptionError("content", shown(content), "text")
    return content


def _read(options: Mapping[str, Any], known: Mapping[str, Callable[[str, Any], Any]]) -> dict[str, Any]:
    for key in options:
        if key not in known:
            raise _OptionError(key[:80], "an unknown option", with_hint(f"one of {', '.join(known)}", key, known))
    return {key: known[key](key, value) for key, value in options.items() if value is not None}


def _title(key: str, value: Any) -> str:
    if not isinstance(value, str) or len(value) > 120 or not value.isprintable():
        raise _OptionError(key, shown(value), "text of at most 120 characters")
    return value.strip()


def _host(key: str, value: Any) -> str:
    if not isinstance(value, str) or (value and not _HOST.fullmatch(value)):
        raise _OptionError(key, shown(value), "a hostname or an agent's id")
    return value


def _folder(key: str, value: Any) -> str:
    is_path = isinstance(value, str) and value.startswith("/") and value.isprintable() and len(value) <= 1_000
    if not is_path or ".." in value.split("/"):
        raise _OptionError(key, shown(value), "an absolute path on the host, without '..'")
    return str(value)


def _file_name(key: str, value: Any) -> str:
    if not isinstance(value, str) or path_fault(value) or value.startswith("-"):
        raise _OptionError(key, shown(value), "the file's name in its folder")
    return value


def _files(key: str, value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or len(value) > MAX_FILES:
        raise _OptionError(key, shown(value), f"at most {MAX_FILES} files by their path")
    for path, content in value.items():
        if not isinstance(content, str):
            raise _OptionError(f"{key}.{path[:80]}", shown(content), "the file's text")
    return value


def _environment(key: str, value: Any) -> dict[str, str]:
    if isinstance(value, str):
        return read_environment(value)
    if not isinstance(value, dict) or len(value) > _MAX_VARIABLES:
        raise _OptionError(key, shown(value), "a .env file's text, or its variables as a mapping")
    return {str(name): str(item) for name, item in value.items() if isinstance(item, str | int | float)}


def _names(key: str, value: Any) -> tuple[str, ...]:
    is_list = isinstance(value, list) and len(value) <= MAX_UNITS and all(isinstance(item, str) for item in value)
    if not is_list:
        raise _OptionError(key, shown(value), f"a list of at most {MAX_UNITS} names")
    return tuple(value)
