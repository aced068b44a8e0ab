"""Which installed package a file belongs to, and its version: the databases of dpkg, rpm and apk, read directly."""

from __future__ import annotations

import os
import re
import sqlite3
import struct
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path

_MAX_FILE_BYTES = 128 * 1024 * 1024
_EPOCH = re.compile(r"^\d+:")

_RPM_NAME, _RPM_VERSION, _RPM_DIRECTORY_OF, _RPM_FILES, _RPM_DIRECTORIES = 1000, 1001, 1116, 1117, 1118


def find_versions(paths: Iterable[str], root: Path = Path("/")) -> dict[str, str]:
    """The version of the package that each file comes from, for those that come from one.

    `1.2.3-4ubuntu5` is told as "1.2.3": whoever compares versions means those of the authors.
    """
    wanted = {path for path in paths if path.startswith("/")}
    if not wanted:
        return {}
    for find in (_from_dpkg, _from_rpm, _from_apk):
        found = find(wanted, root)
        if found:
            return {path: upstream(version) for path, version in found.items()}
    return {}


def upstream(version: str) -> str:
    """A version as its authors gave it, without epoch and revision of the distribution."""
    version = _EPOCH.sub("", version)
    return re.split(r"[-+~]", version, maxsplit=1)[0] or version


def _spellings(path: str) -> list[str]:
    """/bin is /usr/bin today, and each of the two may stand in a package's list."""
    return [path, path.removeprefix("/usr") if path.startswith("/usr/") else f"/usr{path}"]


def _from_dpkg(wanted: set[str], root: Path) -> dict[str, str]:
    folder = root / "var/lib/dpkg"
    owners: dict[str, str] = {}
    lines = {
        f"\n{spelling}\n".encode("utf-8", "surrogateescape"): path for path in wanted for spelling in _spellings(path)
    }
    try:
        lists = [entry for entry in os.scandir(folder / "info") if entry.name.endswith(".list")]
    except OSError:
        return {}
    for entry in lists:
        content = b"\n" + _read(Path(entry.path)) + b"\n"
        for line, path in lines.items():
            if line in content:
                owners[path] = entry.name.removesuffix(".list").partition(":")[0]
    versions = _dpkg_versions(folder / "status", set(owners.values()))
    return {path: versions[package] for path, package in owners.items() if package in versions}


def _dpkg_versions(status: Path, packages: set[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    package = ""
    for line in _read(status).decode("utf-8", "replace").splitlines() if packages else ():
        if line.startswith("Package: "):
            package = line.removeprefix("Package: ")
        elif line.startswith("Version: ") and package in packages:
            found[package] = line.removeprefix("Version: ")
    return found


def _from_apk(wanted: set[str], root: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    by_spelling = {spelling: path for path in wanted for spelling in _spellings(path)}
    version, folder = "", ""
    for line in _read(root / "lib/apk/db/installed").decode("utf-8", "replace").splitlines():
        match line[:2]:
            case "V:":
                version = line[2:]
            case "F:":
                folder = line[2:]
            case "R:" if (path := by_spelling.get(f"/{folder}/{line[2:]}")) is not None:
                found[path] = version
    return found


def _from_rpm(wanted: set[str], root: Path) -> dict[str, str]:
    """By the index of file names that rpm keeps, in its SQLite database (Fedora 33, RHEL 9 and later)."""
    database = next(
        (path for at in ("var/lib/rpm", "usr/lib/sysimage/rpm") if (path := root / at / "rpmdb.sqlite").is_file()), None
    )
    if database is None:
        return {}
    by_spelling = {spelling: path for path in wanted for spelling in _spellings(path)}
    found: dict[str, str] = {}
    try:
        # Neither locks nor a journal: rpm may be at work, and the agent may not write there.
        with closing(sqlite3.connect(f"file:{database}?mode=ro&immutable=1", uri=True)) as db:
            for name in {path.rpartition("/")[2] for path in wanted}:
                rows = db.execute(
                    "SELECT p.blob FROM Basenames b JOIN Packages p ON p.hnum = b.hnum WHERE b.key = ?", (name,)
                ).fetchall()
                for (blob,) in rows:
                    header = read_rpm_header(blob)
                    for file in set(_rpm_files(header)) & by_spelling.keys():
                        found[by_spelling[file]] = str(header[_RPM_VERSION][0])
    except (sqlite3.Error, KeyError, IndexError, ValueError, struct.error):
        return found
    return found


def _rpm_files(header: Mapping[int, list[str | int]]) -> Iterator[str]:
    directories = header.get(_RPM_DIRECTORIES, [])
    for name, at in zip(header.get(_RPM_FILES, []), header.get(_RPM_DIRECTORY_OF, []), strict=False):
        yield f"{directories[int(at)]}{name}"


def read_rpm_header(blob: bytes) -> dict[int, list[str | int]]:
    """Texts and numbers of the tags that matter here, of a header as rpm stores it: an index, then the values.

    Raises:
        ValueError, struct.error, IndexError: it is none.
    """
    count, size = struct.unpack_from(">II", blob)
    values = blob[8 + 16 * count : 8 + 16 * count + size]
    found: dict[int, list[str | int]] = {}
    for index in range(min(count, 10_000)):
        tag, kind, offset, items = struct.unpack_from(">IIII", blob, 8 + 16 * index)
        if tag not in (_RPM_NAME, _RPM_VERSION, _RPM_DIRECTORY_OF, _RPM_FILES, _RPM_DIRECTORIES):
            continue
        if kind == 4:
            found[tag] = list(struct.unpack_from(f">{items}I", values, offset))
        elif kind in (6, 8, 9):
            texts = values[offset:].split(b"\0", items)[:items]
            found[tag] = [text.decode("utf-8", "replace") for text in texts]
    return found


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_MAX_FILE_BYTES)
    except OSError:
        return b""
