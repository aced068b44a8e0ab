"""Which agents are connected, and, across a restart, which ones ought to be.

The file is for people who restart a gateway and want to know who did not come back. Nothing is decided by it,
so a lost or broken file costs one log line.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from opsmap_gateway.agent_session import AgentSession

_logger = logging.getLogger(__name__)
_FORMAT = 1
_SETTLE_S = 1.0
"""Changes are written together: a thousand agents that reconnect must not mean a thousand files."""
_MAX_NAMED = 20


@dataclass(frozen=True, slots=True)
class KnownAgent:
    hostname: str
    last_seen: str
    """ISO 8601, UTC; of an agent that is connected, when it came."""


class Registry:
    """Sessions by agent, and the memory of agents that were here.

    Args:
        file: where the memory is kept, or None.
        agent_timeout_s: after this long away an agent counts as missing, and may be forgotten.
        cleanup_interval_s: how often missing agents are forgotten.
        now, sleep: time, for tests.
    """

    def __init__(
        self,
        *,
        file: Path | None,
        agent_timeout_s: float,
        cleanup_interval_s: float,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._file = file
        self._agent_timeout = timedelta(seconds=agent_timeout_s)
        self._cleanup_interval_s = cleanup_interval_s
        self._now = now
        self._sleep = sleep
        self._sessions: dict[str, AgentSession] = {}
        self._known: dict[str, KnownAgent] = {}
        self._changed = asyncio.Event()

    def __len__(self) -> int:
        return len(self._sessions)

    def sessions(self) -> list[AgentSession]:
        return list(self._sessions.values())

    def get(self, agent_id: str) -> AgentSession | None:
        return self._sessions.get(agent_id)

    def add(self, session: AgentSession) -> AgentSession | None:
        """The session becomes its agent's; returns the one it replaces."""
        replaced = self._sessions.get(session.agent_id)
        self._sessions[session.agent_id] = session
        self._remember(session)
        return replaced

    def remove(self, session: AgentSession) -> bool:
        """Whether the session was still its agent's: a replaced one has nothing left to take away."""
        if self._sessions.get(session.agent_id) is not session:
            return False
        del self._sessions[session.agent_id]
        self._remember(session)
        return True

    def missing(self) -> list[str]:
        """Agents that were known and are not connected."""
        return sorted(self._known.keys() - self._sessions.keys())

    def load(self) -> None:
        """Read the memory of an earlier process. A file that cannot be used is reported and left out."""
        if self._file is None:
            return
        try:
            content = json.loads(self._file.read_bytes())
            if content["format"] == _FORMAT:
                self._known = {name: KnownAgent(**entry) for name, entry in content["agents"].items()}
                for known in self._known.values():
                    datetime.fromisoformat(known.last_seen)
        except FileNotFoundError:
            return
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            self._known = {}
            _logger.warning("%s cannot be used, starting without known agents: %s", self._file, error)

    def save(self) -> None:
        """Write the memory: the file is always either the old or the new one, complete."""
        if self._file is None:
            return
        agents = {name: asdict(known) for name, known in sorted(self._known.items())}
        temporary = self._file.with_name(self._file.name + ".new")
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("w", encoding="utf-8") as stream:
                json.dump({"format": _FORMAT, "agents": agents}, stream, indent=1)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(self._file)
        except OSError as error:
            _logger.error("%s cannot be written: %s", self._file, error)

    async def run(self) -> None:
        """Write changes, report who is missing, forget who stays away; until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keep_file())
            tasks.create_task(self._report_missing())
            tasks.create_task(self._clean_up())

    async def _keep_file(self) -> None:
        while True:
            await self._changed.wait()
            await self._sleep(_SETTLE_S)
            self._changed.clear()
            # A few milliseconds for a thousand agents. In a thread it would race with the save at shutdown.
            self.save()

    async def _report_missing(self) -> None:
        await self._sleep(self._agent_timeout.total_seconds())
        missing = self.missing()
        if missing:
            names = ", ".join(missing[:_MAX_NAMED]) + (", …" if len(missing) > _MAX_NAMED else "")
            _logger.warning("%d agents known from before have not come back: %s", len(missing), names)

    async def _clean_up(self) -> None:
        while True:
            await self._sleep(self._cleanup_interval_s)
            self.forget_missing()

    def forget_missing(self) -> None:
        """Forget agents that have been away for longer than the timeout."""
        oldest = self._now() - self._agent_timeout
        for name in self.missing():
            if datetime.fromisoformat(self._known[name].last_seen) < oldest:
                del self._known[name]
                self._changed.set()

    def _remember(self, session: AgentSession) -> None:
        last_seen = self._now().isoformat(timespec="seconds")
        self._known[session.agent_id] = KnownAgent(session.register.hostname, last_seen)
        self._changed.set()
