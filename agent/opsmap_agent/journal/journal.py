"""What the agent must not forget, in SQLite: which commands it has taken, its jobs, and the events it has to report.

The rules that make a command run once and be reported for certain (DESIGN 3) are transactions of this file:
a command is known before `command_received` is sent; an event is stored together with the change it tells of, and
stays until the backend has acknowledged it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from opsmap_agent.commands.tally import Tally
from opsmap_agent.journal import file as journal_file
from opsmap_agent.journal import tables
from opsmap_agent.journal.committer import CommitError, Committer
from opsmap_agent.journal.quota import BufferFullError, Quota
from opsmap_agent.journal.rows import Admission, Holdings, JobRow, Occupancy, OpenCommand, Probed, StoredEvent
from opsmap_protocol import codec
from opsmap_protocol.messages import Command, CommandResult, Event, EventBody

_logger = logging.getLogger(__name__)

_TAIL_EVENTS = 256
_TAIL_CHARACTERS = 256 * 1024
_ACK_DELAY_S = 2.0
_RETRY_DELAY_S = 1.0


class Journal:
    """Use `open`, then any method from the event loop. Every write is durable when its call returns."""

    def __init__(self, committer: Committer, clock: Callable[[], datetime], quota: Quota) -> None:
        self._committer = committer
        self._clock = clock
        self._quota = quota
        self._tail: deque[StoredEvent] = deque()
        self._tail_size = 0
        self._listeners: list[Callable[[], None]] = []
        self._acked_seq = 0
        self._ack_timer: asyncio.TimerHandle | None = None
        self._acks: set[asyncio.Task[None]] = set()
        self.incarnation = ""
        self.last_seq = 0
        self.tally = Tally()
        self.is_kept: Callable[[EventBody], bool] = lambda body: True
        """Whether an event is worth recording now; others are as if they had not been."""

    @classmethod
    async def open(
        cls,
        folder: Path,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        max_bytes: int | None = None,
    ) -> Journal:
        """The journal in `folder`, which must exist; made if there is none in it, or a damaged one.

        It is kept below `max_bytes`.

        Raises:
            CommitError: it cannot be opened.
        """
        await asyncio.to_thread(journal_file.set_damaged_aside, folder)
        committer = Committer(folder / journal_file.NAME, tables.SCHEMA)
        journal = cls(committer, clock, Quota(max_bytes))
        await committer.start()
        journal.incarnation, journal.last_seq = await committer.submit(lambda db: tables.identify(db, clock()))
        return journal

    async def close(self) -> None:
        if self._ack_timer is not None:
            self._ack_timer.cancel()
        await asyncio.gather(*self._acks)
        await self._committer.stop()

    # Commands

    async def admit(self, command: Command, frame: str, end: CommandResult | None = None) -> Admission:
        """Take a command in, once.

        A command with a subject is refused if a higher epoch has been seen for it, and any command that was to begin
        before the newest one was issued. `end`, a refusal or an answer, is recorded with the command if that is new;
        an answer only if the command is not refused here.

        Raises:
            CommitError: nothing is stored; the command must not be run.
        """
        now, acked_seq = self._clock(), self._acked_seq

        def admit(db: sqlite3.Connection) -> tuple[Admission, list[StoredEvent]]:
            admitted = tables.admit(db, command, frame, end, acked_seq, now, self._quota.check_room)
            self._quota.note_written(db, len(frame), now)
            return admitted

        try:
            admission, stored = await self._committer.submit(admit, lambda result: self._publish(result[1]))
        except BufferFullError as error:
            self.tally.count_refusal("buffer_full", str(error))
            raise
        if admission is Admission.ENDED:
            self._count(*(codec.build(Event, json.loads(event.json)).body for event in stored))
        return admission

    async def refuse(self, refusal: CommandResult, frame: str) -> None:
        """Record a command that cannot even be read as refused, unless it is known.

        Raises:
            CommitError: nothing is stored.
        """
        now = self._clock()
        await self._committer.submit(lambda db: tables.refuse(db, refusal, frame, now), self._publish)
        self._count(refusal)

    async def open_commands(self) -> list[OpenCommand]:
        """Commands whose end has not been reported, in the order they came."""
        return await self._committer.submit(tables.open_commands)

    async def probe(self, request_ids: Sequence[str]) -> Probed:
        """What became of these commands. The last event of those that have ended is told again.

        Raises:
            CommitError: it cannot be told again.
        """
        now, acked_seq = self._clock(), self._acked_seq
        probed, _ = await self._committer.submit(
            lambda db: tables.probe(db, request_ids, acked_seq, now), lambda result: self._publish(result[1])
        )
        return probed

    # Jobs

    async def job_of(self, request_id: str) -> JobRow | None:
        return await self._committer.submit(lambda db: tables.job_of(db, request_id))

    async def newest_job(self, subject: str) -> JobRow | None:
        """The job whose output says most about `subject`: the newest that started it, else the newest."""
        return await self._committer.submit(lambda db: tables.newest_job(db, subject))

    async def ended_jobs_with_live_process(self) -> list[JobRow]:
        """Jobs that have reached their end while their process, as far as we know, goes on."""
        return await self._committer.submit(tables.ended_jobs_with_live_process)

    async def final_statuses(self, job_ids: Sequence[str]) -> dict[str, str]:
        """The last `async_status` of those of the jobs that have ended, as JSON."""
        return await self._committer.submit(lambda db: tables.final_statuses(db, job_ids))

    async def mark_exited(self, job_id: str) -> None:
        """The process of this job is gone, and there is nothing to tell about how."""
        await self._committer.submit(lambda db: tables.mark_exited(db, job_id, self._clock()))

    # Events

    async def record(self, *bodies: EventBody, job: JobRow | None = None) -> None:
        """Store events and the change of command and job that each tells of; `job` comes with its `AsyncStarted`.

        Keeps trying while the disk refuses: an event lost is a command whose end nobody learns.
        """
        now = self._clock()
        bodies = tuple(body for body in bodies if self.is_kept(body))
        if not bodies:
            return

        def record(db: sqlite3.Connection) -> list[StoredEvent]:
            stored = tables.record(db, bodies, job, now)
            self._quota.note_written(db, sum(len(event.json) for event in stored), now)
            return stored

        while True:
            try:
                await self._committer.submit(record, self._publish)
                self._count(*bodies)
                return
            except CommitError:
                await asyncio.sleep(_RETRY_DELAY_S)

    async def holdings(self) -> Holdings:
        return await self._committer.submit(tables.holdings)

    @property
    def lost_events(self) -> int:
        """How many were dropped since `open`, because the journal was full."""
        return self._quota.lost_events

    async def occupancy(self) -> Occupancy:
        return await self._committer.submit(tables.occupancy)

    async def events_after(self, seq: int, max_events: int) -> list[StoredEvent]:
        """In order.

        The newest are in memory until they are acknowledged, so that a session that keeps up never reads the disk.
        """
        if self._tail and self._tail[0].seq <= seq + 1:
            return [event for event in self._tail if event.seq > seq][:max_events]
        return await self._committer.submit(lambda db: tables.events_after(db, seq, max_events))

    def listen(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Have `listener` called after each commit of events. Returns what ends it."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def acknowledge(self, seq: int) -> None:
        """The backend holds everything up to `seq`: forget it, soon.

        Deleting may wait: forgotten late it is sent twice at worst, and commands should not wait for this fsync.
        """
        self._acked_seq = max(self._acked_seq, min(seq, self.last_seq))
        while self._tail and self._tail[0].seq <= self._acked_seq:
            self._drop_oldest()
        if self._ack_timer is None:
            self._ack_timer = asyncio.get_running_loop().call_later(_ACK_DELAY_S, self._start_forgetting)

    async def renew(self) -> None:
        """Become a new incarnation: the backend holds events of this one that the journal does not know.

        That happens when a host is restored from an older copy; numbers would be given twice.
        """
        now = self._clock()
        self.incarnation = await self._committer.submit(lambda db: tables.new_incarnation(db, now))

    # What the backend configured

    async def save_setting(self, key: str, value: str) -> None:
        await self._committer.submit(lambda db: tables.save_setting(db, key, value))

    async def load_setting(self, key: str) -> str | None:
        return await self._committer.submit(lambda db: tables.load_setting(db, key))

    async def prune(self, jobs_before: datetime) -> None:
        """Forget commands that ended a day ago or before the newest 10,000, and jobs gone before `jobs_before`."""
        now = self._clock()
        await self._committer.submit(lambda db: tables.prune(db, now, jobs_before))

    def _count(self, *bodies: EventBody) -> None:
        for body in bodies:
            self.tally.count(body)

    def _publish(self, events: Iterable[StoredEvent]) -> None:
        for event in events:
            self._tail.append(event)
            self._tail_size += len(event.json)
            self.last_seq = event.seq
        while self._tail_size > _TAIL_CHARACTERS or len(self._tail) > _TAIL_EVENTS:
            self._drop_oldest()
        for listener in self._listeners:
            listener()

    def _drop_oldest(self) -> None:
        self._tail_size -= len(self._tail.popleft().json)

    def _start_forgetting(self) -> None:
        self._ack_timer = None
        task = asyncio.create_task(self._forget(self._acked_seq), name="forget acknowledged events")
        self._acks.add(task)
        task.add_done_callback(self._acks.discard)

    async def _forget(self, seq: int) -> None:
        try:
            await self._committer.submit(lambda db: tables.forget_events(db, seq))
        except CommitError:
            _logger.warning("acknowledged events stay in the journal for now")
