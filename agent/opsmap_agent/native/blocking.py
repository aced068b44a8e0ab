"""Calls that may hang, as a look at a dead file system does: each in a thread of its own that nobody has to wait for.

A thread cannot be ended from outside. One that hangs is therefore left behind and counted: it holds up neither other
commands nor the end of the agent, and of one command only so many may hang that a dead mount cannot fill the host with
threads.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

MAX_WORKING = 4
"""Calls of one name at once that are within their time. Who comes later waits for one of them, and for no other."""

MAX_HANGING = 3
"""Calls of one name that were given up and have not come back; then no more are begun."""


class NoThreadError(Exception):
    """Too many calls of that name hang already, or the host has no thread to spare. The message says which."""


@dataclass(slots=True)
class _Calls:
    """Those of one name; `users` counts who waits for them or for a place among them."""

    places: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MAX_WORKING))
    hanging: dict[threading.Thread, float] = field(default_factory=dict)
    users: int = 0


class BlockingCalls:
    """One for an agent. Threads are daemons: what hangs must not hold up the agent's end."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._calls: dict[str, _Calls] = {}

    async def run(self, name: str, call: Callable[[], Any]) -> Any:
        """What `call` returns or raises. Cancelling leaves its thread behind until it ends by itself.

        Raises:
            NoThreadError: too many calls named `name` have not come back.
        """
        calls = self._calls.setdefault(name, _Calls())
        calls.users += 1
        try:
            self._check_hanging(name, calls)
            async with calls.places:
                # Again: those that it waited for may be what hangs.
                self._check_hanging(name, calls)
                return await self._run(name, calls, call)
        finally:
            calls.users -= 1
            if not calls.users and not calls.hanging:
                del self._calls[name]

    async def _run(self, name: str, calls: _Calls, call: Callable[[], Any]) -> Any:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Any] = loop.create_future()
        thread = threading.Thread(target=_work, args=(call, loop, answer), name=f"native {name}", daemon=True)
        begun = self._clock()
        try:
            thread.start()
        except RuntimeError as error:
            raise NoThreadError(f"this host gives the agent no thread for {name!r}: {error}") from None
        try:
            return await answer
        except asyncio.CancelledError:
            calls.hanging[thread] = begun
            raise

    def _check_hanging(self, name: str, calls: _Calls) -> None:
        for thread in [thread for thread in calls.hanging if not thread.is_alive()]:
            del calls.hanging[thread]
        if len(calls.hanging) >= MAX_HANGING:
            since_s = self._clock() - min(calls.hanging.values())
            raise NoThreadError(
                f"{len(calls.hanging)} calls of {name!r} hang on this host, the first for {since_s:.0f} s: "
                "no more are begun until one comes back"
            )


def _work(call: Callable[[], Any], loop: asyncio.AbstractEventLoop, answer: asyncio.Future[Any]) -> None:
    result: Any = None
    failure: Exception | None = None
    try:
        result = call()
    except Exception as error:
        failure = error
    with suppress(RuntimeError):  # The loop is closed: nobody waits any more.
        loop.call_soon_threadsafe(_deliver, answer, result, failure)


def _deliver(answer: asyncio.Future[Any], result: Any, failure: Exception | None) -> None:
    if answer.done():
        return
    if failure is None:
        answer.set_result(result)
    else:
        answer.set_exception(failure)
