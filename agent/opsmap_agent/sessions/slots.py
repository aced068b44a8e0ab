"""Several sessions at a time, each with another gateway: when one of them dies, the backend goes on by the next."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable, Sequence

from websockets.asyncio.client import ClientConnection

from opsmap_agent.sessions.session import Session
from opsmap_daemon.connection import Addresses, Dialler, GaveUpError, judge

_logger = logging.getLogger(__name__)

_LEAVING_S = 30.0
"""How long a session with a gateway that is about to stop goes on at most, once another address is being dialled."""

_RETRY_S = 30.0
_SUCCESSION_S = 20.0
"""How long to wait for a session with a new certificate before the next one is replaced as well."""


class _RelievedError(Exception):
    """Another slot has taken over."""


class Slot:
    """One session after another. A session whose gateway is about to stop says so with `leave`."""

    def __init__(self, dialler: Dialler, urls: Sequence[str], relieve: Callable[[], bool]) -> None:
        self.dialler = dialler
        self.urls = urls
        self.is_relieved = False
        self.session: Session | None = None
        self.has_begun = asyncio.Event()
        """The backend has begun its session by the first one of this slot."""
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
        self._group: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Until cancelled. Raises GaveUpError when a slot has given up and no other one has a session."""
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                for first in range(self._count):
                    group.create_task(self._keep(group, [*self._urls[first:], *self._urls[:first]]))
        except* GaveUpError as failures:
            # One clear line instead of a traceback.
            gave_up = failures.exceptions[0]
        else:
            return
        raise gave_up

    async def renew(self) -> None:
        """Replace each session by a new one with the same gateway, one after another, made before the old one breaks.

        A slot without a session needs nothing: what it dials next is new anyway.
        """
        for slot in list(self._serving):
            if slot in self._serving and not slot.is_relieved:
                await self._succeed(slot)

    async def _succeed(self, slot: Slot) -> None:
        assert self._group is not None, "there are no slots before `run`"
        url = slot.dialler.url
        successor = self._make_slot(self._group, slot.urls)
        self._addresses.hand_over(url, successor.dialler)
        slot.is_relieved = True
        self._group.create_task(self._run(successor, first=url))
        try:
            async with asyncio.timeout(_SUCCESSION_S):
                await successor.has_begun.wait()
        except TimeoutError:
            _logger.warning("%s: no session with the new certificate after %g s", url, _SUCCESSION_S)
        # The gateway ends the old session itself, in order, as soon as it has the new one.
        if slot.session is not None:
            asyncio.get_running_loop().call_later(_LEAVING_S, slot.session.end)

    async def _keep(self, group: asyncio.TaskGroup, urls: Sequence[str]) -> None:
        await self._run(self._make_slot(group, urls))

    def _make_slot(self, group: asyncio.TaskGroup, urls: Sequence[str]) -> Slot:
        def relieve() -> bool:
            if not self._addresses.are_free(urls):
                return False
            group.create_task(self._keep(group, urls))
            return True

        return Slot(self._make_dialler(urls, self._addresses), urls, relieve)

    async def _run(self, slot: Slot, first: str | None = None) -> None:
        while True:
            try:
                await slot.dialler.run(lambda socket: self._serve(socket, slot), first)
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
