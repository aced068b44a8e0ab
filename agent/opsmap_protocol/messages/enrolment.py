"""The few words at a gateway's door for agents that have no certificate yet.

The agent comes twice. First it verifies nobody and says nothing: it reads `introduction`, compares the root with the
one its token names, and goes. Then it comes again, verifies the gateway below that root, and only now shows the token.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Introduction:
    """The first frame, from the gateway: the root of its installation and the Gateway CAs below it; DER in base64."""

    type: ClassVar[str] = "introduction"
    root: str
    gateway_authorities: list[str]


@dataclass(frozen=True, slots=True)
class Enroll:
    """From the agent: its token, who it wants to be, and its CSR (PKCS #10, DER in base64); its key stays with it."""

    type: ClassVar[str] = "enroll"
    enrolment_token: str
    agent_id: str
    hostname: str
    csr: str


@dataclass(frozen=True, slots=True)
class Enrolled:
    """Its certificate chain, the agent's own first, and whom to trust. A refusal is an `error` instead."""

    type: ClassVar[str] = "enrolled"
    agent_id: str
    certificate: list[str]
    gateway_authorities: list[str]
    backend_authorities: list[str]
