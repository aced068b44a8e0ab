"""What a killed supervisor may leave: children that are still ending, and temporary folders.

The supervisor writes down each child as it starts it. The kernel tells the children when the supervisor is
gone, so the next run normally finds none; what it does find it ends before it touches a port or the data.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from deploy.embedded.liveness import end, same_process
from deploy.embedded.placement import SOCKETS_PREFIX
from deploy.embedded.postgres import NAME as POSTGRES_NAME
from deploy.embedded.process import Child
from deploy.embedded.state import write_json

Say = Callable[[str], None]


class Record:
    """`children.json`: who was started and which temporary folders exist, rewritten at each change."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._children: list[Child] = []
        self._temporary: tuple[Path, ...] = ()

    def add(self, child: Child) -> None:
        self._children = [known for known in self._children if not known.has_ended]
        self._children.append(child)
        self._write()

    def use_temporary(self, folders: tuple[Path, ...]) -> None:
        self._temporary = folders
        self._write()

    def close(self) -> None:
        """An orderly end: nothing is left to record."""
        for folder in self._temporary:
            shutil.rmtree(folder, ignore_errors=True)
        self._path.unlink(missing_ok=True)

    def _write(self) -> None:
        children = [
            {"name": child.spec.name, "pid": child.pid, "started_at": child.started_at} for child in self._children
        ]
        write_json(self._path, {"children": children, "temporary": [str(path) for path in self._temporary]})


async def sweep(path: Path, say: Say, *, patience_s: float = 10.0) -> None:
    """End what an earlier supervisor of this state folder left behind, by its record.

    PostgreSQL is left to `postgres.prepare`, which gives it the time it needs.
    """
    record = _read(path)
    found = [
        (str(entry["name"]), process)
        for entry in record["children"]
        if entry["name"] != POSTGRES_NAME and (process := same_process(entry["pid"], entry["started_at"])) is not None
    ]
    if found:
        say(f"An earlier run was killed: ending what is left of it ({', '.join(name for name, _ in found)}).")
        await end([process for _, process in found], patience_s=patience_s)
    _forget(path, record)


def _read(path: Path) -> dict[str, Any]:
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {"children": [], "temporary": []}
    return record


def _forget(path: Path, record: dict[str, Any]) -> None:
    for name in record["temporary"]:
        folder = Path(name)
        if folder.name.startswith(SOCKETS_PREFIX):
            shutil.rmtree(folder, ignore_errors=True)
    path.unlink(missing_ok=True)
