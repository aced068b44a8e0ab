"""The vocabulary of delivery."""

from django.db.models import TextChoices


class CommandState(TextChoices):
    """Where a command is (DESIGN 3). Forward only, by compare-and-set."""

    QUEUED = "queued", "Queued"
    SENT = "sent", "Sent"
    RECEIVED = "received", "Received"
    STARTED = "started", "Started"
    SUCCEEDED = "succeeded", "Succeeded"
    FAILED = "failed", "Failed"
    NOT_STARTED = "not_started", "Not started"
    REJECTED = "rejected", "Rejected"
    EXPIRED = "expired", "Expired"
    CANCELLED = "cancelled", "Cancelled"
    UNKNOWN = "unknown", "Unknown"


class Standing(TextChoices):
    """How a gateway or agent stands with us, as lists show it. Only agents are ever in quarantine."""

    ONLINE = "online", "Online"
    OFFLINE = "offline", "Offline"
    QUARANTINED = "quarantined", "In quarantine"
    REVOKED = "revoked", "Revoked"
    REMOVED = "removed", "Removed"


OPEN_STATES = frozenset({CommandState.QUEUED, CommandState.SENT, CommandState.RECEIVED, CommandState.STARTED})

PREDECESSORS: dict[CommandState, frozenset[CommandState]] = {
    CommandState.SENT: frozenset({CommandState.QUEUED, CommandState.SENT}),
    CommandState.RECEIVED: frozenset({CommandState.QUEUED, CommandState.SENT}),
    # Only evidence from the host may correct what the backend could merely presume.
    CommandState.STARTED: frozenset(
        {
            CommandState.QUEUED,
            CommandState.SENT,
            CommandState.RECEIVED,
            CommandState.UNKNOWN,
            CommandState.EXPIRED,
        }
    ),
    **dict.fromkeys(
        (
            CommandState.SUCCEEDED,
            CommandState.FAILED,
            CommandState.NOT_STARTED,
            CommandState.REJECTED,
            CommandState.CANCELLED,
        ),
        OPEN_STATES | {CommandState.UNKNOWN, CommandState.EXPIRED},
    ),
    CommandState.EXPIRED: OPEN_STATES | {CommandState.UNKNOWN},
    CommandState.UNKNOWN: frozenset({CommandState.SENT, CommandState.RECEIVED, CommandState.STARTED}),
}
"""From which states each state may be entered."""
