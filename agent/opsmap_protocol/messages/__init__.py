"""Every message of the links, named as in the reference (5.1, 4.2) plus what durable delivery needs.

A frame is one JSON object with a `type`. Whatever an agent says carries its `agent_id`, whatever the backend says to an
agent carries `target_agent`: a gateway routes by those two and forwards the frame unchanged.

What a gateway must not be able to forge is *sealed*: the frame also has `signed_by` and `signature` (see seals.py in
`opsmap_trust`). The backend seals whatever it says to an agent, an agent whatever it says to the backend, but for
heartbeats and errors, which decide nothing. Two random texts tell sessions apart, one of each side, so that no recorded
frame counts in another session: the agent's `nonce`, which comes back in `challenge`, and the backend's `token`, which
`resume` and all later frames of the agent carry.

One module for each direction; this one says what each of them is part of.
"""

from __future__ import annotations

from opsmap_protocol.messages.either_way import (
    Error,
)
from opsmap_protocol.messages.enrolment import (
    Enroll,
    Enrolled,
    Introduction,
)
from opsmap_protocol.messages.from_agent import (
    DEFAULT_CREDITS,
    AsyncStarted,
    AsyncStatus,
    CommandEvent,
    CommandOutput,
    CommandReceived,
    CommandResult,
    DiscoveryResult,
    Event,
    EventBody,
    Events,
    EventsLost,
    HealthChanged,
    Heartbeat,
    JobExited,
    JobStatuses,
    OsInfo,
    Presence,
    ProbeResult,
    Register,
    RenewCertificate,
)
from opsmap_protocol.messages.from_gateway import (
    AgentOffline,
    AgentOnline,
    AggregatedHeartbeat,
    CommandRefused,
    DiscoveryBatch,
    EnrollAgent,
    GatewayRegister,
    RenewGateway,
)
from opsmap_protocol.messages.to_agent import (
    CancelCommand,
    CertificateRefused,
    CertificateRenewed,
    Challenge,
    CheckJobStatus,
    Command,
    ConfigUpdate,
    Discover,
    EventsAck,
    GoAway,
    Ping,
    ProbeCommands,
    Registered,
    RemoteSettings,
    Resume,
    Trust,
)
from opsmap_protocol.messages.to_gateway import (
    AgentFilter,
    Authorities,
    BroadcastCommand,
    BroadcastTarget,
    DiscoveryAck,
    EnrolmentAnswer,
    GatewayRegistered,
    GatewayRenewed,
    RenewalRefused,
    RevokeAgent,
)

__all__ = [
    "DEFAULT_CREDITS",
    "FROM_AGENT",
    "FROM_ENROLLING",
    "FROM_GATEWAY",
    "SEALED_BY_AGENT",
    "SEALED_BY_BACKEND",
    "TO_AGENT",
    "TO_ENROLLING",
    "TO_GATEWAY",
    "AgentFilter",
    "AgentOffline",
    "AgentOnline",
    "AggregatedHeartbeat",
    "AsyncStarted",
    "AsyncStatus",
    "Authorities",
    "BroadcastCommand",
    "BroadcastTarget",
    "CancelCommand",
    "CertificateRefused",
    "CertificateRenewed",
    "Challenge",
    "CheckJobStatus",
    "Command",
    "CommandEvent",
    "CommandOutput",
    "CommandReceived",
    "CommandRefused",
    "CommandResult",
    "ConfigUpdate",
    "Discover",
    "DiscoveryAck",
    "DiscoveryBatch",
    "DiscoveryResult",
    "Enroll",
    "EnrollAgent",
    "Enrolled",
    "EnrolmentAnswer",
    "Error",
    "Event",
    "EventBody",
    "Events",
    "EventsAck",
    "EventsLost",
    "GatewayRegister",
    "GatewayRegistered",
    "GatewayRenewed",
    "GoAway",
    "HealthChanged",
    "Heartbeat",
    "Introduction",
    "JobExited",
    "JobStatuses",
    "OsInfo",
    "Ping",
    "Presence",
    "ProbeCommands",
    "ProbeResult",
    "Register",
    "Registered",
    "RemoteSettings",
    "RenewCertificate",
    "RenewGateway",
    "RenewalRefused",
    "Resume",
    "RevokeAgent",
    "Trust",
]

FROM_AGENT = (
    Register
    | Presence
    | Heartbeat
    | CommandReceived
    | Events
    | JobStatuses
    | ProbeResult
    | DiscoveryResult
    | RenewCertificate
    | Error
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
    | CertificateRenewed
    | CertificateRefused
    | Error
)
FROM_GATEWAY = (
    GatewayRegister
    | AgentOnline
    | AgentOffline
    | AggregatedHeartbeat
    | CommandRefused
    | DiscoveryBatch
    | EnrollAgent
    | RenewGateway
    | GoAway
    | Presence
    | CommandReceived
    | Events
    | JobStatuses
    | ProbeResult
    | RenewCertificate
    | Error
)
TO_GATEWAY = (
    GatewayRegistered
    | BroadcastCommand
    | DiscoveryAck
    | Authorities
    | RevokeAgent
    | EnrolmentAnswer
    | GatewayRenewed
    | RenewalRefused
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
    | CertificateRenewed
    | CertificateRefused
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
        CertificateRenewed,
        CertificateRefused,
    )
)
"""What an agent obeys only with the backend's seal."""

SEALED_BY_AGENT = frozenset(
    message.type
    for message in (
        Register,
        Presence,
        CommandReceived,
        Events,
        JobStatuses,
        ProbeResult,
        DiscoveryResult,
        RenewCertificate,
    )
)
"""What the backend believes only with the agent's seal."""

TO_ENROLLING = Introduction | Enrolled | Error
FROM_ENROLLING = Enroll | Error
