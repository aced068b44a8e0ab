"""`python -m deploy.embedded clean`: removes what was made for a state folder, inside and outside of it."""

import asyncio
import errno
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from deploy.embedded import demonstration, leftovers, postgres
from deploy.embedded.errors import EXIT_FAILED, EXIT_USAGE
from deploy.embedded.lock import SupervisorLock
from deploy.embedded.placement import OUTSIDE, outside_folder
from deploy.embedded.removal import remove_folder
from deploy.embedded.state import NESTED_STATES, OWN_NAMES, OWN_PREFIXES, StateFolder

DEMONSTRATION_PATIENCE_S = 15.0


def clean(path: Path, *, is_confirmed: bool) -> int:
    """Remove the data of this state folder and of those nested in it; asks first unless it is confirmed."""
    resolved = path.expanduser().resolve()
    states = [StateFolder(folder) for folder in _states(resolved)]
    doomed = [made for state in states for made in _made_for(state)]
    if not doomed:
        print(f"There is nothing of OpsMap in {resolved}.")
        return 0
    print("This removes, with all their data:")
    for made in doomed:
        print(f"  {made}")
    if not is_confirmed and not _ask():
        return EXIT_USAGE
    return max(_remove(state) for state in states)


def _states(path: Path) -> Iterator[Path]:
    for name in NESTED_STATES:
        if (path / name / "supervisor.lock").exists():
            yield path / name
    yield path


def _made_for(state: StateFolder) -> Iterator[Path]:
    """What exists of what OpsMap makes; never anything else that lies in the folder."""
    outside = outside_folder(state)
    if outside.exists():
        yield outside
    if not state.path.is_dir():
        return
    for entry in sorted(state.path.iterdir()):
        if entry.name in OWN_NAMES or entry.name.startswith(OWN_PREFIXES):
            yield entry


def _ask() -> bool:
    if not sys.stdin.isatty():
        print("Say so with --yes (make clean YES=1).", file=sys.stderr)
        return False
    return input("Remove? [y/N] ").strip().lower() in {"y", "yes"}


def _remove(state: StateFolder) -> int:
    if not state.path.is_dir():
        asyncio.run(_remove_made(state))
        return 0
    with SupervisorLock(state.path / "supervisor.lock"):
        if left := asyncio.run(_end_leftovers(state)):
            print(f"Still running: {', '.join(left)}. Nothing was removed.", file=sys.stderr)
            return EXIT_FAILED
        asyncio.run(_remove_made(state))
    if not any(state.path.iterdir()):
        state.path.rmdir()
    return 0


async def _end_leftovers(state: StateFolder) -> list[str]:
    """End what a killed supervisor has left; names what does not go."""
    await leftovers.sweep(state.path / "children.json", print)
    for home in (state.path, outside_folder(state)):
        await postgres.stop_leftover(home / "postgres", print)
    return await demonstration.wait_until_gone(
        state.demo_run, timeout_s=DEMONSTRATION_PATIENCE_S, hurry=asyncio.Event()
    )


async def _remove_made(state: StateFolder) -> None:
    for made in list(_made_for(state)):
        if made.is_dir() and not made.is_symlink():
            await remove_folder(made)
        else:
            made.unlink()
    if os.geteuid() == 0:
        _remove_empty(OUTSIDE)


def _remove_empty(folder: Path) -> None:
    """The common parent goes with its last folder; another state folder may be using it."""
    try:
        folder.rmdir()
    except OSError as error:
        if error.errno not in {errno.ENOENT, errno.ENOTEMPTY}:
            raise
