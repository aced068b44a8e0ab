"""The version of a program, from what lies on the disk: its command line, its path, its package, its archive.

Nothing is run and nothing is asked over the network: `--version` of a stranger's file is an execution of it, and a
connection without a purpose is an entry in the log of whoever listens (MySQL even shuts out a host that does it).
"""

from __future__ import annotations

import os
import re
import stat
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

_NUMBER = r"v?(\d+(?:\.\d+)+)"
_IN_COMPONENT = re.compile(rf"(?:^|[-_]){_NUMBER}(?:$|[-_.](?!\d))")
_MANIFEST = "META-INF/MANIFEST.MF"
_MANIFEST_VERSION = re.compile(
    r"^(?:Jenkins-Version|Implementation-Version|Bundle-Version|Specification-Version):\s*(\S{1,80})", re.MULTILINE
)
_JAVA_VERSION = re.compile(r'^JAVA_VERSION="([^"]{1,40})"', re.MULTILINE)
_MAX_SMALL_FILE = 64 * 1024
_MAX_ARCHIVE = 1024 * 1024 * 1024


def version_in_path(path: str, name: str) -> str | None:
    """Of /opt/prometheus-2.45.0.linux-amd64/prometheus or /opt/node/v18.1.0/bin/node, if the path speaks of `name`."""
    parts = path.split("/")
    for index, part in enumerate(parts):
        mentions = name in part or (index > 0 and parts[index - 1].startswith(name))
        found = _IN_COMPONENT.search(part) if mentions else None
        if found:
            return found[1]
    return None


def version_in_archive(path: str) -> str | None:
    """What the manifest of a .jar or .war says."""
    try:
        with _open_regular(path) as file:
            if os.fstat(file.fileno()).st_size > _MAX_ARCHIVE:
                return None
            with zipfile.ZipFile(file) as archive, archive.open(_MANIFEST) as manifest:
                text = manifest.read(_MAX_SMALL_FILE).decode("utf-8", "replace")
    except (OSError, KeyError, ValueError, NotImplementedError, RuntimeError, zipfile.BadZipFile):
        return None
    found = _MANIFEST_VERSION.search(text)
    return found[1] if found else None


def java_release(executable: str) -> str | None:
    """The version of a JDK or JRE, from the file `release` that lies in its folder."""
    try:
        with _open_regular(Path(executable).parents[1] / "release") as file:
            found = _JAVA_VERSION.search(file.read(_MAX_SMALL_FILE).decode("utf-8", "replace"))
    except (OSError, IndexError):
        return None
    return found[1] if found else None


def python_distribution(arguments: Sequence[str], distribution: str) -> str | None:
    """The version of a Python package, from the name of its metadata in the environment that the program runs in."""
    wanted = re.compile(rf"{re.escape(distribution).replace('-', '[-_]')}-{_NUMBER}\S*\.dist-info", re.IGNORECASE)
    for argument in arguments[:2]:
        folder = Path(argument).parent.parent
        if not argument.startswith("/") or folder == Path("/"):
            continue
        for library in folder.glob("lib/python3*/*-packages"):
            try:
                names = [entry.name for entry in library.iterdir()]
            except OSError:
                continue
            found = next((match for name in names if (match := wanted.fullmatch(name))), None)
            if found:
                return found[1]
    return None


def _open_regular(path: str | Path) -> BinaryIO:
    """A file that is one: a FIFO in its place would never end. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(f"{path} is no file")
    return os.fdopen(descriptor, "rb")
