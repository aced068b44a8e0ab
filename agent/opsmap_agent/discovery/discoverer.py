"""When this host is looked at, and what of it is told to the backend.

At start, every `periodic_interval_secs`, and when the backend asks; one look at a time. Only what has changed is told,
and nothing if nothing has, but for everything once a day. Results that cannot be sent wait, and a newer one replaces
them: it builds on what was really sent.
"""

from __future__ import annotations

import asyncio
import logging
import random
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial

from websockets.exceptions import ConnectionClosed

from opsmap_agent.commands.tally import Tally
from opsmap_agent.configuration import Discovery
from opsmap_agent.discovery.apart import survey_apart
from opsmap_agent.discovery.memory import Told, load_told, save_told
from opsmap_agent.discovery.reports import Digests, KindReport
from opsmap_agent.journal.journal import Journal
from opsmap_agent.rules.remote_settings import SettingsInForce
from opsmap_agent.sessions.switchboard import Switchboard
from opsmap_protocol.enums import DiscoveryKind
from opsmap_protocol.messages import Discover, DiscoveryResult

_logger = logging.getLogger(__name__)

_MAX_START_DELAY_S = 10.0
_JITTER = 0.1
_REST_S = 5.0
"""Between two looks, however often somebody asks: a gateway may repeat a question of the backend."""

_RESYNC = timedelta(hours=24)
_MAX_ID = 64

Survey = Callable[[Sequence[DiscoveryKind], Mapping[str, Digests]], Awaitable[list[KindReport]]]


@dataclass(frozen=True, slots=True)
class _Wish:
    """What a look is for. Without `discovery_id` nobody waits for an answer."""

    kinds: frozenset[DiscoveryKind]
    discovery_id: str | None = None
    is_full: bool = False

    def together_with(self, other: _Wish) -> _Wish:
        """Both in one look; who asked last gets the answer."""
        return _Wish(self.kinds | other.kinds, other.discovery_id or self.discovery_id, self.is_full or other.is_full)


@dataclass(frozen=True, slots=True)
class _Result:
    """A message that waits to be sent, and what the backend has then."""

    message: DiscoveryResult
    told: Told


