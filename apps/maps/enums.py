"""The vocabulary of Maps."""

from django.db.models import TextChoices


class ComponentState(TextChoices):
    """What is known of a component (SPEC 10.1)."""

    UNKNOWN = "unknown", "Unknown"
    STOPPED = "stopped", "Stopped"
    STARTING = "starting", "Starting"
    RUNNING = "running", "Running"
    DEGRADED = "degraded", "Degraded"
    STOPPING = "stopping", "Stopping"
    FAILED = "failed", "Failed"
    UNREACHABLE = "unreachable", "Unreachable"
    MAINTENANCE = "maintenance", "Maintenance"


class DependencyKind(TextChoices):
    STRONG = "strong", "Strong"
    """It must be running first, and its failure spreads."""
    WEAK = "weak", "Weak"
    """Order only."""


class DesiredState(TextChoices):
    """What a component was last asked to be, or seen to be: tells a failure from a stop."""

    UP = "up", "Up"
    DOWN = "down", "Down"
    UNSPECIFIED = "", "Unspecified"
