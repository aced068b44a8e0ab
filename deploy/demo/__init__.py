"""The demonstration "Trading Platform": fourteen real processes of this machine and the documents that describe them.

`components` is the table of what runs, `documents/` holds the templates of the Map, and `control` starts,
stops and asks after one component. The rest of the package is what those processes are made of: standard
library only, because every one of them stays resident.
"""

from __future__ import annotations

from pathlib import Path

from deploy.demo.components import COMPONENTS

__all__ = ["PORT_NAMES", "render"]

PORT_NAMES: tuple[str, ...] = tuple(COMPONENTS)
"""The components that listen, in an order that starts nothing before what it needs; each wants one free port."""


def render(target: Path, *, python: Path, state: Path, ports: dict[str, int], lease: Path) -> None:
    """Write the Map's documents to `target`, and to `state` the ports that the processes read when they start.

    Rendering again is harmless: what is equal is left alone, and documents of components that are gone are
    removed.

    Args:
        target: folder of the documents; receives `map.yaml` and `components/<name>.yaml`.
        python: interpreter that the start, stop and status commands call.
        state: folder for the pid files and data of the processes.
        ports: a port of 127.0.0.1 for each of `PORT_NAMES`.
        lease: file whose exclusive lock tells the processes that the supervisor is alive.

    Raises:
        ValueError: a port is missing, or a path cannot stand in a command.
    """
    # Imported on use: the resident processes import this package too, and need none of it.
    from deploy.demo.rendering import render_documents

    render_documents(target, python=python, state=state, ports=ports, lease=lease)
