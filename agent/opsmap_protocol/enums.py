"""The vocabulary of states and kinds that cross the wire. Values are part of the protocol."""

from __future__ import annotations

from enum import StrEnum


class CommandOutcome(StrEnum):
    """How a command ended, as its agent knows it."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    NOT_STARTED = "not_started"
    """The command could not begin: missing binary, permission, working directory."""
    REJECTED = "rejected"
    """The agent's own rules refuse it."""
    EXPIRED = "expired"
    CANCELLED = "cancelled"


class JobStatus(StrEnum):
    """A detached process on its way to its completion check (SPEC 4.3)."""

    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        return self is not JobStatus.RUNNING


class OutputStream(StrEnum):
    """Where output came from: the two pipes of a sync command, or the log of a job, which holds both."""

    STDOUT = "stdout"
    STDERR = "stderr"
    LOG = "log"


class HealthStatus(StrEnum):
    """What a health check at the edge concludes.

    `degraded` means that the component answers and says itself that it is not well (an HTTP status other than the
    expected one); `unhealthy` means that nothing answers.
    """

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    UNHEALTHY = "unhealthy"


class ServiceState(StrEnum):
    RUNNING = "running"
    STOPPED = "stopped"
    STARTING = "starting"
    STOPPING = "stopping"
    FAILED = "failed"
    UNKNOWN = "unknown"


class ServiceAction(StrEnum):
    START = "start"
    STOP = "stop"
    RESTART = "restart"
    STATUS = "status"


class DiscoveryKind(StrEnum):
    """What a host can find out about itself: the names in `findings` and `discover_types`."""

    SERVICES = "services"
    PROCESSES = "processes"
    PORTS = "ports"
    CONNECTIONS = "connections"
    CONTAINERS = "containers"
    PODS = "pods"
    FILESYSTEMS = "filesystems"
    TECHNOLOGIES = "technologies"


class PeerRole(StrEnum):
    BACKEND = "backend"
    GATEWAY = "gateway"
    AGENT = "agent"
