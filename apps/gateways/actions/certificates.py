"""A development PKI: what `make run` needs so that every link is mutual TLS from the first minute."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from pathlib import Path

from apps.audit.actor import Actor
from apps.gateways.actions.sessions import register_gateway
from apps.gateways.pki import ensure_authorities, ensure_leaf
from opsmap_protocol.enums import PeerRole
from opsmap_protocol.identity import BACKEND_URI, Identity

LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")


def ensure_development_certificates(
    *, folder: Path, organization_id: uuid.UUID, gateway_id: str, agent_ids: Iterable[str], actor: Actor
) -> None:
    """Root, intermediates and leaves of one machine in `folder`, and the gateway registered. Keeps what is still good.

    Keys lie unencrypted beside their certificates: for a machine of one's own, not for production.

    Raises:
        PkiError: the folder holds a part of a PKI.
    """
    authorities = ensure_authorities(folder / "ca")
    leaf = folder / "leaf"
    ensure_leaf(leaf, "backend", authorities[PeerRole.BACKEND], uri=BACKEND_URI, hosts=LOCAL_HOSTS)
    organization = str(organization_id)
    gateway = Identity(organization, PeerRole.GATEWAY, gateway_id)
    certificate = ensure_leaf(leaf, gateway_id, authorities[PeerRole.GATEWAY], uri=gateway.uri, hosts=LOCAL_HOSTS)
    register_gateway(
        organization_id=organization_id, gateway_id=gateway_id, certificate_sha256=certificate, actor=actor
    )
    for agent_id in agent_ids:
        agent = Identity(organization, PeerRole.AGENT, agent_id)
        ensure_leaf(leaf, f"agent-{agent_id}", authorities[PeerRole.AGENT], uri=agent.uri, hosts=[agent_id])
