"""Heartbeats of all agents in one message, the newest of each, once an interval, with what the gateway had to drop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from opsmap_gateway.counters import Counters, Loss
from opsmap_protocol.codec import encode
from opsmap_protocol.messages import AggregatedHeartbeat, Heartbeat

MAX_HEARTBEAT_BYTES = 1_024
_MAX_AGENTS_PER_MESSAGE = 500
"""Together: a message stays far below the limit of a frame, however many agents there are and whatever they say."""


class Heartbeats:
    """Collects and forwards.

    Args:
        forward: takes a frame for the backend; False if the backend is away.
        now, sleep: time, for tests.
    """

    def __init__(
        self,
        *,
        gateway_id: str,
        interval_s: float,
        forward: Callable[[str], Awaitable[bool]],
        counters: Counters,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._gateway_id = gateway_id
        self._interval_s = interval_s
        self._forward = forward
        self._counters = counters
        self._now = now
        self._sleep = sleep
        self._latest: dict[str, Heartbeat] = {}
        self._told: dict[str, int] = {}
        """The losses that the backend knows of."""

    def add(self, heartbeat: Heartbeat) -> None:
        self._latest[heartbeat.agent_id] = heartbeat

    async def run(self) -> None:
        """Forward once an interval until cancelled. One in which nobody spoke and nothing was lost is passed over."""
        while True:
            await self._sleep(self._interval_s)
            await self.flush()

    async def flush(self) -> None:
        """Forward what has come, or drop it if the backend is away: the next heartbeat is worth more."""
        heartbeats = list(self._latest.values())
        self._latest.clear()
        for start in range(0, len(heartbeats), _MAX_AGENTS_PER_MESSAGE):
            part = heartbeats[start : start + _MAX_AGENTS_PER_MESSAGE]
            if not await self._tell(part):
                self._counters.count(Loss.HEARTBEAT_DROPPED, len(part))
        if self._counters.totals() != self._told:
            await self._tell([])

    async def _tell(self, heartbeats: list[Heartbeat]) -> bool:
        losses = self._counters.totals()
        message = AggregatedHeartbeat(
            gateway_id=self._gateway_id, agents=heartbeats, timestamp=self._now(), losses=losses
        )
        is_told = await self._forward(encode(message))
        if is_told:
            self._told = losses
        return is_told
