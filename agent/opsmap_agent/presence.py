"""What the agent says about itself to its gateway: who it is, what it holds, how it is."""

from __future__ import annotations

import time
from collections.abc import Callable

from opsmap_agent import __version__, host
from opsmap_agent.journal import Journal
from opsmap_agent.native import native_names
from opsmap_agent.processes import boot_id
from opsmap_protocol.messages import Heartbeat, Register

_CAPABILITIES = ("async", "health", "script", "service_control", "sync")


class Presence:
    """`active_count` gives how many commands and jobs are on their way."""

    def __init__(
        self, agent_id: str, labels: dict[str, str], journal: Journal, active_count: Callable[[], int]
    ) -> None:
        self._agent_id = agent_id
        self._labels = labels
        self._journal = journal
        self._active_count = active_count
        self._begun = time.monotonic()

    async def register(self) -> Register:
        return Register(
            agent_id=self._agent_id,
            hostname=host.hostname(),
            os=host.describe_os(),
            labels=self._labels,
            capabilities=[*_CAPABILITIES, *(f"native:{name}" for name in native_names())],
            version=__version__,
            incarnation=self._journal.incarnation,
            boot_id=boot_id(),
            first_seq=await self._journal.first_seq(),
            last_seq=self._journal.last_seq,
            open_requests=await self._journal.open_requests(),
        )

    def heartbeat(self) -> Heartbeat:
        """`uptime_secs` is the agent's own: a restart of the agent should show."""
        return Heartbeat(
            agent_id=self._agent_id,
            uptime_secs=int(time.monotonic() - self._begun),
            load=host.load(),
            memory_percent=host.memory_percent(),
            active_commands=self._active_count(),
        )
