"""A daemon from start to signal: SIGTERM or SIGINT cancels its main task and waits for it to clean up."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Coroutine
from typing import Any

_logger = logging.getLogger(__name__)
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


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


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run `main` in a new event loop until it returns or a signal stops it.

    Being cancelled by a signal is the normal end; any exception of `main` propagates. A second signal is not
    awaited: it ends the process at once, for the operator who has waited long enough.
    """
    asyncio.run(_until_signal(main))


async def _until_signal(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    loop = asyncio.get_running_loop()
    work = asyncio.create_task(main(), name="main")
    received: list[signal.Signals] = []

    def stop(number: signal.Signals) -> None:
        _logger.info("stopping on %s", number.name)
        received.append(number)
        for each in _SIGNALS:
            loop.remove_signal_handler(each)
        work.cancel()

    for number in _SIGNALS:
        loop.add_signal_handler(number, stop, number)
    try:
        await work
    except asyncio.CancelledError:
        if not received:
            raise
