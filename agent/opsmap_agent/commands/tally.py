"""What has happened since the agent started, counted: for `status` and for metrics."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass
from datetime import UTC, datetime

from opsmap_protocol.enums import CommandOutcome
from opsmap_protocol.messages import AsyncStatus, CommandResult, EventBody

_KEPT_REFUSALS = 5
_SHOWN_REASON = 200
_REFUSALS = {CommandOutcome.REJECTED, CommandOutcome.NOT_STARTED, CommandOutcome.EXPIRED}


@dataclass(frozen=True, slots=True)
class Refusal:
    at: datetime
    kind: str
    reason: str


class Tally:
    """`done` is by outcome; `refused` by the outcome of a command that was not run, or the code of a frame that was not
    obeyed."""

    def __init__(self) -> None:
        self.done: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.latest_refusals: deque[Refusal] = deque(maxlen=_KEPT_REFUSALS)
        self.last_contact: datetime | None = None
        """When a frame of a gateway came last."""
        self.clock_ahead_s: float | None = None
        """How far this host's clock was before the gateway's at the last registration."""
        self.last_discovery: datetime | None = None

    def count(self, body: EventBody) -> None:
        """An event has been recorded."""
        match body:
            case CommandResult() if body.outcome in _REFUSALS:
                self.count_refusal(body.outcome, body.error or "")
            case CommandResult():
                self.done[body.outcome] += 1
            case AsyncStatus() if body.status.is_final:
                self.done[f"job {body.status}"] += 1

    def count_refusal(self, kind: str, reason: str) -> None:
        self.refused[kind] += 1
        self.latest_refusals.append(Refusal(datetime.now(UTC), kind, reason[:_SHOWN_REASON]))
