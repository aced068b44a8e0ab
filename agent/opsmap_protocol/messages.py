"""Every message of the links, named as in the reference (5.1, 4.2) plus what durable delivery needs.

A frame is one JSON object with a `type`. Whatever an agent says carries its `agent_id`, whatever the backend says to an
agent carries `target_agent`: a gateway routes by those two and forwards the frame unchanged.

What a gateway must not be able to forge is *sealed*: the frame also has `signed_by` and `signature` (see seals.py in
`opsmap_trust`). The backend seals whatever it says to an agent, an agent whatever it says to the backend, but for
heartbeats and errors, which decide nothing. Two random texts tell sessions apart, one of each side, so that no recorded
frame counts in another session: the agent's `nonce`, which comes back in `challenge`, and the backend's `token`, which
`resume` and all later frames of the agent carry.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar

from opsmap_protocol import MIN_PROTOCOL_VERSION, PROTOCOL_VERSION
from opsmap_protocol.checks import CheckResult, HealthCheck
from opsmap_protocol.enums import CommandOutcome, HealthStatus, JobStatus, OutputStream
from opsmap_protocol.specs import CommandSpec, ExecutionMode

DEFAULT_CREDITS = 256

# Agent → gateway


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


EventBody = CommandResult | AsyncStarted | AsyncStatus | JobExited | HealthChanged | CommandOutput


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

    `findings` by kind (services, processes, ports, …), lists of objects.
    """

    type: ClassVar[str] = "discovery_result"
    agent_id: str
    discovery_id: str
    discovered_at: datetime
    findings: dict[str, list[dict[str, Any]]]


# Gateway → agent


@dataclass(frozen=True, slots=True)
class Registered:
    """`protocol_version` is what both sides speak from here on."""

    type: ClassVar[str] = "registered"
    session_id: str
    server_time: datetime
    protocol_version: int = PROTOCOL_VERSION


@dataclass(frozen=True, slots=True)
class Ping:
    """Answered with a heartbeat at once."""

    type: ClassVar[str] = "ping"
    timestamp: datetime


@dataclass(frozen=True, slots=True)
class GoAway:
    """This end stops soon. The peer looks for another one now; what is on its way is still carried.

    From a gateway to its agents, and to the backend, which then sends commands by other gateways.
    """

    type: ClassVar[str] = "goaway"
    reason: str


# Backend → agent, through its gateway


@dataclass(frozen=True, slots=True)
class Trust:
    """The certificates of the keys that the backend seals with, DER in base64. Not sealed: they prove themselves."""

    type: ClassVar[str] = "trust"
    target_agent: str
    certificates: list[str]


@dataclass(frozen=True, slots=True)
class Challenge:
    """The beginning of a session with the backend. The agent answers with `presence` and uses `token` from then on.

    `nonce` is that of the agent's `register`: a challenge without it was recorded in another session, and is refused.
    A gateway that comes back to the backend announces its agents anew, with the same `register`: the same nonce then
    comes with a new `token`, and the new one counts. A token that the session has had already does not come back.
    """

    type: ClassVar[str] = "challenge"
    target_agent: str
    nonce: str
    token: str


@dataclass(frozen=True, slots=True)
class Resume:
    """This session is the one that counts; the backend holds the agent's events up to `acked_seq` of `incarnation`.

    The agent sends everything newer, by this session alone: its other sessions stand by. It comes again when events
    were lost on the way. A gateway whose session stands by may repeat an old one: the newest `in_use_since` counts.
    """

    type: ClassVar[str] = "resume"
    target_agent: str
    token: str
    incarnation: str
    acked_seq: int
    in_use_since: datetime


@dataclass(frozen=True, slots=True)
class Command:
    """Run this, once, and begin it between `issued_at` and `not_after`.

    `epoch` orders commands about one `subject`: a lower one than seen is refused.
    """

    type: ClassVar[str] = "command"
    request_id: str
    target_agent: str
    command: CommandSpec
    execution_mode: ExecutionMode
    timeout_ms: int
    issued_at: datetime
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
    """Where do these jobs stand? Answered with `job_statuses`; evaluates their completion checks now."""

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
    """The whole set of health checks of this host; replaces the former one. An older one than the newest is refused."""

    type: ClassVar[str] = "config_update"
    target_agent: str
    issued_at: datetime
    revision: str
    health_checks: list[HealthCheck]


@dataclass(frozen=True, slots=True)
class ProbeCommands:
    """What became of these commands? Never makes the agent run one."""

    type: ClassVar[str] = "probe_commands"
    target_agent: str
    request_ids: list[str]


@dataclass(frozen=True, slots=True)
class Discover:
    """Look around now. `discover_types`: services, processes, ports, docker, filesystems; empty means all."""

    type: ClassVar[str] = "discover"
    target_agent: str
    discovery_id: str
    discover_types: list[str]


# Gateway → backend


