"""What the agent says about itself to its gateway: who it is, what it holds, how it is."""

from __future__ import annotations

import time
from collections.abc import Callable

from opsmap_agent import __version__
from opsmap_agent.commands.dispatcher import MAX_BEING_ADMITTED
from opsmap_agent.host import description as host
from opsmap_agent.host.processes import boot_id
from opsmap_agent.journal.journal import Journal
from opsmap_protocol.messages import Heartbeat, Presence, Register

_CAPABILITIES = ("async", "discovery", "health", "script", "service_control", "sync")


class Introduction:
    """`active_count` gives how many commands are on their way, `natives` the native commands that it may run."""

    def __init__(
        self,
        *,
        agent_id: str,
        labels: dict[str, str],
        journal: Journal,
        active_count: Callable[[], int],
        natives: Callable[[], list[str]],
    ) -> None:
        self._agent_id = agent_id
        self._labels = labels
        self._journal = journal
        self._active_count = active_count
        self._natives = natives
        self._begun = time.monotonic()

    def register(self, *, certificate: str, nonce: str, is_preferred: bool) -> Register:
        """For one session: `certificate` is of the key that seals in it, `nonce` its own."""
        return Register(
            agent_id=self._agent_id,
            hostname=host.hostname(),
            os=host.describe_os(),
            labels=self._labels,
            capabilities=[*_CAPABILITIES, *(f"native:{name}" for name in self._natives())],
            version=__version__,
            certificate=certificate,
            nonce=nonce,
            is_preferred=is_preferred,
        )

    async def presence(self, token: str) -> Presence:
        """What the journal holds at this moment."""
        held = await self._journal.holdings()
        return Presence(
            agent_id=self._agent_id,
            token=token,
            incarnation=held.incarnation,
            boot_id=boot_id(),
            first_seq=held.first_seq,
            last_seq=held.last_seq,
            open_requests=held.open_requests,
            credits=MAX_BEING_ADMITTED,
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
