"""What a gateway says of itself to the backend, beside what it carries for its agents."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar

from opsmap_protocol import MIN_PROTOCOL_VERSION, PROTOCOL_VERSION
from opsmap_protocol.messages.from_agent import Heartbeat


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


@dataclass(frozen=True, slots=True)
class EnrollAgent:
    """An agent without a certificate asks for its first one, at the gateway's door for such (see enrolment.py).

    `address` is where it came from, for the audit trail. Answered with `enrolment_answer`.
    """

    type: ClassVar[str] = "enroll_agent"
    gateway_id: str
    enrolment_id: str
    enrolment_token: str
    agent_id: str
    hostname: str
    csr: str
    address: str


@dataclass(frozen=True, slots=True)
class RenewGateway:
    """Asks for the gateway's own next certificate. `csr` is PKCS #10, DER in base64, of a new key."""

    type: ClassVar[str] = "renew_gateway"
    gateway_id: str
    csr: str
