"""What can be wrong with a frame, and the close codes that say so on the socket."""

from __future__ import annotations

from enum import IntEnum


class CloseCode(IntEnum):
    """WebSocket close codes of our own range (4000-4999, RFC 6455 section 7.4.2)."""

    REFUSED_BY_PEER = 4000
    """The other side said why it does not want us; nothing is left but to agree."""
    BAD_MESSAGE = 4400
    """The greeting, or too many frames after it, could not be understood."""
    UNAUTHENTICATED = 4401
    """Something else came than the greeting, or it came too late, or nobody knows who sent it."""
    IDENTITY_MISMATCH = 4403
    """The certificate says another name than the greeting."""
    VERSION_UNSUPPORTED = 4406
    """There is no version of the protocol that both sides speak."""
    REPLACED = 4409
    """A newer session of the same peer took over."""
    REVOKED = 4410
    """The certificate was revoked: it will not be let in again, another one may."""
    TOO_MANY_CONNECTIONS = 4429
    """The limit of this gateway is reached; another may have room."""


class ProtocolError(Exception):
    """A frame that cannot be understood. `code` is stable, the message is for people."""

    code = "protocol_error"


class FrameTooLargeError(ProtocolError):
    """More than the limit; the message names both sizes."""

    code = "frame_too_large"


class MalformedMessageError(ProtocolError):
    """Not JSON, not an object, or a field with a wrong shape; the message names the field."""

    code = "malformed_message"


class UnknownMessageError(ProtocolError):
    """A `type` that this side does not know: answered, never fatal, because the peer may be newer."""

    code = "unknown_message"

    def __init__(self, type_name: str) -> None:
        super().__init__(f"unknown message type {type_name!r}")
        self.type_name = type_name


class FatalError(ProtocolError):
    """A frame after which the session cannot go on: answered with `error`, then closed with `close_code`."""

    def __init__(self, close_code: CloseCode, code: str, reason: str) -> None:
        super().__init__(reason)
        self.close_code = close_code
        self.code = code


class InvalidIdentityError(ProtocolError):
    """A certificate, or the URI in it, that is not what it has to be."""

    code = "invalid_identity"
