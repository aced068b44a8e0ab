"""What an agent says, to its gateway and through it to the backend."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar

from opsmap_protocol import MIN_PROTOCOL_VERSION, PROTOCOL_VERSION
from opsmap_protocol.checks import CheckResult
from opsmap_protocol.enums import CommandOutcome, HealthStatus, JobStatus, OutputStream

DEFAULT_CREDITS = 256


@dataclass(frozen=True, slots=True)
class OsInfo:
    os_type: str
    os_release: str
    kernel: str
    arch: str


@dataclass(frozen=True, slots=True)
class Register:
    """The first frame of an agent's session: who it is. Sealed, but without a token: there is none yet.

    `certificate` is the agent's own, DER in base64: whoever verifies seals needs its key. `nonce` is 128 random bits,
    in hexadecimal, for this one session: `challenge` has to repeat it. `is_preferred` says that among the agent's
    sessions with several gateways this is the one to use. `protocol_version` is the newest that it speaks,
    `protocol_min` the oldest.
    """

    type: ClassVar[str] = "register"
    agent_id: str
    hostname: str
    os: OsInfo
    labels: dict[str, str]
    capabilities: list[str]
    version: str
    certificate: str
    nonce: str
    is_preferred: bool = False
    protocol_version: int = PROTOCOL_VERSION
    protocol_min: int = MIN_PROTOCOL_VERSION


@dataclass(frozen=True, slots=True)
class Presence:
    """The answer to `challenge`: proof that the agent is here now, and what it holds at this moment.

    `incarnation` names the journal: a deleted journal is a new incarnation. `first_seq` is the oldest event it still
    holds (one more than `last_seq` if it holds none), `last_seq` the newest it has written, `open_requests` the
    commands whose end it has not reported yet. `credits` is how many commands may be on their way to it at once:
    one is spent by sending a command and comes back with its `command_received` or its end.
    """

    type: ClassVar[str] = "presence"
    agent_id: str
    token: str
    incarnation: str
    boot_id: str
    first_seq: int
    last_seq: int
    open_requests: list[str] = field(default_factory=list)
    credits: int = DEFAULT_CREDITS


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """How the host is. `load` over 1, 5 and 15 minutes, `memory_percent` in use. Decides nothing, so it has no seal."""

    type: ClassVar[str] = "heartbeat"
    agent_id: str
    uptime_secs: int
    load: list[float]
    memory_percent: float
    active_commands: int


@dataclass(frozen=True, slots=True)
class CommandReceived:
    """The command is in the agent's journal: from here on it is never run twice and never forgotten.

    Left out if the command's end is known as soon.
    """

    type: ClassVar[str] = "command_received"
    agent_id: str
    token: str
    request_id: str


@dataclass(frozen=True, slots=True)
class CommandResult:
    """A command that has ended without becoming a job: a sync result, or a refusal of any kind.

    `error` says why it did not succeed; of one that did, what its result leaves out.
    """

    type: ClassVar[str] = "command_result"
    request_id: str
    success: bool
    outcome: CommandOutcome
    result: Any = None
    error: str | None = None
    duration_ms: int = 0


@dataclass(frozen=True, slots=True)
class AsyncStarted:
    """The command became a job: its process runs, detached, and its end will be told by `async_status`."""

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


@dataclass(frozen=True, slots=True)
class CommandOutput:
    """A piece of what a command printed; told before the command's end, in order of `offset` (characters).

    `stream`: stdout, stderr or log. `total` comes with the last piece: how much the command printed in all; what
    exceeds `max_output_bytes` of the agent was not kept.
    """

    type: ClassVar[str] = "command_output"
    request_id: str
    stream: OutputStream
    offset: int
    text: str
    total: int | None = None


@dataclass(frozen=True, slots=True)
class EventsLost:
    """In place of events that the agent's buffer had no room for: those from `first_seq` to the `seq` of this one.

    `kinds` says how many of each type. What commands did is never among them.
    """

    type: ClassVar[str] = "events_lost"
    first_seq: int
    kinds: dict[str, int]
    reason: str


CommandEvent = CommandResult | AsyncStarted | AsyncStatus | JobExited | CommandOutput
"""What is told of one command: each has its `request_id`."""

EventBody = CommandEvent | HealthChanged | EventsLost


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
    token: str
    incarnation: str
    events: list[Event]


@dataclass(frozen=True, slots=True)
class JobStatuses:
    """The answer to `check_job_status`. Unknown ids answer failed, "job not found"."""

    type: ClassVar[str] = "job_statuses"
    agent_id: str
    token: str
    jobs: list[AsyncStatus]


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """The answer to `probe_commands`. Commands that have ended are in neither list: their last event comes again.

    `never_seen` counts as evidence only for commands sent after `journal_since`, the birth of the journal.
    """

    type: ClassVar[str] = "probe_result"
    agent_id: str
    token: str
    journal_since: datetime
    open_requests: list[str]
    never_seen: list[str]


@dataclass(frozen=True, slots=True)
class DiscoveryResult:
    """What a host found out about itself. Sealed, without a token: it may wait for the backend in a gateway's buffer.

    `findings` by kind (services, processes, ports, …), lists of objects, each with a `key` of its own within the kind.
    Without `base_id` they are all there is. With it they are what is new or changed since that discovery, and
    `removed` holds the keys of what is gone, by kind; a backend that does not have the base asks for everything.
    `faults` says, by kind, what could not be looked at and why (no Docker here, no permission); always of all kinds.
    """

    type: ClassVar[str] = "discovery_result"
    agent_id: str
    discovery_id: str
    discovered_at: datetime
    findings: dict[str, list[dict[str, Any]]]
    base_id: str | None = None
    removed: dict[str, list[str]] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RenewCertificate:
    """Asks for the agent's next certificate before the present one ends. `csr` is PKCS #10, DER in base64.

    The key in it is new; the signature inside the CSR proves that the agent has it, the seal of the frame who asks.
    """

    type: ClassVar[str] = "renew_certificate"
    agent_id: str
    token: str
    csr: str
