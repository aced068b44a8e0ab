"""One thread that owns a SQLite connection and commits what the event loop hands it, in groups.

An fsync takes as long for fifty writes as for one: whatever arrives while one commit is on its way to the disk goes
into the next together. When idle a write is committed at once.
"""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

_logger = logging.getLogger(__name__)

T = TypeVar("T")
_MAX_GROUP = 500


class CommitError(Exception):
    """The disk did not take it (full, read-only, broken): nothing of the group is stored."""


@dataclass(slots=True)
class _Write(Generic[T]):
    work: Callable[[sqlite3.Connection], T]
    future: asyncio.Future[T]
    on_committed: Callable[[T], None] | None
    outcome: T | BaseException | None = None


class Committer:
    """The connection is opened and closed in the thread; only it touches SQLite."""

    def __init__(self, path: Path, schema: str) -> None:
        self._path = path
        self._schema = schema
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[_Write[Any] | None] = queue.SimpleQueue()
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)

    async def start(self) -> None:
        """Raises CommitError if the file cannot be opened."""
        self._thread.start()
        await self._opened

    async def stop(self) -> None:
        """Commits all that was submitted before."""
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    async def submit(
        self,
        work: Callable[[sqlite3.Connection], T],
        on_committed: Callable[[T], None] | None = None,
    ) -> T:
        """Run `work` in the thread and return its result once it is on disk.

        Work begins in the order of submission. `on_committed` is called in the event loop, in that order too, even
        if the caller has been cancelled meanwhile.

        Raises:
            CommitError: it is not stored.
        """
        future: asyncio.Future[T] = self._loop.create_future()
        write = _Write(work, future, on_committed)
        self._queue.put(write)
        return await future

    def _run(self) -> None:
        try:
            connection = self._open()
        except (OSError, sqlite3.Error) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            failure = CommitError(f"{self._path}: {reason}")
            self._loop.call_soon_threadsafe(self._opened.set_exception, failure)
            return
        self._loop.call_soon_threadsafe(self._opened.set_result, None)
        is_running = True
        while is_running:
            group, is_running = self._next_group()
            if group:
                _commit(connection, group)
                self._loop.call_soon_threadsafe(_deliver, group)
        connection.close()

    def _open(self) -> sqlite3.Connection:
        # Made by us first: commands may carry secrets, and SQLite would leave the mode to the umask.
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        connection = sqlite3.connect(self._path, isolation_level=None)
        connection.execute("PRAGMA journal_mode = WAL")
        # FULL syncs the log at every commit: what was promised to the backend must survive a power cut.
        connection.execute("PRAGMA synchronous = FULL")
        # Half a megabyte of pages instead of two: the agent has to be small, and reads its journal rarely.
        connection.execute("PRAGMA cache_size = -512")
        connection.executescript(self._schema)
        return connection

    def _next_group(self) -> tuple[list[_Write[Any]], bool]:
        group: list[_Write[Any]] = []
        write = self._queue.get()
        while write is not None:
            group.append(write)
            if len(group) == _MAX_GROUP:
                return group, True
            try:
                write = self._queue.get_nowait()
            except queue.Empty:
                return group, True
        return group, False


def _commit(connection: sqlite3.Connection, group: list[_Write[Any]]) -> None:
    try:
        connection.execute("BEGIN IMMEDIATE")
        if len(group) == 1:
            # By far the most: the transaction is savepoint enough.
            group[0].outcome = group[0].work(connection)
        else:
            for write in group:
                _run_beside_others(connection, write)
        connection.execute("COMMIT")
    except Exception as error:
        # SQLite may have rolled back by itself already.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        failure = error
        if _is_of_the_disk(error):
            _logger.error("the journal cannot be written: %s", error)
            failure = CommitError(str(error))
        for write in group:
            write.outcome = failure


def _run_beside_others(connection: sqlite3.Connection, write: _Write[Any]) -> None:
    """A fault in one write is that writer's alone; a fault of the disk concerns the group and is raised."""
    connection.execute("SAVEPOINT one")
    try:
        write.outcome = write.work(connection)
    except Exception as error:
        if _is_of_the_disk(error):
            raise
        connection.execute("ROLLBACK TO one")
        write.outcome = error
    connection.execute("RELEASE one")


def _is_of_the_disk(error: Exception) -> bool:
    """Full, read-only, locked or broken (which is a plain DatabaseError), against a violated rule of the schema."""
    return isinstance(error, sqlite3.OperationalError) or type(error) is sqlite3.DatabaseError


def _deliver(group: list[_Write[Any]]) -> None:
    for write in group:
        is_stored = not isinstance(write.outcome, BaseException)
        if is_stored and write.on_committed is not None:
            write.on_committed(write.outcome)
        if write.future.done():
            continue
        if isinstance(write.outcome, BaseException):
            write.future.set_exception(write.outcome)
        else:
            write.future.set_result(write.outcome)
