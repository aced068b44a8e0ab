"""Stopping without a loss: everybody hears of it first, and what is on its way arrives."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from opsmap_gateway.agent_server import AgentServer
from opsmap_gateway.backend_link import BackendLink
from opsmap_gateway.counters import Traffic
from opsmap_gateway.delivery import Delivery
from opsmap_gateway.outbox import Quota
from opsmap_gateway.registry import Registry
from opsmap_protocol.codec import encode
from opsmap_protocol.messages import GoAway

_logger = logging.getLogger(__name__)

MAX_DRAIN_S = 5.0
_QUIET_S = 0.5
"""So long without a frame, and nothing is on its way any more."""
_LOOK_EVERY_S = 0.05
_REASON = "the gateway is stopping"


class Drain:
    """Says `goaway` to both sides, refuses new work, and carries the rest until it is quiet."""

    def __init__(
        self,
        *,
        server: AgentServer,
        registry: Registry,
        link: BackendLink,
        delivery: Delivery,
        traffic: Traffic,
        waiting: Quota,
    ) -> None:
        self._server = server
        self._registry = registry
        self._link = link
        self._delivery = delivery
        self._traffic = traffic
        self._waiting = waiting

    async def run(self) -> None:
        """Returns when nothing moves any more, or after `MAX_DRAIN_S`."""
        self._announce()
        try:
            async with asyncio.timeout(MAX_DRAIN_S):
                await self._until_quiet(asyncio.get_running_loop().time)
        except TimeoutError:
            _logger.warning("still busy after %g s: what is left is repeated by another gateway", MAX_DRAIN_S)

    def _announce(self) -> None:
        goaway = encode(GoAway(reason=_REASON))
        self._server.turn_away()
        self._delivery.is_draining = True
        # The backend first: it must not choose this gateway for an agent that is just leaving it.
        if self._link.is_up:
            self._delivery.answer(goaway)
        for session in self._registry.sessions():
            session.protocol.drain()
            self._delivery.offer(session, goaway)

    async def _until_quiet(self, clock: Callable[[], float]) -> None:
        carried, since = self._carried(), clock()
        while self._is_anything_waiting() or (len(self._registry) and clock() - since < _QUIET_S):
            await asyncio.sleep(_LOOK_EVERY_S)
            if self._carried() != carried:
                carried, since = self._carried(), clock()

    def _is_anything_waiting(self) -> bool:
        return self._waiting.used > 0 or self._link.waiting > 0

    def _carried(self) -> tuple[int, int]:
        return self._traffic.to_agents.frames, self._traffic.to_backend.frames
