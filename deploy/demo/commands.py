"""What `control.py` does: start, stop and ask after one component.

`start` stays in the foreground and *is* the component until it ends, because an agent launches it detached.
The exit codes are those of init scripts: 0 done (or already so), 1 failed, 3 not running.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from deploy.demo.components import COMPONENTS, Component, Kind
from deploy.demo.journal import say
from deploy.demo.lease import is_free
from deploy.demo.settings import Settings
from deploy.demo.slot import Slot

_PREDECESSOR_TIMEOUT_S = 3.0
_STOP_TIMEOUT_S = 8.0
_KILL_TIMEOUT_S = 2.0

_EXIT_FAILED = 1
_EXIT_STOPPED = 3


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="control.py", description="Start, stop or ask after one component.")
    parser.add_argument("action", choices=("start", "stop", "status"))
    parser.add_argument("name", choices=tuple(COMPONENTS), metavar="NAME")
    parser.add_argument("--state", type=Path, required=True, help="folder of pid files and data")
    parser.add_argument("--lease", type=Path, required=True, help="file that the supervisor holds a lock on")
    options = parser.parse_args(arguments)
    component, slot = COMPONENTS[options.name], Slot(options.state.absolute(), options.name)
    if options.action == "start":
        return _start(component, slot, options.lease, options.state)
    if options.action == "stop":
        return _stop(component, slot)
    pid = slot.main_pid() if slot.is_held() else None
    say(f"{component.name} is not running" if pid is None else f"{component.name} is running (pid {pid})")
    return _EXIT_STOPPED if pid is None else 0


def _start(component: Component, slot: Slot, lease: Path, state: Path) -> int:
    """Be the component until it ends, its lease is over, or somebody stops it."""
    if is_free(lease):
        say(f"{component.name} does not start: no supervisor holds {lease}")
        return _EXIT_FAILED
    # 1. Two at once never run; a predecessor on its way out is waited for.
    if not slot.acquire(timeout_s=_PREDECESSOR_TIMEOUT_S):
        if (pid := slot.main_pid()) is not None:
            say(f"{component.name} is already running (pid {pid})")
            return 0
        say(f"{component.name} does not start: a process of it still holds {slot.directory}")
        return _EXIT_FAILED
    # 2. Until a server of its own takes over, this process is the component.
    slot.record(os.getpid())
    try:
        return _run(component, slot, Settings.read(state), is_over=lambda: _is_over(lease))
    except OSError as error:
        say(f"{component.name} failed: {error}")
        return _EXIT_FAILED
    finally:
        slot.forget()


def _run(component: Component, slot: Slot, settings: Settings, *, is_over: Callable[[], bool]) -> int:
    if component.kind is Kind.SERVICE:
        from deploy.demo.service import Service

        for signum in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, _leave)
        Service(component, settings.ports, is_over=is_over).run()
        return 0
    from deploy.demo.servers import run_server

    return run_server(component, slot, settings, is_over=is_over)


def _is_over(lease: Path) -> bool:
    if is_over := is_free(lease):
        say("the supervisor is gone: ending")
    return is_over


def _leave(signum: int, frame: FrameType | None) -> None:
    """Unwind from wherever the service is. Once: a second signal must not interrupt the cleaning up."""
    for other in (signal.SIGTERM, signal.SIGINT):
        signal.signal(other, signal.SIG_IGN)
    say(f"ending on {signal.Signals(signum).name}")
    sys.exit(0)


def _stop(component: Component, slot: Slot) -> int:
    if not slot.is_held():
        say(f"{component.name} is already stopped")
        return 0
    # PostgreSQL's "fast" shutdown: on SIGTERM it would wait for its clients to leave.
    ask = signal.SIGINT if component.kind is Kind.POSTGRESQL else signal.SIGTERM
    try:
        if slot.end(ask, timeout_s=_STOP_TIMEOUT_S):
            say(f"{component.name} has stopped")
        elif slot.end(signal.SIGKILL, timeout_s=_KILL_TIMEOUT_S):
            say(f"{component.name} did not stop within {_STOP_TIMEOUT_S:.0f} s: killed")
        else:
            say(f"{component.name} cannot be stopped: a process of it still holds {slot.directory}")
            return _EXIT_FAILED
    except PermissionError as error:
        say(f"{component.name} cannot be stopped: {error}")
        return _EXIT_FAILED
    return 0
