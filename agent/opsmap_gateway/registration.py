"""Who is at the door: the certificate of an agent's connection, and the first frame it sends."""

from __future__ import annotations

import asyncio
import binascii
import hashlib
from typing import Any

from websockets.asyncio.server import ServerConnection

from opsmap_daemon import tls
from opsmap_protocol.enums import PeerRole
from opsmap_protocol.errors import CloseCode, FatalError, InvalidIdentityError
from opsmap_protocol.identity import Identity, identity_of_peer
from opsmap_protocol.session import Session


class RefusedError(Exception):
    """An agent is not let in. It gets `code` and the reason in an `error`, then `close_code`."""

    def __init__(self, close_code: int, code: str, reason: str) -> None:
        super().__init__(reason)
        self.close_code = close_code
        self.code = code


def identify(socket: ServerConnection, organization_id: str) -> Identity:
    """The agent that the certificate of a connection names.

    Raises:
        RefusedError: it names none, or one of another organization.
    """
    try:
        identity = identity_of_peer(tls.peer_certificate(socket), PeerRole.AGENT)
    except InvalidIdentityError as error:
        raise RefusedError(CloseCode.IDENTITY_MISMATCH, error.code, str(error)) from None
    if identity.organization_id != organization_id:
        raise RefusedError(
            CloseCode.IDENTITY_MISMATCH,
            "identity_mismatch",
            "the certificate belongs to another organization than this gateway",
        )
    return identity


def fingerprints(socket: ServerConnection, registration: dict[str, Any] | None = None) -> frozenset[str]:
    """Of the certificates that an agent has shown: in the handshake, and for its seals. Usually they are the same."""
    found = {tls.peer_fingerprint(socket)}
    encoded = (registration or {}).get("certificate")
    try:
        found.add(hashlib.sha256(binascii.a2b_base64(encoded or "", strict_mode=True)).hexdigest())
    except (binascii.Error, ValueError, TypeError):
        # The backend looks into it, and has no session with an agent that shows something else.
        return frozenset(found)
    return frozenset(found)


async def read_registration(
    socket: ServerConnection, protocol: Session, identity: Identity, timeout_s: float
) -> dict[str, Any]:
    """The `register` of an agent, which must be its first frame and tell the name in its certificate.

    As it came, with its seal: whether that is genuine, the backend decides, for only it knows the agents' keys.

    Raises:
        RefusedError: it is late, or says something else, or another version or name.
        ConnectionClosed: the agent went away.
    """
    try:
        async with asyncio.timeout(timeout_s):
            frame = await socket.recv()
    except TimeoutError:
        reason = f"no register within {timeout_s:g} s"
        raise RefusedError(CloseCode.UNAUTHENTICATED, "not_registered", reason) from None
    try:
        data = protocol.read(frame)
    except FatalError as error:
        raise RefusedError(error.close_code, error.code, str(error)) from None
    if data["agent_id"] != identity.name:
        raise RefusedError(
            CloseCode.IDENTITY_MISMATCH,
            "identity_mismatch",
            f"the certificate is that of agent {identity.name}, not of {data['agent_id'][:130]!r}",
        )
    return data
