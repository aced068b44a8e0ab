"""What times that the backend wrote mean on a host whose clock may be wrong."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from opsmap_agent.commands.refusals import ExpiredError, RefusalError, RejectedError
from opsmap_protocol.messages import Command

MAX_CLOCK_DIFFERENCE = timedelta(seconds=60)
"""How far the backend's clock may be ahead of this host's. Nothing that seems to come from further is run."""


def why_not_now(command: Command, now: datetime) -> RefusalError | None:
    """Whether a command comes from the future, or was to begin earlier."""
    ahead_s = (command.issued_at - now).total_seconds()
    if ahead_s > MAX_CLOCK_DIFFERENCE.total_seconds():
        allowed_s = MAX_CLOCK_DIFFERENCE.total_seconds()
        return RejectedError(
            f"it was issued {ahead_s:.0f} s in the future, by this host's clock ({_shown(now)}); the clocks may differ"
            f" by {allowed_s:.0f} s"
        )
    if now > command.not_after:
        return ExpiredError(f"it was to begin before {_shown(command.not_after)}, and it is {_shown(now)} here")
    return None


def _shown(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds")
