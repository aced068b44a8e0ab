"""What the journal gives back: rows of its tables, and answers made of them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from opsmap_protocol.enums import JobStatus


class Admission(Enum):
    NEW = "new"
    """Never seen: it is now in the journal and must be run or refused."""
    KNOWN = "known"
    """Seen before: it must not be run; what it last reported is reported again if it was acknowledged already."""
    ENDED = "ended"
    """Never seen, and over: it was refused, or is answered already; the event that says so is in the journal."""


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """`json` is the `Event` as it goes into a frame."""

    seq: int
    json: str


@dataclass(frozen=True, slots=True)
class Occupancy:
    """How full the journal is. `events` spans the first to the last that is not acknowledged; `oldest` is the first's
    time. `size_bytes` is what is in use of the file."""

    events: int
    size_bytes: int
    oldest: datetime | None


@dataclass(frozen=True, slots=True)
class Holdings:
    """What the journal holds at one moment. `first_seq` is one more than `last_seq` if it holds no event."""

    incarnation: str
    first_seq: int
    last_seq: int
    open_requests: list[str]


@dataclass(frozen=True, slots=True)
class Probed:
    """Those of some commands whose end is open, and those that are not in the journal.

    That a command is not in it proves that it never ran if it was sent after `journal_since`.
    """

    journal_since: datetime
    open_requests: list[str]
    never_seen: list[str]


@dataclass(frozen=True, slots=True)
class OpenCommand:
    """A command whose end has not been reported. `job` is None before its process is known to run, and for ever
    if it is not one that becomes a job."""

    request_id: str
    frame: str
    job: JobRow | None


@dataclass(frozen=True, slots=True)
class JobRow:
    """A job as the journal knows it. `frame` is its command; `is_start`: its check waits for something to be up."""

    job_id: str
    request_id: str
    frame: str
    subject: str | None
    is_start: bool
    started_at: datetime
    status: JobStatus = JobStatus.RUNNING
