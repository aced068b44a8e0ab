"""Several sessions at a time, each with another gateway: when one of them dies, the backend goes on by the next."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable, Sequence

from websockets.asyncio.client import ClientConnection

from opsmap_agent.session import Session
from opsmap_daemon.connection import Addresses, Dialler, GaveUpError, judge

_logger = logging.getLogger(__name__)

_LEAVING_S = 30.0
"""How long a session with a gateway that is about to stop goes on at most, once another address is being dialled."""

_RETRY_S = 30.0


class _RelievedError(Exception):
    """Another slot has taken over."""


class Slot:
    """One session after another. A session whose gateway is about to stop says so with `leave`."""

    def __init__(self, dialler: Dialler, relieve: Callable[[], bool]) -> None:
        self.dialler = dialler
        self.is_relieved = False
        self._relieve = relieve

    def leave(self, session: Session) -> None:
        """Let another slot dial another address, if one is free. The session goes on meanwhile, but not for ever."""
        if not self.is_relieved and self._relieve():
            self.is_relieved = True
            asyncio.get_running_loop().call_later(_LEAVING_S, session.end)


Hold = Callable[[ClientConnection, Slot], Awaitable[None]]
"""Serves one connection of a slot until it ends."""


class Slots:
    """Keeps `count` sessions with different ones of `urls`, at most one with each.

    Args:
        urls: in the order in which the first slot tries them; the second begins at the second, and so on.
        make_dialler: for those URLs, with the addresses that all slots share.
    """

    def __init__(
        self,
        urls: Sequence[str],
        count: int,
        make_dialler: Callable[[Sequence[str], Addresses], Dialler],
        hold: Hold,
    ) -> None:
        self._urls = urls
        self._count = min(count, len(urls))
        self._make_dialler = make_dialler
        self._hold = hold
        self._addresses = Addresses()
        self._serving: set[Slot] = set()

    async def run(self) -> None:
        """Until cancelled. Raises GaveUpError when a slot has given up and no other one has a session."""
        try:
            async with asyncio.TaskGroup() as group:
                for first in range(self._count):
                    group.create_task(self._keep(group, [*self._urls[first:], *self._urls[:first]]))
        except* GaveUpError as failures:
            # One clear line instead of a traceback.
            gave_up = failures.exceptions[0]
        else:
            return
        raise gave_up

    async def _keep(self, group: asyncio.TaskGroup, urls: Sequence[str]) -> None:
        def relieve() -> bool:
            if not self._addresses.are_free(urls):
                return False
            group.create_task(self._keep(group, urls))
            return True

        slot = Slot(self._make_dialler(urls, self._addresses), relieve)
        while True:
            try:
                await slot.dialler.run(lambda socket: self._serve(socket, slot))
            except _RelievedError:
                return
            except GaveUpError as error:
                if not self._serving:
                    raise
                _logger.warning("%s; another gateway serves this agent", error)
                await asyncio.sleep(_RETRY_S)

    async def _serve(self, socket: ClientConnection, slot: Slot) -> None:
        self._serving.add(slot)
        try:
            await self._hold(socket, slot)
        except Exception as error:
            if not slot.is_relieved or judge(error) is None:
                raise
        finally:
            self._serving.discard(slot)
        if slot.is_relieved:
            raise _RelievedError


def in_order_of(agent_id: str, urls: Sequence[str]) -> list[str]:
    """The URLs in an order that is each agent's own and never changes: so agents spread over gateways."""
    return sorted(urls, key=lambda url: hashlib.sha256(f"{agent_id} {url}".encode()).digest())