@dataclass(frozen=True, slots=True)
class GatewayRegister:
    """The first frame of a gateway's session; the certificate of its connection must say the same name."""

    type: ClassVar[str] = "gateway_register"
    gateway_id: str
    zone: str
    labels: dict[str, str]
    version: str
    protocol_version: int = PROTOCOL_VERSION
    protocol_min: int = MIN_PROTOCOL_VERSION


@dataclass(frozen=True, slots=True)
class AgentOnline:
    """`session_id` tells two sessions of one agent apart: a late `agent_offline` of an old one means nothing.

    `agent` is the agent's `register` as it came, with its seal.
    """

    type: ClassVar[str] = "agent_online"
    gateway_id: str
    session_id: str
    agent: dict[str, Any]


@dataclass(frozen=True, slots=True)
class AgentOffline:
    """That session of the agent has ended."""

    type: ClassVar[str] = "agent_offline"
    gateway_id: str
    agent_id: str
    session_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class AggregatedHeartbeat:
    """The newest heartbeat of each agent, and what the gateway did not pass on since it started, by reason."""

    type: ClassVar[str] = "aggregated_heartbeat"
    gateway_id: str
    agents: list[Heartbeat]
    timestamp: datetime
    losses: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CommandRefused:
    """The gateway did not pass this command on. `code`: agent_offline, queue_full, draining, filter_mismatch."""

    type: ClassVar[str] = "command_refused"
    gateway_id: str
    request_id: str
    target_agent: str
    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class DiscoveryBatch:
    """Discovery results as they came, with their seals. Kept by the gateway until `discovery_ack`."""

    type: ClassVar[str] = "discovery_batch"
    gateway_id: str
    batch_id: str
    discoveries: list[dict[str, Any]]


# Backend → gateway


@dataclass(frozen=True, slots=True)
class GatewayRegistered:
    """`protocol_version` is what both sides speak from here on."""

    type: ClassVar[str] = "gateway_registered"
    session_id: str
    protocol_version: int = PROTOCOL_VERSION


@dataclass(frozen=True, slots=True)
class AgentFilter:
    """Which agents: all of `labels`, a hostname like `hostname_pattern` (`*` and `?`), one of `agent_ids`."""

    labels: dict[str, str] = field(default_factory=dict)
    hostname_pattern: str | None = None
    agent_ids: list[str] | None = None


@dataclass(frozen=True, slots=True)
class BroadcastTarget:
    """What differs between the commands of a broadcast: `fields` completes it, with the seal, for one agent."""

    target_agent: str
    request_id: str
    fields: dict[str, Any]


@dataclass(frozen=True, slots=True)
class BroadcastCommand:
    """One command for many agents in one frame.

    The backend decides who is meant and seals a `command` for each. `shared` holds what these have in common, each
    target the rest: the two together are the frame for that agent. The gateway leaves out agents that do not match
    `filter` any more, and answers `command_refused` for them.
    """

    type: ClassVar[str] = "broadcast_command"
    request_id: str
    filter: AgentFilter
    shared: dict[str, Any]
    targets: list[BroadcastTarget]


@dataclass(frozen=True, slots=True)
class DiscoveryAck:
    """The batch is committed; the gateway may forget it."""

    type: ClassVar[str] = "discovery_ack"
    batch_id: str


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


FROM_AGENT = (
    Register | Presence | Heartbeat | CommandReceived | Events | JobStatuses | ProbeResult | DiscoveryResult | Error
)
TO_AGENT = (
    Registered
    | Ping
    | GoAway
    | Trust
    | Challenge
    | Resume
    | Command
    | EventsAck
    | CheckJobStatus
    | CancelCommand
    | ConfigUpdate
    | ProbeCommands
    | Discover
    | Error
)
FROM_GATEWAY = (
    GatewayRegister
    | AgentOnline
    | AgentOffline
    | AggregatedHeartbeat
    | CommandRefused
    | DiscoveryBatch
    | GoAway
    | Presence
    | CommandReceived
    | Events
    | JobStatuses
    | ProbeResult
    | Error
)
TO_GATEWAY = (
    GatewayRegistered
    | BroadcastCommand
    | DiscoveryAck
    | GoAway
    | Trust
    | Challenge
    | Resume
    | Command
    | EventsAck
    | CheckJobStatus
    | CancelCommand
    | ConfigUpdate
    | ProbeCommands
    | Discover
    | Error
)

SEALED_BY_BACKEND = frozenset(
    message.type
    for message in (
        Challenge,
        Resume,
        Command,
        EventsAck,
        CheckJobStatus,
        CancelCommand,
        ConfigUpdate,
        ProbeCommands,
        Discover,
    )
)
"""What an agent obeys only with the backend's seal."""

SEALED_BY_AGENT = frozenset(
    message.type for message in (Register, Presence, CommandReceived, Events, JobStatuses, ProbeResult, DiscoveryResult)
)
"""What the backend believes only with the agent's seal."""
