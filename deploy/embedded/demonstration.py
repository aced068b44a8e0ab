"""The demonstration's part in a run: its documents, its ports, and waiting for its end.

`deploy.demo` knows what the demonstration is; agents start its processes, detached, when a person asks for
it.
"""

import asyncio
import sys
from collections.abc import Mapping
from pathlib import Path

import psutil

from deploy.embedded.errors import EmbeddedError
from deploy.embedded.liveness import CLOCK_SLACK_S, is_alive, wait_gone
from deploy.embedded.state import StateFolder
from deploy.embedded.waiting import first_of


def port_names() -> tuple[str, ...]:
    """What needs a port, in the order of the default ports."""
    from deploy import demo  # only a run with the demonstration needs it

    return tuple(demo.PORT_NAMES)


def render(state: StateFolder, ports: Mapping[str, int], lease: Path) -> None:
    """Write the Map's documents for this state folder and these ports."""
    from deploy import demo

    try:
        demo.render(state.documents, python=Path(sys.executable), state=state.demo_run, ports=dict(ports), lease=lease)
    except ValueError as error:
        raise EmbeddedError(f"The demonstration cannot be prepared: {error}") from error


def processes(run: Path) -> dict[str, psutil.Process]:
    """The demonstration's live processes by component, from `<run>/<component>/pid`.

    A pid file older than the process it names is stale: the number belongs to somebody else now.
    """
    found: dict[str, psutil.Process] = {}
    for path in sorted(run.glob("*/pid")):
        try:
            process = psutil.Process(int(path.read_text(encoding="ascii").split()[0]))
            is_ours = process.create_time() <= path.stat().st_mtime + CLOCK_SLACK_S
        except (psutil.NoSuchProcess, FileNotFoundError, ValueError, IndexError):
            continue
        if is_ours and is_alive(process):
            found[path.parent.name] = process
    return found


async def wait_until_gone(run: Path, *, timeout_s: float, hurry: asyncio.Event) -> list[str]:
    """Wait until none is left or somebody is in a hurry; returns `component (pid n)` for each that is left.

    The lease must be free by then.
    """
    found = processes(run)
    waiting = asyncio.create_task(wait_gone(found.values(), timeout_s=timeout_s))
    hurried = asyncio.create_task(hurry.wait())
    await first_of(waiting, hurried)
    for task in (waiting, hurried):
        task.cancel()
    await asyncio.gather(waiting, hurried, return_exceptions=True)
    return [f"{name} (pid {process.pid})" for name, process in found.items() if is_alive(process)]
