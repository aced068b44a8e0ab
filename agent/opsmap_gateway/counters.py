"""What the gateway carried, and what it did not pass on: nothing is dropped or refused without showing up here."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import StrEnum

_logger = logging.getLogger(__name__)
_REPORT_INTERVAL_S = 60.0


class Loss(StrEnum):
    """Why a frame or a connection went no further."""

    CONNECTION_REFUSED = "connection_refused"
    """An agent was not let in: identity, version, too many connections, no registration."""
    CONNECTION_DROPPED = "connection_dropped"
    """A connection that had not registered in time, or while too many had not."""
    BAD_FRAME_FROM_AGENT = "bad_frame_from_agent"
    BAD_FRAME_FROM_BACKEND = "bad_frame_from_backend"
    BACKEND_AWAY = "backend_away"
    """A frame for the backend while it was away. What matters of it, agents repeat after the next `resume`."""
    HEARTBEAT_DROPPED = "heartbeat_dropped"
    COMMAND_REFUSED = "command_refused"
    """Answered with `command_refused`: the agent is not here, or too much is waiting."""
    AGENT_AWAY = "agent_away"
    """No command, and for an agent that is not here or left too soon. The backend repeats it when it comes."""
    AGENT_TOO_SLOW = "agent_too_slow"
    """A frame that did not fit in the queue of an agent, whose session was ended for it."""
    REFUSAL_UNDELIVERED = "refusal_undelivered"
    """An answer to the backend that it did not take; the lease of its command runs out instead."""
    DISCOVERY_TOO_MUCH = "discovery_too_much"
    """Discovery results that had to go for newer ones: the backend was away for too long."""
    DISCOVERY_UNREADABLE = "discovery_unreadable"
    """A batch that an earlier process had written and that could not be read back."""
    DISCOVERY_REFUSED = "discovery_refused"
    """A batch that the backend answered with an error."""
    DISCOVERY_UNSAVED = "discovery_unsaved"
    """Results that were in memory only, because they could not be written, when the gateway stopped."""


@dataclass(slots=True)
class Flow:
    """What has gone one way on a link."""

    frames: int = 0
    total_bytes: int = 0

    def count(self, frame: str | bytes) -> None:
        self.frames += 1
        self.total_bytes += len(frame) if isinstance(frame, bytes) or frame.isascii() else len(frame.encode())


@dataclass(slots=True)
class Traffic:
    """All that was carried since the start of the process."""

    from_agents: Flow = field(default_factory=Flow)
    to_agents: Flow = field(default_factory=Flow)
    from_backend: Flow = field(default_factory=Flow)
    to_backend: Flow = field(default_factory=Flow)


class Counters:
    """Totals since the start of the process."""

    def __init__(self) -> None:
        self.traffic = Traffic()
        self._totals: Counter[Loss] = Counter()
        self._logged: Counter[Loss] = Counter()

    def count(self, loss: Loss, amount: int = 1) -> None:
        if amount:
            self._totals[loss] += amount

    def total(self, loss: Loss) -> int:
        return self._totals[loss]

    def totals(self) -> dict[str, int]:
        """By reason; without those that never happened."""
        return {str(loss): amount for loss, amount in sorted(self._totals.items())}

    async def run(self, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        """Log what is new, once a minute and at the end, until cancelled."""
        try:
            while True:
                await sleep(_REPORT_INTERVAL_S)
                self._log_new()
        finally:
            self._log_new()

    def _log_new(self) -> None:
        new = self._totals - self._logged
        if new:
            parts = [f"{loss} {amount} (of {self._totals[loss]})" for loss, amount in sorted(new.items())]
            _logger.warning("not passed on since the last report: %s", ", ".join(parts))
        self._logged = self._totals.copy()
