"""Ending a connection in order: the peer hears why, and cannot hold us up."""

from __future__ import annotations

import asyncio
import logging

from websockets.asyncio.connection import Connection
from websockets.exceptions import ConnectionClosed

from opsmap_daemon.connection import close_within
from opsmap_protocol.codec import encode
from opsmap_protocol.messages import Error

_logger = logging.getLogger(__name__)
_TIMEOUT_S = 1.5
_MAX_REASON_BYTES = 123
"""What a close frame holds (RFC 6455, section 5.5)."""


async def say_goodbye(socket: Connection, close_code: int, reason: str, error: Error | None = None) -> None:
    """Send an error, if there is one, and close."""
    try:
        if error is not None:
            async with asyncio.timeout(_TIMEOUT_S):
                await socket.send(encode(error))
    except (ConnectionClosed, TimeoutError) as problem:
        _logger.debug("the peer did not hear why it has to leave (%s): %s", reason, problem)
    short = reason.encode("ascii", "replace")[:_MAX_REASON_BYTES].decode("ascii")
    await close_within(_TIMEOUT_S, socket, close_code, short)