class Discoverer:
    """`run` once. The rest may be called at any time, from the event loop.

    `draw` gives numbers between 0 and 1: hosts that start together shall not all look at once. Without `may_wait`
    nothing is looked at while there is nobody to tell.
    """

    def __init__(
        self,
        *,
        agent_id: str,
        settings: Discovery,
        journal: Journal,
        switchboard: Switchboard,
        remote: SettingsInForce,
        tally: Tally,
        may_wait: bool = True,
        survey: Survey = survey_apart,
        draw: Callable[[], float] = random.random,
        rest_s: float = _REST_S,
    ) -> None:
        self._agent_id = agent_id
        self._settings = settings
        self._journal = journal
        self._switchboard = switchboard
        self._survey = survey
        self._draw = draw
        self._rest_s = rest_s
        self._kinds = frozenset(kind for kind in DiscoveryKind if getattr(settings.discover, _SWITCHES[kind]))
        self._remote = remote
        self._tally = tally
        self._may_wait = may_wait
        self._wish: _Wish | None = None
        self._wished = asyncio.Event()
        self._waiting: _Result | None = None
        self._sendable = asyncio.Event()
        self._sending = asyncio.Lock()

    async def run(self) -> None:
        """Look and tell until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._wish_regularly(), name="discovery interval")
            group.create_task(self._look_when_wished(), name="discovery")
            group.create_task(self._send_when_possible(), name="discovery sending")

    def ask(self, question: Discover) -> str | None:
        """Look as soon as may be. Returns why not, if what is asked for cannot be looked at."""
        known = {kind.value: kind for kind in self._kinds}
        wanted = frozenset(known[name] for name in question.discover_types if name in known)
        if question.discover_types and not wanted:
            return f"none of {', '.join(question.discover_types)[:200]} is discovered here"
        if not 0 < len(question.discovery_id) <= _MAX_ID:
            return f"a discovery has an id of 1 to {_MAX_ID} characters"
        self._add(_Wish(wanted or self._kinds, question.discovery_id, question.is_full))
        return None

    @property
    def waiting(self) -> DiscoveryResult | None:
        """What could not be sent yet."""
        return self._waiting.message if self._waiting else None

    def session_came_into_use(self) -> None:
        """There is a way to the backend: what waits may go."""
        self._sendable.set()
        self._wished.set()

    # Looking

    def _add(self, wish: _Wish) -> None:
        self._wish = self._wish.together_with(wish) if self._wish else wish
        self._wished.set()

    async def _wish_regularly(self) -> None:
        if self._settings.on_startup:
            await asyncio.sleep(self._draw() * min(_MAX_START_DELAY_S, self._remote.discovery_interval_s))
            self._add(_Wish(self._kinds))
        while True:
            pace = 1 + _JITTER * (2 * self._draw() - 1)
            await self._remote.pause(partial(self._interval_s, pace))
            self._add(_Wish(self._kinds))

    def _interval_s(self, pace: float) -> float:
        return self._remote.discovery_interval_s * pace

    async def _look_when_wished(self) -> None:
        while True:
            await self._wished.wait()
            self._wished.clear()
            if not self._may_wait and self._switchboard.in_use is None:
                continue  # A session that comes into use wakes us again.
            wish, self._wish = self._wish, None
            if wish is not None and wish.kinds:
                try:
                    await self._look(wish)
                except OSError as error:
                    _logger.error("this host cannot be looked at: %s", error)
                await asyncio.sleep(self._rest_s)

    async def _look(self, wish: _Wish) -> None:
        # What waits would be replaced by less than it says.
        if self._waiting is not None:
            wish = wish.together_with(_Wish(self._kinds, None, self._waiting.message.base_id is None))
        told = await load_told(self._journal)
        now = datetime.now(UTC)
        is_full = wish.is_full or told.discovery_id is None or told.is_older_than(_RESYNC, now)
        kinds = self._kinds if is_full else wish.kinds
        reports = await self._survey([kind for kind in DiscoveryKind if kind in kinds], {} if is_full else told.digests)
        self._tally.last_discovery = datetime.now(UTC)
        async with self._sending:
            # What was sent meanwhile is not what this builds on.
            if not is_full and (await load_told(self._journal)).discovery_id != told.discovery_id:
                self._add(wish)
                return
            self._waiting = self._result_of(reports, wish, told, is_full)
        self._sendable.set()

    def _result_of(self, reports: Sequence[KindReport], wish: _Wish, told: Told, is_full: bool) -> _Result | None:
        discovery_id = wish.discovery_id or str(uuid.uuid4())
        at = told.next_moment(datetime.now(UTC))
        after = told.with_reports(reports, discovery_id, at, is_full)
        findings = {report.kind.value: report.changed for report in reports if report.changed or is_full}
        removed = {report.kind.value: report.removed for report in reports if report.removed and not is_full}
        has_news = is_full or bool(findings or removed) or after.faults != told.faults
        if not has_news and wish.discovery_id is None:
            return None
        message = DiscoveryResult(
            agent_id=self._agent_id,
            discovery_id=discovery_id,
            discovered_at=at,
            findings=findings,
            base_id=None if is_full else told.discovery_id,
            removed=removed,
            faults=after.faults,
        )
        return _Result(message, after)

    # Telling

    async def _send_when_possible(self) -> None:
        while True:
            await self._sendable.wait()
            self._sendable.clear()
            async with self._sending:
                await self._send()

    async def _send(self) -> None:
        session, result = self._switchboard.in_use, self._waiting
        if session is None or result is None:
            return
        # If the session is over, the next one tells it. Lost on the way, the backend asks for everything.
        with suppress(ConnectionClosed, TimeoutError):
            await session.send_large(result.message)
            self._waiting = None
            await save_told(self._journal, result.told)
            _log_sent(result.message)


def _log_sent(message: DiscoveryResult) -> None:
    counts = ", ".join(f"{len(found)} {kind}" for kind, found in message.findings.items() if found)
    gone = sum(map(len, message.removed.values()))
    what = "everything" if message.base_id is None else "what has changed"
    _logger.info("discovery: %s was told (%s; %d gone)", what, counts or "nothing new", gone)


_SWITCHES = {
    DiscoveryKind.SERVICES: "services",
    DiscoveryKind.PROCESSES: "processes",
    DiscoveryKind.PORTS: "ports",
    DiscoveryKind.CONNECTIONS: "connections",
    DiscoveryKind.CONTAINERS: "docker",
    DiscoveryKind.PODS: "kubernetes",
    DiscoveryKind.FILESYSTEMS: "filesystems",
    DiscoveryKind.TECHNOLOGIES: "technologies",
}
"""The key of the configuration for each kind."""
