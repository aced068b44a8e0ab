"""Database work of links, off the event loop, by threads that keep their connections.

Channels' own `database_sync_to_async` gives its connection back to the pool after every call, and takes and sets up one
before: half a millisecond each time, on the path of every command. These threads are few, serve all links of the
process, and give their connections back when the last link is gone.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from django.db import connection

T = TypeVar("T")
MAX_THREADS = 8


class _Worker:
    """One thread and how much it has to do."""

    def __init__(self, number: int) -> None:
        self.jobs = 0
        self.executor = ThreadPoolExecutor(1, thread_name_prefix=f"link-database-{number}")

    def submit(self, job: Callable[[], T]) -> concurrent.futures.Future[T]:
        self.jobs += 1
        future = self.executor.submit(job)
        future.add_done_callback(self._done)
        return future

    def _done(self, future: concurrent.futures.Future[Any]) -> None:
        self.jobs -= 1


class LinkDatabase:
    """The database as one link uses it: `run` its work, `close` when the link is gone."""

    _workers: list[_Worker] = []
    _links = 0

    def __init__(self) -> None:
        self._running: set[concurrent.futures.Future[Any]] = set()
        type(self)._links += 1

    async def run(self, function: Callable[..., T], /, **arguments: Any) -> T:
        """Call `function` in a thread; the connection it used is dropped if it fails."""
        future = self._pick().submit(partial(_call, function, arguments))
        self._running.add(future)
        future.add_done_callback(self._running.discard)
        return await asyncio.wrap_future(future)

    async def settle(self) -> None:
        """Wait for work that was given up: what it does to the database is done then."""
        if running := list(self._running):
            await asyncio.to_thread(concurrent.futures.wait, running)

    async def close(self) -> None:
        cls = type(self)
        cls._links -= 1
        if cls._links == 0:
            workers, cls._workers = cls._workers, []
            for worker in workers:
                await asyncio.wrap_future(worker.submit(_disconnect))
                worker.executor.shutdown(wait=False)

    @classmethod
    def _pick(cls) -> _Worker:
        """An idle thread, the first one rather than the last; a new one if all are busy and there may be more."""
        for worker in cls._workers:
            if worker.jobs == 0:
                return worker
        if len(cls._workers) < MAX_THREADS:
            cls._workers.append(_Worker(len(cls._workers)))
            return cls._workers[-1]
        return min(cls._workers, key=lambda worker: worker.jobs)


def _call(function: Callable[..., T], arguments: dict[str, Any]) -> T:
    try:
        return function(**arguments)
    except Exception:
        connection.close()
        raise


def _disconnect() -> None:
    # `connection` is this thread's own.
    connection.close()
