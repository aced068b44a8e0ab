"""The wire protocol between agent, gateway and backend: messages, codec, identities.

Standard library only and no I/O, so that the three sides share one definition and tests can drive it without a socket.
"""

PROTOCOL_VERSION = 1
"""Raised when a message changes so that an older peer would misunderstand it; peers refuse what they cannot speak."""

MAX_FRAME_BYTES = 4 * 1024 * 1024
"""The largest frame any side accepts. A command result of 1 MiB doubles at most when it is escaped as JSON."""
