"""A daemon from start to signal: SIGTERM or SIGINT cancels its main task and waits for it to clean up."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Coroutine
from typing import Any

from opsmap_daemon import service_manager

_logger = logging.getLogger(__name__)
_SIGNALS = (signal.SIGTERM, signal.SIGINT)

Main = Callable[[], Coroutine[Any, Any, None]]


def allow_open_files(wanted: int) -> None:
    """Raise this process's limit of open files towards `wanted`, as far as the system lets it."""
    try:
        import resource
    except ImportError:  # not on Windows, which has no such limit for sockets
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    is_unlimited = hard == resource.RLIM_INFINITY
    reachable = wanted if is_unlimited else min(wanted, hard)
    if reachable < wanted:
        _logger.warning("%d open files may be needed, the system allows %d", wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < reachable:
        resource.setrlimit(resource.RLIMIT_NOFILE, (reachable, hard))


def run(main: Main, wind_down: Main | None = None) -> None:
    """Run `main` in a new event loop until it returns or a signal stops it.

    After a signal `wind_down` runs first, beside `main`, which is then cancelled. Being cancelled by a signal is the
    normal end; any exception of either propagates. A second signal is not awaited: it ends the process at once, for
    the operator who has waited long enough.
    """
    asyncio.run(_until_signal(main, wind_down))


async def _until_signal(main: Main, wind_down: Main | None) -> None:
    loop = asyncio.get_running_loop()
    work = asyncio.create_task(main(), name="main")
    tasks = {work}
    received: list[signal.Signals] = []

    def stop(number: signal.Signals) -> None:
        _logger.info("stopping on %s", number.name)
        received.append(number)
        service_manager.tell_stopping()
        for each in _SIGNALS:
            loop.remove_signal_handler(each)
        if wind_down is None:
            work.cancel()
        else:
            winding = asyncio.create_task(wind_down(), name="wind down")
            winding.add_done_callback(lambda _: work.cancel())
            tasks.add(winding)

    for number in _SIGNALS:
        loop.add_signal_handler(number, stop, number)
    try:
        await work
    except asyncio.CancelledError:
        if not received:
            raise
    finally:
        await _end(tasks - {work})


async def _end(tasks: set[asyncio.Task[None]]) -> None:
    """Stop what still runs. Raises the first exception of those that have failed."""
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled():
            task.result()
