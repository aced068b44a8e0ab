"""Certificates on disk: a development PKI for `make run`, and the rotation of the key that seals."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from pathlib import Path

from cryptography import x509
from django.db import transaction

from apps.audit.actions import record_event
from apps.audit.actor import Actor
from apps.gateways.actions.sessions import register_gateway
from apps.gateways.exceptions import PkiError
from apps.gateways.pki import SIGNER, ensure_authorities, ensure_leaf, fingerprint, renew_signer
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
    renew_signer(leaf, authorities[PeerRole.BACKEND])
    organization = str(organization_id)
    gateway = Identity(organization, PeerRole.GATEWAY, gateway_id)
    certificate = ensure_leaf(leaf, gateway_id, authorities[PeerRole.GATEWAY], uri=gateway.uri, hosts=LOCAL_HOSTS)
    register_gateway(
        organization_id=organization_id, gateway_id=gateway_id, certificate_sha256=certificate, actor=actor
    )
    for agent_id in agent_ids:
        agent = Identity(organization, PeerRole.AGENT, agent_id)
        ensure_leaf(leaf, f"agent-{agent_id}", authorities[PeerRole.AGENT], uri=agent.uri, hosts=[agent_id], seals=True)


@transaction.atomic
def rotate_signing_key(*, folder: Path, actor: Actor) -> str:
    """A new key to seal with; the one before stays trusted until its certificate expires. Returns the new key's id.

    Link servers notice by themselves within a second and tell every connected agent.

    Raises:
        PkiError: the folder has no whole PKI.
    """
    if not (folder / "ca").is_dir():
        raise PkiError(f"{folder} has no authorities (ca/)")
    leaf = folder / "leaf"
    authority = ensure_authorities(folder / "ca")[PeerRole.BACKEND]
    # First the event: files do not roll back, so what is made must be told already.
    record_event(
        "signing_key.rotated",
        actor=actor,
        organization_id=None,
        target={"type": "signingKey"},
        details={"formerKeyId": _key_id(leaf)},
    )
    renew_signer(leaf, authority, is_forced=True)
    return _key_id(leaf)


def _key_id(leaf: Path) -> str:
    path = leaf / f"{SIGNER}.crt"
    return fingerprint(x509.load_pem_x509_certificate(path.read_bytes())) if path.exists() else ""
