"""Certificates for `make run`: a whole PKI and everybody's keys in one folder of one machine."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from pathlib import Path

from django.conf import settings
from django.db import transaction

from apps.audit.actor import Actor
from apps.gateways.actions.certificates import record_certificate
from apps.gateways.actions.sessions import register_gateway
from apps.gateways.pki import ensure_authorities, ensure_leaf, renew_signer
from apps.gateways.pki.files import locked, read_certificate
from opsmap_protocol.enums import PeerRole
from opsmap_protocol.identity import BACKEND_URI, Identity


@transaction.atomic
def ensure_development_certificates(
    *, folder: Path, organization_id: uuid.UUID, gateway_id: str, agent_ids: Iterable[str], actor: Actor
) -> None:
    """Root, intermediates and leaves of one machine in `folder`, and the gateway registered. Keeps what is still good.

    Keys lie beside their certificates, and the passphrase of the root's beside it: for a machine of one's own, not for
    production. A PKI that `manage.py pki create` made is used as it is.

    Raises:
        PkiError: the folder holds a part of a PKI.
    """
    with locked(folder):
        authorities = ensure_authorities(folder / "ca")
        leaf, life = folder / "leaf", settings.CERTIFICATE_LIFE
        backend = authorities[PeerRole.BACKEND]
        ensure_leaf(leaf, "backend", backend, uri=BACKEND_URI, hosts=settings.LINK_HOSTS, life=life)
        renew_signer(leaf, backend, life=settings.SIGNER_LIFE)
        gateway = Identity(str(organization_id), PeerRole.GATEWAY, gateway_id)
        authority = authorities[PeerRole.GATEWAY]
        shown = ensure_leaf(leaf, gateway_id, authority, uri=gateway.uri, hosts=settings.LINK_HOSTS, life=life)
        record_certificate(gateway, read_certificate(leaf / f"{gateway_id}.crt"))
        register_gateway(organization_id=organization_id, gateway_id=gateway_id, certificate_sha256=shown, actor=actor)
        for agent_id in agent_ids:
            agent, name = Identity(str(organization_id), PeerRole.AGENT, agent_id), f"agent-{agent_id}"
            authority = authorities[PeerRole.AGENT]
            ensure_leaf(leaf, name, authority, uri=agent.uri, hosts=[agent_id], seals=True, life=life)
            record_certificate(agent, read_certificate(leaf / f"{name}.crt"))
