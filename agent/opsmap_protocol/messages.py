"""Every message of the links, named as in the reference (5.1, 4.2) plus what durable delivery needs.

A frame is one flat JSON object with a `type`. Whatever an agent says carries its `agent_id`, whatever the backend says
to an agent carries `target_agent`: a gateway routes by those two and forwards the bytes unchanged.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar

from opsmap_protocol import PROTOCOL_VERSION
from opsmap_protocol.checks import CheckResult, HealthCheck
from opsmap_protocol.enums import CommandOutcome, HealthStatus, JobStatus
from opsmap_protocol.specs import CommandSpec, ExecutionMode

# Agent → gateway


@dataclass(frozen=True, slots=True)
class OsInfo:
    os_type: str
    os_release: str
    kernel: str
    arch: str


@dataclass(frozen=True, slots=True)
class Register:
    """The first frame of an agent's session: who it is and what it holds.

    `incarnation` names the journal: a deleted journal is a new incarnation. `first_seq` is the oldest event it still
    holds (one more than `last_seq` if it holds none), `last_seq` the newest it has written, `open_requests` the
    commands whose end it has not reported yet.
    """

    type: ClassVar[str] = "register"
    agent_id: str
    hostname: str
    os: OsInfo
    labels: dict[str, str]
    capabilities: list[str]
    version: str
    incarnation: str
    boot_id: str
    first_seq: int = 1
    last_seq: int = 0
    open_requests: list[str] = field(default_factory=list)
    protocol_version: int = PROTOCOL_VERSION


@dataclass(frozen=True, slots=True)
class Heartbeat:
    type: ClassVar[str] = "heartbeat"
    agent_id: str
    uptime_secs: int
    load: list[float]
    memory_percent: float
    active_commands: int


@dataclass(frozen=True, slots=True)
class CommandReceived:
    """The command is in the agent's journal: from here on it is never run twice and never forgotten."""

    type: ClassVar[str] = "command_received"
    agent_id: str
    request_id: str


@dataclass(frozen=True, slots=True)
class CommandResult:
    """A command that has ended without becoming a job: a sync result, or a refusal of any kind."""

    type: ClassVar[str] = "command_result"
    request_id: str
    success: bool
    outcome: CommandOutcome
    result: Any = None
    error: str | None = None
    duration_ms: int = 0


@dataclass(frozen=True, slots=True)
class AsyncStarted:
    type: ClassVar[str] = "async_started"
    request_id: str
    job_id: str
    pid: int
    started_at: datetime
    suggested_poll_interval_ms: int


@dataclass(frozen=True, slots=True)
class AsyncStatus:
    """Where a job stands. `exit_code` is null while its process lives; `log_tail` comes with the end of a job."""

    type: ClassVar[str] = "async_status"
    request_id: str
    job_id: str
    status: JobStatus
    elapsed_ms: int
    check_result: CheckResult | None = None
    exit_code: int | None = None
    error: str | None = None
    log_tail: str | None = None


@dataclass(frozen=True, slots=True)
class JobExited:
    """The process of a job that had already completed is gone (a service that stopped or was killed)."""

    type: ClassVar[str] = "job_exited"
    request_id: str
    job_id: str
    exit_code: int


@dataclass(frozen=True, slots=True)
class HealthChanged:
    """A health check's conclusion changed, or is told again in a resync."""

    type: ClassVar[str] = "health_changed"
    check_id: str
    status: HealthStatus
    details: dict[str, Any]
    checked_at: datetime


EventBody = CommandResult | AsyncStarted | AsyncStatus | JobExited | HealthChanged


@dataclass(frozen=True, slots=True)
class Event:
    """One durable fact in the agent's journal; `seq` grows by one within an incarnation."""

    seq: int
    at: datetime
    body: EventBody


@dataclass(frozen=True, slots=True)
class Events:
    """Facts in order of `seq`. They stay in the journal until the backend's `events_ack`."""

    type: ClassVar[str] = "events"
    agent_id: str
    incarnation: str
    events: list[Event]


@dataclass(frozen=True, slots=True)
class JobStatuses:
    """The answer to `check_job_status`. Unknown ids answer failed, "job not found"."""

    type: ClassVar[str] = "job_statuses"
    agent_id: str
    jobs: list[AsyncStatus]


# Gateway → agent


