"""Frames on their way to one peer, in order and bounded: a peer that does not read harms only itself."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from opsmap_gateway.counters import Flow


@dataclass(slots=True)
class Quota:
    """How many frames may wait in several outboxes together, and how much they may hold.

    `max_bytes` counts characters, as outboxes do: it bounds memory, not the network.
    """

    limit: int
    max_bytes: int = 256 * 1024 * 1024
    used: int = 0
    used_bytes: int = 0

    def is_full_for(self, outbox: Outbox) -> bool:
        """Whether one more is too much. Beyond the number, a peer for which nothing waits yet may still have one."""
        return self.used_bytes >= self.max_bytes or (self.used >= self.limit and len(outbox) > 0)


class Outbox:
    """A queue with one reader, `write_to`.

    Args:
        max_frames, max_bytes: the bounds. One frame is always let in, whatever its size.
        quota: counts the waiting frames of all outboxes that share it. The outbox keeps it, its users obey it.
        first: what the peer must hear before anything else. It may exceed the bounds.
        flow: counts what is sent.
    """

    def __init__(
        self,
        *,
        max_frames: int,
        max_bytes: int,
        quota: Quota | None = None,
        first: Iterable[str] = (),
        flow: Flow | None = None,
    ) -> None:
        self._max_frames = max_frames
        self._max_bytes = max_bytes
        self._quota = quota or Quota(max_frames)
        self._flow = flow or Flow()
        self._frames: deque[str] = deque()
        self._bytes = 0
        self._filled = asyncio.Event()
        self._drained = asyncio.Event()
        self._is_closed = False
        for frame in first:
            self._append(frame)

    def __len__(self) -> int:
        return len(self._frames)

    def offer(self, frame: str) -> bool:
        """Take the frame if there is room; never waits."""
        if self._is_closed or not self._has_room(frame):
            return False
        self._append(frame)
        return True

    async def put(self, frame: str) -> bool:
        """Take the frame, waiting for room. False if the outbox was closed instead."""
        while not self._is_closed and not self._has_room(frame):
            self._drained.clear()
            await self._drained.wait()
        return self.offer(frame)

    async def write_to(self, send: Callable[[str], Awaitable[None]], timeout_s: float) -> None:
        """Send frame after frame until cancelled or until `send` raises.

        Raises:
            TimeoutError: the peer did not take a frame in time. Pings would not notice: they wait behind it.
        """
        while True:
            while self._frames:
                try:
                    frame = self._pop()
                    async with asyncio.timeout(timeout_s):
                        await send(frame)
                    self._flow.count(frame)
                except TimeoutError:
                    raise TimeoutError("the peer takes no more frames") from None
            self._filled.clear()
            await self._filled.wait()

    def close(self) -> list[str]:
        """Take no more frames and let everybody go who waits for room; returns what was never sent."""
        self._is_closed = True
        self._drained.set()
        return [self._pop() for _ in range(len(self._frames))]

    def _has_room(self, frame: str) -> bool:
        if not self._frames:
            return True
        return len(self._frames) < self._max_frames and self._bytes + len(frame) <= self._max_bytes

    def _append(self, frame: str) -> None:
        self._frames.append(frame)
        self._bytes += len(frame)
        self._quota.used += 1
        self._quota.used_bytes += len(frame)
        self._filled.set()

    def _pop(self) -> str:
        frame = self._frames.popleft()
        self._bytes -= len(frame)
        self._quota.used -= 1
        self._quota.used_bytes -= len(frame)
        self._drained.set()
        return frame
