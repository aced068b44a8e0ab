"""Events from the journal to the backend: in order, from where it wants them, as long as a session is in use."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from opsmap_agent.journal.journal import Journal
from opsmap_agent.journal.rows import StoredEvent

_MAX_BATCH_EVENTS = 100
_MAX_BATCH_BYTES = 512 * 1024

SendBatch = Callable[[list[StoredEvent]], Awaitable[None]]


class EventPump:
    """One for each session. `may_send` says whether events go by that session now; `send` takes a batch of them."""

    def __init__(self, journal: Journal, may_send: Callable[[], bool], send: SendBatch) -> None:
        self._journal = journal
        self._may_send = may_send
        self._send = send
        self._wake = asyncio.Event()
        self._resume_after: int | None = None
        """Set by `resume`: go on behind this event. None while there is nothing new to obey."""

    def resume(self, after_seq: int) -> None:
        """Send everything behind that event, also what was sent before."""
        self._resume_after = after_seq
        self._wake.set()

    async def run(self) -> None:
        sent_seq: int | None = None
        stop_listening = self._journal.listen(self._wake.set)
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self._may_send():
                    if self._resume_after is not None:
                        sent_seq, self._resume_after = self._resume_after, None
                    if sent_seq is None or sent_seq >= self._journal.last_seq:
                        break
                    sent_seq = await self._send_some(sent_seq)
        finally:
            stop_listening()

    async def _send_some(self, sent_seq: int) -> int:
        """Sends some events behind `sent_seq`; the number of the last."""
        events = await self._journal.events_after(sent_seq, _MAX_BATCH_EVENTS)
        if not events:
            # All of them were acknowledged and forgotten.
            return self._journal.last_seq
        batch = _fitting(events)
        await self._send(batch)
        return batch[-1].seq


def _fitting(events: list[StoredEvent]) -> list[StoredEvent]:
    """As many of the first events as go into one frame, and always one."""
    total = 0
    for index, event in enumerate(events):
        total += len(event.json.encode())
        if total > _MAX_BATCH_BYTES and index > 0:
            return events[:index]
    return events
