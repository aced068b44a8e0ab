"""Who a certificate belongs to: a SPIFFE-style URI in its subject alternative names.

`spiffe://opsmap/org/<organization uuid>/<role>/<id>` for gateways and agents, `spiffe://opsmap/backend` for the
backend, which belongs to no organization, `spiffe://opsmap/backend/signer` for the key with which it seals what it says
to agents. The common name is never looked at.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from opsmap_protocol.enums import PeerRole
from opsmap_protocol.errors import InvalidIdentityError

BACKEND_URI = "spiffe://opsmap/backend"
BACKEND_SIGNER_URI = "spiffe://opsmap/backend/signer"
_PEER_URI = re.compile(
    r"spiffe://opsmap/org/(?P<organization>[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})"
    r"/(?P<role>gateway|agent)/(?P<name>[A-Za-z0-9][A-Za-z0-9._-]{0,126})",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Identity:
    """A gateway or agent of one organization. `name` is its gateway id or agent id."""

    organization_id: str
    role: PeerRole
    name: str

    @property
    def uri(self) -> str:
        return f"spiffe://opsmap/org/{self.organization_id}/{self.role}/{self.name}"


def parse_identity(uri: str) -> Identity:
    """Raises InvalidIdentityError for anything but the exact form."""
    match = _PEER_URI.fullmatch(uri)
    if match is None:
        raise InvalidIdentityError(f"not an OpsMap identity: {uri[:200]!r}")
    return Identity(match["organization"], PeerRole(match["role"]), match["name"])


def identity_of_peer(certificate: dict[str, Any], role: PeerRole) -> Identity:
    """The identity in a verified peer certificate, as `ssl.SSLSocket.getpeercert()` gives it.

    Raises:
        InvalidIdentityError: no OpsMap URI, more than one, or another role.
    """
    uris = [value for kind, value in certificate.get("subjectAltName", ()) if kind == "URI"]
    if len(uris) != 1:
        raise InvalidIdentityError(f"expected exactly one URI name in the certificate, found {len(uris)}")
    identity = parse_identity(uris[0])
    if identity.role is not role:
        raise InvalidIdentityError(f"expected the certificate of an {role}, found one of a {identity.role}")
    return identity


def is_backend(certificate: dict[str, Any]) -> bool:
    """Whether a verified peer certificate is the backend's."""
    return ("URI", BACKEND_URI) in certificate.get("subjectAltName", ())
