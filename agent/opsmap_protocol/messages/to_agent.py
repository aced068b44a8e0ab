"""What an agent hears: from its gateway itself, and from the backend through it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import ClassVar

from opsmap_protocol import PROTOCOL_VERSION
from opsmap_protocol.checks import HealthCheck
from opsmap_protocol.specs import CommandSpec, ExecutionMode

# From the gateway itself


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


# From the backend


@dataclass(frozen=True, slots=True)
class Trust:
    """The certificates of the keys that the backend seals with, DER in base64. Not sealed: they prove themselves.

    `crl` is the newest revocation list of the Backend CA (X.509, DER in base64), if there is one: the keys it names do
    not count any more. It proves itself too, and its number only ever grows, so nobody can bring back an older one.
    """

    type: ClassVar[str] = "trust"
    target_agent: str
    certificates: list[str]
    crl: str | None = None


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
class RemoteSettings:
    """What the backend may set on an agent. It can only restrict what the host's own configuration allows.

    None leaves a key as the host's file has it. `disabled_natives` are switched off in addition.
    """

    log_level: str | None = None
    heartbeat_interval_secs: float | None = None
    discovery_interval_secs: int | None = None
    disabled_natives: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class ConfigUpdate:
    """All health checks and settings of this host; replaces the former. An older one than the newest is refused."""

    type: ClassVar[str] = "config_update"
    target_agent: str
    issued_at: datetime
    revision: str
    health_checks: list[HealthCheck]
    settings: RemoteSettings = field(default_factory=RemoteSettings)


@dataclass(frozen=True, slots=True)
class ProbeCommands:
    """What became of these commands? Never makes the agent run one."""

    type: ClassVar[str] = "probe_commands"
    target_agent: str
    request_ids: list[str]


@dataclass(frozen=True, slots=True)
class Discover:
    """Look around now. `discover_types` as in the kinds of `discovery_result`; empty means all.

    With `is_full` the answer has no base: the backend has lost what the agent told before, or never had it.
    """

    type: ClassVar[str] = "discover"
    target_agent: str
    discovery_id: str
    discover_types: list[str]
    is_full: bool = False


@dataclass(frozen=True, slots=True)
class CertificateRenewed:
    """The answer to `renew_certificate`: the certificate, and the authorities to trust from now on; DER in base64.

    `certificate` is the chain, the agent's own first. `gateway_authorities` and `backend_authorities` replace what the
    agent trusts, if each was issued by the root that it has known since it was enrolled.
    """

    type: ClassVar[str] = "certificate_renewed"
    target_agent: str
    certificate: list[str]
    gateway_authorities: list[str]
    backend_authorities: list[str]


@dataclass(frozen=True, slots=True)
class CertificateRefused:
    """There is no next certificate for this agent. It goes on with the present one, and asks again later."""

    type: ClassVar[str] = "certificate_refused"
    target_agent: str
    code: str
    reason: str
