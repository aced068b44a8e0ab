"""The wire protocol between agent, gateway and backend: messages, codec, identities.

Standard library only and no I/O, so that the three sides share one definition and tests can drive it without a socket.
"""

PROTOCOL_VERSION = 1
"""Raised when a message changes so that an older peer would misunderstand it; peers refuse what they cannot speak."""

MIN_PROTOCOL_VERSION = 1
"""The oldest version that this side still speaks. Two peers use the newest that both know."""

MAX_FRAME_BYTES = 4 * 1024 * 1024
"""The largest frame any side accepts. A command result of 1 MiB doubles at most when it is escaped as JSON."""

MAX_NESTING = 100
"""The deepest JSON any side accepts: far below where a reader that calls itself for each level gives up."""

MAX_AGENT_NESTING = 80
"""The deepest JSON a gateway accepts from an agent. Less, because it puts some of it into frames of its own."""
