"""What the backend says to a gateway, beside what is for its agents."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from opsmap_protocol import PROTOCOL_VERSION


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


@dataclass(frozen=True, slots=True)
class Authorities:
    """Whom a gateway trusts: comes when it has registered, and whenever that changes. DER in base64.

    The root is the one that the gateway has known since it was enrolled; the others replace what it trusts if that
    root issued them.
    """

    type: ClassVar[str] = "authorities"
    root: str
    backend: list[str]
    gateway: list[str]
    agent: list[str]


@dataclass(frozen=True, slots=True)
class RevokeAgent:
    """That agent does not count any more: its connections end now, and its certificates are not let in again.

    `certificates` are their SHA-256 fingerprints. Comes again for an agent that tries nevertheless.
    """

    type: ClassVar[str] = "revoke_agent"
    agent_id: str
    certificates: list[str]
    reason: str


@dataclass(frozen=True, slots=True)
class EnrolmentAnswer:
    """The answer to `enroll_agent`: a certificate chain, the agent's own first, or `code` and `reason` of a refusal."""

    type: ClassVar[str] = "enrolment_answer"
    enrolment_id: str
    agent_id: str
    certificate: list[str]
    code: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class GatewayRenewed:
    """The answer to `renew_gateway`: the certificate chain, the gateway's own first."""

    type: ClassVar[str] = "gateway_renewed"
    certificate: list[str]


@dataclass(frozen=True, slots=True)
class RenewalRefused:
    """There is no next certificate for this gateway. It goes on with the present one, and asks again later."""

    type: ClassVar[str] = "renewal_refused"
    code: str
    reason: str
