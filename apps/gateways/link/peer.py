"""What the parts of one gateway's connection share."""

from __future__ import annotations

import logging
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography import x509

from apps.gateways.link.agents import AgentLink, AgentLinks
from apps.gateways.link.certificates import AgentCertificates, agent_certificates
from apps.gateways.link.database import LinkDatabase
from apps.gateways.models import Gateway
from apps.gateways.sealing import Signer, current_signer
from opsmap_daemon.sparing import SparingLog
from opsmap_protocol import codec, messages
from opsmap_protocol.session import Session
from opsmap_trust.seals import Sealer

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Peer:
    """A gateway that is connected by `session_id` and shows `certificate`, and the agents behind it.

    `signer` changes in one place only, where the agents are told of the new key before anything is sealed with it.
    """

    gateway: Gateway
    session_id: uuid.UUID
    pki_dir: Path
    certificate: x509.Certificate
    session: Session
    database: LinkDatabase
    links: AgentLinks = field(default_factory=AgentLinks)
    log: SparingLog = field(default_factory=lambda: SparingLog(logger, logging.WARNING))
    # Agents whose session may have come into use: by id, looked at in the next pass.
    doubtful: set[str] = field(default_factory=set)
    signer: Signer = field(init=False)
    sealer: Sealer = field(init=False)
    certificates: AgentCertificates = field(init=False)

    def __post_init__(self) -> None:
        self.renew_signer()
        self.certificates = agent_certificates(self.pki_dir)

    def renew_signer(self) -> bool:
        """Take the key that is the current one now. False if it is the one we have."""
        signer = current_signer(self.pki_dir / "leaf")
        if hasattr(self, "signer") and signer is self.signer:
            return False
        self.signer, self.sealer = signer, signer.sealer(self.gateway.organization_id)
        return True

    def seal(self, message: Any) -> str:
        return self.sealer.seal(message)

    def trust_frame(self, agent_id: str) -> str:
        return codec.encode(messages.Trust(agent_id, self.signer.certificates(), self.signer.crl))

    def resume_frame(self, link: AgentLink) -> str:
        """For a session that has been greeted: only then is known since when it is in use."""
        assert link.greeted_at is not None
        return self.seal(messages.Resume(link.agent_id, link.token, link.incarnation, link.acked_seq, link.greeted_at))
