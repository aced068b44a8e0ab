"""The vocabulary of operations."""

from django.db.models import TextChoices


class OperationKind(TextChoices):
    START = "start", "Start"
    STOP = "stop", "Stop"
    RESTART = "restart", "Restart"
    REPAIR = "repair", "Repair branch"


class OperationState(TextChoices):
    RUNNING = "running", "Running"
    SUCCEEDED = "succeeded", "Succeeded"
    FAILED = "failed", "Failed"
    CANCELLED = "cancelled", "Cancelled"


class StepState(TextChoices):
    WAITING = "waiting", "Waiting"
    RUNNING = "running", "Running"
    SUCCEEDED = "succeeded", "Succeeded"
    FAILED = "failed", "Failed"
    SKIPPED = "skipped", "Skipped"
    """Something it waited for did not succeed."""
    CANCELLED = "cancelled", "Cancelled"


class Cause(TextChoices):
    """Why a component's state changed."""

    CHECK = "check", "Health check"
    JOB = "job", "Command"
    AGENT = "agent", "Agent lost or back"
    PERSON = "person", "Person"
