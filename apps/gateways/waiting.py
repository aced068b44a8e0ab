"""Waiting for commands to end, without a thread or a database connection for each who waits.

All who wait in one event loop share a room: one subscription to the hints that commands have ended, and one look into
the database each second for what no hint told. A command may have ended between the moment when somebody saw it open
and the moment when they come in: the room remembers for a while what it has heard, and who saw theirs before that, or
before the room was open, is looked for at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import math
import time
import uuid
from collections import deque
from collections.abc import Callable, Collection, Coroutine, Set
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

from channels.db import database_sync_to_async
from channels.layers import get_channel_layer
from redis.exceptions import RedisError

from apps.gateways.dispatch import COMMANDS_GROUP
from apps.gateways.enums import OPEN_STATES
from apps.gateways.models import Command

logger = logging.getLogger(__name__)

LOOK_INTERVAL_S = 1.0
LINGER_S = 30.0
"""How long an empty room stays open: opening one costs a subscription."""
MEMORY_S = 5.0
"""How long a room remembers what it has heard."""


async def wait_for_ends(command_ids: Collection[uuid.UUID], *, timeout_s: float, seen_open_at: float) -> None:
    """Returns when all these commands have ended, or after `timeout_s`.

    Args:
        seen_open_at: not after the commands were seen open, or were not even there (`time.monotonic()`).
    """
    loop = asyncio.get_running_loop()
    room = _rooms.get(loop)
    if room is None:
        room = _rooms[loop] = _Room()
    await room.wait(command_ids, timeout_s, seen_open_at)


@dataclass(slots=True, eq=False)
class _Waiter:
    """Somebody, and the commands that still keep them."""

    open_ids: set[uuid.UUID]
    is_over: asyncio.Event = field(default_factory=asyncio.Event)

    def take_away(self, ended: Set[uuid.UUID]) -> None:
        self.open_ids -= ended
        if not self.open_ids:
            self.is_over.set()


class _Memory:
    """Which commands were told to have ended, for `MEMORY_S`; times are those of `time.monotonic()`."""

    def __init__(self) -> None:
        self._listens_since = math.inf
        self._hints: deque[tuple[float, Set[uuid.UUID]]] = deque()
        self.ended: set[uuid.UUID] = set()

    def begin(self) -> None:
        self._listens_since = time.monotonic()

    def end(self) -> None:
        self._listens_since = math.inf
        self._hints.clear()
        self.ended.clear()

    def add(self, ended: Set[uuid.UUID]) -> None:
        now = time.monotonic()
        self._hints.append((now, ended))
        self.ended |= ended
        while self._hints[0][0] < now - MEMORY_S:
            self.ended -= self._hints.popleft()[1]

    def reaches(self, moment: float) -> bool:
        """Whether it holds every hint since then."""
        return moment >= max(self._listens_since, time.monotonic() - MEMORY_S)


class _Room:
    """Everybody who waits in one event loop."""

    def __init__(self) -> None:
        self._waiters: set[_Waiter] = set()
        self._is_look_wanted = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._closing: asyncio.TimerHandle | None = None
        self._is_deaf = False
        self._heard = _Memory()

    async def wait(self, command_ids: Collection[uuid.UUID], timeout_s: float, seen_open_at: float) -> None:
        waiter = _Waiter(set(command_ids))
        self._waiters.add(waiter)
        self._open()
        if self._heard.reaches(seen_open_at):
            waiter.take_away(self._heard.ended)
        else:
            self._is_look_wanted.set()
        try:
            async with asyncio.timeout(timeout_s):
                await waiter.is_over.wait()
        except TimeoutError:
            pass  # the caller sees by the commands how far they are
        finally:
            self._waiters.discard(waiter)
            if not self._waiters:
                self._closing = asyncio.get_running_loop().call_later(LINGER_S, self._close)

    def _open(self) -> None:
        if self._closing is not None:
            self._closing.cancel()
            self._closing = None
        if not self._tasks:
            self._tasks = [_start(self._listen), _start(self._look)]

    def _close(self) -> None:
        for task in self._tasks:
            task.cancel()
        self._tasks = []

    async def _listen(self) -> None:
        """Hear which commands have ended. Without Redis, the looks alone must do."""
        layer = get_channel_layer()
        assert layer is not None
        while True:
            try:
                await self._hear(layer)
            except Exception:
                # Said once: it is tried again as long as somebody waits.
                if not self._is_deaf:
                    logger.warning("hints about commands cannot be heard", exc_info=True)
                self._is_deaf = True
                await asyncio.sleep(LOOK_INTERVAL_S)

    async def _hear(self, layer: Any) -> None:
        channel = await layer.new_channel()
        try:
            await layer.group_add(COMMANDS_GROUP, channel)
            self._is_deaf = False
            self._heard.begin()
            # What ended before the subscription was there.
            self._is_look_wanted.set()
            while True:
                hint = await layer.receive(channel)
                ended = {uuid.UUID(command_id) for command_id in hint["ids"]}
                self._heard.add(ended)
                self._tell(ended)
        finally:
            self._heard.end()
            # Without Redis there is nothing to leave; the error must not take the place of a cancellation.
            with contextlib.suppress(OSError, RedisError):
                await layer.group_discard(COMMANDS_GROUP, channel)

    async def _look(self) -> None:
        """One question for everybody: when somebody has come in, and each second."""
        while True:
            try:
                async with asyncio.timeout(LOOK_INTERVAL_S):
                    await self._is_look_wanted.wait()
            except TimeoutError:
                pass  # nobody came: look anyway
            self._is_look_wanted.clear()
            waited_for = {command_id for waiter in self._waiters for command_id in waiter.open_ids}
            if not waited_for:
                continue
            try:
                self._tell(waited_for - await _in_pool_thread(list_open_ids, waited_for))
            except Exception:
                logger.warning("cannot look which commands have ended", exc_info=True)

    def _tell(self, ended: Set[uuid.UUID]) -> None:
        for waiter in self._waiters:
            waiter.take_away(ended)


_rooms: WeakKeyDictionary[asyncio.AbstractEventLoop, _Room] = WeakKeyDictionary()
_in_pool_thread: Callable[..., Any] = database_sync_to_async(
    lambda function, *arguments: function(*arguments), thread_sensitive=False
)


def _start(work: Callable[[], Coroutine[Any, Any, None]]) -> asyncio.Task[None]:
    """A task that is nobody's: it must not inherit the request, and its thread, that happened to come first."""
    return asyncio.get_running_loop().create_task(work(), context=contextvars.Context())


def list_open_ids(command_ids: Collection[uuid.UUID]) -> set[uuid.UUID]:
    """Those of the commands that have not ended."""
    return set(Command.objects.filter(pk__in=command_ids, state__in=OPEN_STATES).values_list("pk", flat=True))
