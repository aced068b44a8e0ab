"""What can be wrong with a frame, and the close codes that say so on the socket."""

from __future__ import annotations

from enum import IntEnum


class CloseCode(IntEnum):
    """WebSocket close codes of our own range (4000-4999, RFC 6455 section 7.4.2)."""

    BAD_MESSAGE = 4400
    UNAUTHENTICATED = 4401
    IDENTITY_MISMATCH = 4403
    VERSION_UNSUPPORTED = 4406
    REPLACED = 4409
    """A newer session of the same peer took over."""
    TOO_MANY_CONNECTIONS = 4429


class ProtocolError(Exception):
    """A frame that cannot be understood. `code` is stable, the message is for people."""

    code = "protocol_error"


class FrameTooLargeError(ProtocolError):
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


class InvalidIdentityError(ProtocolError):
    code = "invalid_identity"