@dataclass(frozen=True, slots=True)
class Registered:
    type: ClassVar[str] = "registered"
    session_id: str
    server_time: datetime


@dataclass(frozen=True, slots=True)
class Ping:
    type: ClassVar[str] = "ping"
    timestamp: datetime


# Backend → agent, through its gateway


@dataclass(frozen=True, slots=True)
class Resume:
    """The backend has seen the agent's registration and holds its events up to `acked_seq` of `incarnation`.

    The agent sends everything newer. It comes again whenever the backend or the gateway lost its memory of the session.
    """

    type: ClassVar[str] = "resume"
    target_agent: str
    incarnation: str
    acked_seq: int


@dataclass(frozen=True, slots=True)
class Command:
    """Run this, once. `epoch` orders commands about one `subject`: a lower one than seen is refused."""

    type: ClassVar[str] = "command"
    request_id: str
    target_agent: str
    command: CommandSpec
    execution_mode: ExecutionMode
    timeout_ms: int
    not_after: datetime
    subject: str | None = None
    epoch: int = 0


@dataclass(frozen=True, slots=True)
class EventsAck:
    """Everything up to `seq` is committed; the agent may forget it."""

    type: ClassVar[str] = "events_ack"
    target_agent: str
    incarnation: str
    seq: int


@dataclass(frozen=True, slots=True)
class CheckJobStatus:
    type: ClassVar[str] = "check_job_status"
    target_agent: str
    job_ids: list[str]


@dataclass(frozen=True, slots=True)
class CancelCommand:
    """Stop waiting for a command, and end its process if `kill` says so."""

    type: ClassVar[str] = "cancel_command"
    target_agent: str
    request_id: str
    kill: bool = True


@dataclass(frozen=True, slots=True)
class ConfigUpdate:
    """The whole set of health checks of this host; replaces the former one."""

    type: ClassVar[str] = "config_update"
    target_agent: str
    revision: str
    health_checks: list[HealthCheck]


# Gateway → backend


@dataclass(frozen=True, slots=True)
class GatewayRegister:
    type: ClassVar[str] = "gateway_register"
    gateway_id: str
    zone: str
    labels: dict[str, str]
    version: str
    protocol_version: int = PROTOCOL_VERSION


@dataclass(frozen=True, slots=True)
class AgentOnline:
    """`session_id` tells two sessions of one agent apart: a late `agent_offline` of an old one means nothing."""

    type: ClassVar[str] = "agent_online"
    gateway_id: str
    session_id: str
    agent: Register
    certificate_sha256: str


@dataclass(frozen=True, slots=True)
class AgentOffline:
    type: ClassVar[str] = "agent_offline"
    gateway_id: str
    agent_id: str
    session_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class AggregatedHeartbeat:
    type: ClassVar[str] = "aggregated_heartbeat"
    gateway_id: str
    agents: list[Heartbeat]
    timestamp: datetime


@dataclass(frozen=True, slots=True)
class CommandRefused:
    """The gateway did not pass this command on. `code`: agent_offline, queue_full."""

    type: ClassVar[str] = "command_refused"
    gateway_id: str
    request_id: str
    target_agent: str
    code: str
    reason: str


# Backend → gateway


@dataclass(frozen=True, slots=True)
class GatewayRegistered:
    type: ClassVar[str] = "gateway_registered"
    session_id: str


# Any direction


@dataclass(frozen=True, slots=True)
class Error:
    """The peer's frame was refused. `about` is the type or the request id it concerns.

    An agent that wants the backend to hear of it names itself in `agent_id`, as in all its frames; without it the
    gateway only writes the error to its log.
    """

    type: ClassVar[str] = "error"
    code: str
    reason: str
    about: str | None = None
    agent_id: str | None = None


FROM_AGENT = Register | Heartbeat | CommandReceived | Events | JobStatuses | Error
TO_AGENT = Registered | Ping | Resume | Command | EventsAck | CheckJobStatus | CancelCommand | ConfigUpdate | Error
FROM_GATEWAY = (
    GatewayRegister
    | AgentOnline
    | AgentOffline
    | AggregatedHeartbeat
    | CommandRefused
    | CommandReceived
    | Events
    | JobStatuses
    | Error
)
TO_GATEWAY = GatewayRegistered | Resume | Command | EventsAck | CheckJobStatus | CancelCommand | ConfigUpdate | Error
