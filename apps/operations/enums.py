"""The vocabulary of operations."""

from django.db.models import TextChoices


class OperationKind(TextChoices):
    START = "start", "Start"
    STOP = "stop", "Stop"
    RESTART = "restart", "Restart"
    REPAIR = "repair", "Repair branch"


class OperationState(TextChoices):
    QUEUED = "queued", "Queued"
    """Waits for components that others hold; has neither steps nor holds."""
    RUNNING = "running", "Running"
    """Also while it is paused: what has begun goes on to its end."""
    SUCCEEDED = "succeeded", "Succeeded"
    FAILED = "failed", "Failed"
    ROLLED_BACK = "rolled_back", "Rolled back"
    """A step failed, and what had succeeded was undone."""
    CANCELLED = "cancelled", "Cancelled"


OPEN_OPERATIONS = (OperationState.QUEUED, OperationState.RUNNING)


class FailurePolicy(TextChoices):
    """What becomes of the rest of an operation when a step fails."""

    CONTINUE = "continue", "Independent branches go on"
    STOP = "stop", "Nothing new begins"
    ROLL_BACK = "roll_back", "What succeeded is undone"


class IfHeld(TextChoices):
    """What is to be done about a new operation whose components others hold or wait for."""

    REFUSE = "refuse", "Refuse it"
    QUEUE = "queue", "Let it wait for its turn"


class StepState(TextChoices):
    WAITING = "waiting", "Waiting"
    RUNNING = "running", "Running"
    SUCCEEDED = "succeeded", "Succeeded"
    FAILED = "failed", "Failed"
    SKIPPED = "skipped", "Skipped"
    """Something it waited for did not succeed, or nothing was to begin after a failure."""
    WAIVED = "waived", "Waived"
    """A person said to go on without it."""
    CANCELLED = "cancelled", "Cancelled"


class Cause(TextChoices):
    """Why a component's state changed."""

    CHECK = "check", "Health check"
    JOB = "job", "Command"
    AGENT = "agent", "Agent lost or back"
    PERSON = "person", "Person"
    TIME = "time", "End of a maintenance"
