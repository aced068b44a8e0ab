"""Certificates: one root, three intermediates, and leaves that say organization, role and name (SPEC 2).

Each side trusts exactly one branch, so a branch cannot speak for another: gateways are verified by the Gateway CA,
agents by the Agent CA, the backend by the Backend CA. Keys are ECDSA P-256: a handshake costs a fraction of RSA's.
Those that seal frames are Ed25519: the backend's signing key, and the keys of agents, which serve for TLS too.

    OPSMAP_PKI_DIR/ca/     root.crt [root.key]  <role>.crt <role>*.key  [backend.crl]
    OPSMAP_PKI_DIR/leaf/   backend.{crt,key} of the link server, signer.{crt,key} and signer-*.crt
"""

from apps.gateways.pki.authorities import Authority, ensure_authorities, read_authorities
from apps.gateways.pki.leaves import LEAF_LIFE, ensure_leaf, issue
from apps.gateways.pki.naming import fingerprint, gateway_of_peer
from apps.gateways.pki.signer import SIGNER, renew_signer

__all__ = [
    "LEAF_LIFE",
    "SIGNER",
    "Authority",
    "ensure_authorities",
    "ensure_leaf",
    "fingerprint",
    "gateway_of_peer",
    "issue",
    "read_authorities",
    "renew_signer",
]
