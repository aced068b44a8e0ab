"""What the agent has told the backend of its host: in the journal, so that after a restart only changes are told."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta

from opsmap_agent.discovery.reports import Digests, KindReport
from opsmap_agent.journal.committer import CommitError
from opsmap_agent.journal.journal import Journal

_logger = logging.getLogger(__name__)
_SETTING = "discovery"
_EARLIEST = "1970-01-01T00:00:00+00:00"


@dataclass(frozen=True, slots=True)
class Told:
    """The last discovery that was sent, and the digests of everything that the backend has by it.

    `at` and `full_at` are ISO times: of this discovery, and of the last that built on none.
    """

    discovery_id: str | None = None
    at: str = _EARLIEST
    full_at: str = _EARLIEST
    digests: dict[str, Digests] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)

    def is_older_than(self, age: timedelta, now: datetime) -> bool:
        """Whether everything was told so long ago. A clock that was set back does not stop it for ever."""
        passed = now - datetime.fromisoformat(self.full_at)
        return passed >= age or passed < -age

    def with_reports(self, reports: Iterable[KindReport], discovery_id: str, at: datetime, is_full: bool) -> Told:
        """What has been told when those have been sent."""
        digests, faults = ({}, {}) if is_full else (dict(self.digests), dict(self.faults))
        for report in reports:
            digests[report.kind.value] = report.digests
            faults.pop(report.kind.value, None)
            if report.fault:
                faults[report.kind.value] = report.fault
        return Told(discovery_id, at.isoformat(), at.isoformat() if is_full else self.full_at, digests, faults)

    def next_moment(self, now: datetime) -> datetime:
        """The time of the next discovery: later than this one also if the clock was set back, as the newest counts."""
        return max(now, datetime.fromisoformat(self.at) + timedelta(milliseconds=1))


async def load_told(journal: Journal) -> Told:
    """What was told in this life or a former one; nothing if that is not known."""
    try:
        text = await journal.load_setting(_SETTING)
        told = Told(**json.loads(text)) if text else Told()
        datetime.fromisoformat(told.at), datetime.fromisoformat(told.full_at)
    except (CommitError, ValueError, TypeError) as error:
        _logger.warning("what was discovered before is not known, so everything is told again: %s", error)
        return Told()
    return told


async def save_told(journal: Journal, told: Told) -> None:
    """If that fails, what comes next builds on what the backend does not have any more, and it asks for everything."""
    try:
        await journal.save_setting(_SETTING, json.dumps(asdict(told), separators=(",", ":")))
    except CommitError as error:
        _logger.warning("what was discovered cannot be noted: %s", error)
