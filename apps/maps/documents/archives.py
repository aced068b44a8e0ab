"""A Map's documents as a zip file and back, byte for byte."""

from __future__ import annotations

import re
import stat
import zipfile
import zlib
from collections.abc import Iterable
from io import BytesIO

from apps.maps.documents.faults import DocumentFault
from apps.maps.documents.reading import MAX_DOCUMENT_BYTES, SourceFile

MAX_FILES = 5_000
MAX_TOTAL_BYTES = 64 * 1024 * 1024
_MAX_PATH = 300
_PART = r"""[^/\\:*?"<>|\x00-\x1f\x7f-\x9f\ud800-\udfff]+"""
_PATH = re.compile(rf"{_PART}(?:/{_PART})*")
_LONG_AGO = (1980, 1, 1, 0, 0, 0)
"""The time of every file in an archive: the same documents are the same bytes."""


def path_fault(path: str) -> str | None:
    """What a document's path should be, if it is not: it is a name in folders that any system can have."""
    if len(path) > _MAX_PATH:
        return f"a path of at most {_MAX_PATH} characters"
    if not _PATH.fullmatch(path) or any(part.strip(". ") == "" for part in path.split("/")):
        return "a relative path such as components/api.yaml, without '..'"
    return None


def to_zip(sources: Iterable[SourceFile]) -> bytes:
    """The archive of these documents; always the same bytes for the same documents."""
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for source in sources:
            entry = zipfile.ZipInfo(source.path, date_time=_LONG_AGO)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            entry.create_system = 3
            archive.writestr(entry, source.content.encode())
    return buffer.getvalue()


def from_zip(data: bytes) -> tuple[list[SourceFile], list[DocumentFault]]:
    """The documents in an archive, or every fault of it. Folders and hidden files are passed over."""
    try:
        with zipfile.ZipFile(BytesIO(data)) as archive:
            return _read(archive)
    except (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError, OSError) as error:
        return [], [_fault("", f"{error}"[:200] or "a broken archive", "a zip file")]


def _read(archive: zipfile.ZipFile) -> tuple[list[SourceFile], list[DocumentFault]]:
    entries = [entry for entry in archive.infolist() if not entry.is_dir() and not _is_hidden(entry.filename)]
    if len(entries) > MAX_FILES:
        return [], [_fault("", f"{len(entries)} files", f"at most {MAX_FILES} files")]
    sources: list[SourceFile] = []
    faults: list[DocumentFault] = []
    left = MAX_TOTAL_BYTES
    for entry in entries:
        result = _file(archive, entry)
        if isinstance(result, DocumentFault):
            faults.append(result)
            continue
        left -= len(result.content)
        if left < 0:
            return [], [_fault("", "more text", f"at most {MAX_TOTAL_BYTES} bytes in all")]
        sources.append(result)
    return ([], faults) if faults else (sources, [])


def _file(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> SourceFile | DocumentFault:
    path = entry.filename
    shown = path[:_MAX_PATH].encode("unicode_escape").decode() if not path.isprintable() else path[:_MAX_PATH]
    expected = path_fault(path)
    if expected:
        return _fault("", repr(shown), expected)
    if entry.flag_bits & 0x1:
        return _fault(path, "an encrypted file", "a file without a password")
    if stat.S_ISLNK(entry.external_attr >> 16):
        return _fault(path, "a symbolic link", "a file")
    try:
        with archive.open(entry) as file:
            # What an archive says of sizes may be a lie: no more is ever unpacked than is allowed.
            content = file.read(MAX_DOCUMENT_BYTES + 1)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        return _fault(path, f"{error}"[:200] or "a broken file", "a whole file")
    if len(content) > MAX_DOCUMENT_BYTES:
        return _fault(path, "a larger file", f"at most {MAX_DOCUMENT_BYTES} bytes")
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return _fault(path, "text in UTF-16", "text in UTF-8")
    try:
        return SourceFile(path, content.decode())
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        column = error.start - content.rfind(b"\n", 0, error.start)
        return DocumentFault(path, line, column, "", f"the byte {content[error.start]:#04x}", "text in UTF-8")


def _is_hidden(path: str) -> bool:
    return any((part.startswith(".") and part not in {".", ".."}) or part == "__MACOSX" for part in path.split("/"))


def _fault(file: str, found: str, expected: str) -> DocumentFault:
    return DocumentFault(file, 1, 1, "", found, expected)
