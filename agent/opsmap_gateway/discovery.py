"""What hosts find out about themselves: gathered into batches, and kept until the backend has committed them.

Agents do not keep discovery results, so the gateway does, in its buffer. A batch that was sent and not acknowledged is
sent again: the backend knows it by its id.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Awaitable, Callable

from opsmap_gateway.backend_link import BackendLink
from opsmap_gateway.buffer import Buffer
from opsmap_gateway.counters import Counters, Loss
from opsmap_protocol import MAX_FRAME_BYTES
from opsmap_protocol.codec import encode
from opsmap_protocol.messages import DiscoveryBatch

_logger = logging.getLogger(__name__)

MAX_RESULT_BYTES = MAX_FRAME_BYTES - 64 * 1024
"""One result fits into a batch, with the batch's own few words."""
_MAX_BATCH_BYTES = 1024 * 1024
_MAX_UNANSWERED = 4
"""Batches on their way at a time: after a long absence the backend gets the rest as it commits."""
_ANSWER_TIMEOUT_S = 30.0


class Discovery:
    """Gathers results, and sends batches one after another as the backend acknowledges them.

    Args:
        batch_size, batch_timeout_s: a batch is closed when it has so many results, or is so old.
        clock, sleep: time, for tests.
    """

    def __init__(
        self,
        *,
        gateway_id: str,
        batch_size: int,
        batch_timeout_s: float,
        buffer: Buffer,
        link: BackendLink,
        counters: Counters,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._gateway_id = gateway_id
        self._batch_size = batch_size
        self._batch_timeout_s = batch_timeout_s
        self._buffer = buffer
        self._link = link
        self._counters = counters
        self._clock = clock
        self._sleep = sleep
        self._gathered: list[str] = []
        self._gathered_bytes = 0
        self._closing = asyncio.Lock()
        self._begun = asyncio.Event()
        self._wake = asyncio.Event()
        self._unanswered: dict[str, float] = {}
        """When each batch was sent on the present connection."""
        self._answered: set[str] = set()
        self._refused: set[str] = set()
        """Those among the answered that the backend does not want."""

    async def add(self, result: str) -> None:
        """Take the frame of a `discovery_result`. Makes its agent wait while the disk is slow."""
        if self._gathered_bytes + len(result) > _MAX_BATCH_BYTES:
            await self.close_batch()
        self._gathered.append(result)
        self._gathered_bytes += len(result)
        self._begun.set()
        if len(self._gathered) >= self._batch_size:
            await self.close_batch()

    async def close_batch(self) -> None:
        """What has been gathered becomes a batch, and is kept before it is sent."""
        async with self._closing:
            results = self._take_gathered()
            if results:
                batch_id, frame = self._batch_of(results)
                try:
                    await asyncio.to_thread(self._buffer.keep, batch_id, frame, len(results))
                finally:
                    # Also if the agent that waited for it has just left: the thread goes on.
                    self._wake.set()

    def link_is_up(self) -> None:
        """A new connection to the backend: what was on its way by the old one may be lost."""
        self._unanswered.clear()
        self._wake.set()

    def acknowledged(self, batch_id: str) -> None:
        self._unanswered.pop(batch_id, None)
        self._answered.add(batch_id)
        self._wake.set()

    def refused(self, batch_id: str) -> None:
        """The backend answered a batch with an error. It would do so again and hold up the others for ever."""
        if batch_id in self._unanswered:
            self._refused.add(batch_id)
            self.acknowledged(batch_id)

    async def run(self) -> None:
        """Close batches in time and send them, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._close_in_time())
            tasks.create_task(self._send())
            tasks.create_task(self._repeat())

    def save(self) -> None:
        """Keep for the next process what has been gathered, after the last agent has left."""
        results = self._take_gathered()
        if results:
            batch_id, frame = self._batch_of(results)
            self._buffer.keep(batch_id, frame, len(results))
        self._buffer.close()

    async def _close_in_time(self) -> None:
        while True:
            await self._begun.wait()
            await self._sleep(self._batch_timeout_s)
            await self.close_batch()

    async def _send(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._answered:
                await self._forget(self._answered.pop())
            while (batch_id := self._next()) is not None:
                frame = await asyncio.to_thread(self._buffer.read, batch_id)
                if frame is None:
                    continue
                self._unanswered[batch_id] = self._clock()
                if not await self._link.put(frame):
                    del self._unanswered[batch_id]
                    break

    async def _forget(self, batch_id: str) -> None:
        results = await asyncio.to_thread(self._buffer.forget, batch_id)
        if batch_id in self._refused:
            self._refused.remove(batch_id)
            self._counters.count(Loss.DISCOVERY_REFUSED, results)

    async def _repeat(self) -> None:
        while True:
            await self._sleep(_ANSWER_TIMEOUT_S)
            self._wake.set()

    def _next(self) -> str | None:
        """The oldest batch that is not on its way, or has been for too long."""
        if not self._link.is_up:
            return None
        too_old = self._clock() - _ANSWER_TIMEOUT_S
        on_its_way = {name for name, sent_at in self._unanswered.items() if sent_at > too_old}
        if len(on_its_way) >= _MAX_UNANSWERED:
            return None
        waiting = (name for name in self._buffer.ids() if name not in on_its_way and name not in self._answered)
        return next(waiting, None)

    def _take_gathered(self) -> list[str]:
        results, self._gathered, self._gathered_bytes = self._gathered, [], 0
        self._begun.clear()
        return results

    def _batch_of(self, results: list[str]) -> tuple[str, str]:
        """The id and the frame. Results go in as they came: their seals and sizes stay what they were."""
        batch_id = uuid.uuid4().hex
        empty = encode(DiscoveryBatch(gateway_id=self._gateway_id, batch_id=batch_id, discoveries=[]))
        return batch_id, f"{empty.removesuffix(']}')}{','.join(results)}]}}"
