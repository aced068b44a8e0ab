"""Who is at the door: the certificate of an agent's connection, and the first frame it sends."""

from __future__ import annotations

import asyncio

from websockets.asyncio.server import ServerConnection

from opsmap_daemon import tls
from opsmap_protocol import PROTOCOL_VERSION
from opsmap_protocol.codec import from_plain, parse
from opsmap_protocol.enums import PeerRole
from opsmap_protocol.errors import CloseCode, FrameTooLargeError, InvalidIdentityError, ProtocolError
from opsmap_protocol.identity import Identity, identity_of_peer
from opsmap_protocol.messages import Register

_MAX_REGISTER_BYTES = 256 * 1024
"""Registrations are kept and repeated to the backend inside another message, which must stay below its limit."""


class RefusedError(Exception):
    """An agent is not let in. It gets `code` and the reason in an `error`, then `close_code`."""

    def __init__(self, close_code: CloseCode, code: str, reason: str) -> None:
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


async def read_registration(socket: ServerConnection, identity: Identity, timeout_s: float) -> Register:
    """The `register` of an agent, which must be its first frame and tell the name in its certificate.

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
        if len(frame) > _MAX_REGISTER_BYTES:
            raise FrameTooLargeError(f"{len(frame)} bytes, at most {_MAX_REGISTER_BYTES} are accepted")
        data = parse(frame)
        # Before the rest: another version may well have another shape, and deserves the true reason.
        if data["type"] == Register.type and data.get("protocol_version") != PROTOCOL_VERSION:
            raise RefusedError(
                CloseCode.VERSION_UNSUPPORTED,
                "version_unsupported",
                f"this gateway speaks protocol version {PROTOCOL_VERSION}, "
                f"the agent {str(data.get('protocol_version'))[:20]}",
            )
        register: Register = from_plain(data, Register)
    except ProtocolError as error:
        raise RefusedError(CloseCode.BAD_MESSAGE, error.code, f"expected register: {error}") from None
    if register.agent_id != identity.name:
        raise RefusedError(
            CloseCode.IDENTITY_MISMATCH,
            "identity_mismatch",
            f"the certificate is that of agent {identity.name}, not of {register.agent_id[:130]!r}",
        )
    return register
