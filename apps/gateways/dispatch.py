"""Rows to frames, and the hints that wake whoever sends.

Hints may be lost: everything is also looked for.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Iterable, Sequence
from typing import Any

from django.db import transaction

from apps.gateways.exceptions import InvalidCommandError
from apps.gateways.hints import send_hint
from opsmap_protocol import codec, messages
from opsmap_protocol.checks import CheckResult
from opsmap_protocol.errors import ProtocolError
from opsmap_protocol.specs import CommandSpec, ExecutionMode

COMMANDS_GROUP = "commands"
"""Whoever waits for commands hears here which have ended: {"type": "commands.ended", "ids": [...]}."""

_PER_TARGET = frozenset({"target_agent", "request_id"})
"""Of a command, what a broadcast says of each target outside of `fields`."""


def gateway_group(gateway_id: uuid.UUID) -> str:
    """The channel group of a gateway's link consumer."""
    return f"gateway.{gateway_id.hex}"


def wake_gateway_on_commit(gateway_id: uuid.UUID | None) -> None:
    """Tell the link consumer of a gateway, once the transaction is through, that there is something to send."""
    if gateway_id is not None:
        transaction.on_commit(lambda: send_hint(gateway_group(gateway_id), {"type": "link.wake"}))


def announce_ends_on_commit(command_ids: Iterable[uuid.UUID]) -> None:
    """Tell whoever waits for these commands, once the transaction is through, that they have ended."""
    ids = [str(command_id) for command_id in command_ids]
    if ids:
        transaction.on_commit(lambda: send_hint(COMMANDS_GROUP, {"type": "commands.ended", "ids": ids}))


def check_command(spec: dict[str, Any], execution: dict[str, Any]) -> None:
    """Raises InvalidCommandError unless an agent could understand it."""
    try:
        codec.build(CommandSpec, spec)
        codec.build(ExecutionMode, execution)
    except ProtocolError as error:
        raise InvalidCommandError(str(error)) from None


def storable(value: Any) -> Any:
    """JSON knows NUL, Python's JSON also NaN; PostgreSQL knows neither, and one of them would refuse a whole batch."""
    match value:
        case str():
            return value.replace("\0", "\ufffd") if "\0" in value else value
        case float() if not math.isfinite(value):
            return None
        case list():
            return [storable(item) for item in value]
        case dict():
            return {storable(key): storable(item) for key, item in value.items()}
    return value


def error_frame(code: str, reason: str, about: str | None = None) -> str:
    return codec.encode(messages.Error(code, reason, about))


def plain_check_result(result: CheckResult | None) -> dict[str, Any] | None:
    plain: dict[str, Any] | None = codec.to_plain(result)
    return plain


def agent_filter(stored: dict[str, Any]) -> messages.AgentFilter:
    """What a gateway can check of a broadcast's filter. Agents picked one by one are its targets: nothing to check."""
    labels = stored.get("labels")
    pattern = stored.get("hostnamePattern")
    return messages.AgentFilter(labels=labels if isinstance(labels, dict) else {}, hostname_pattern=pattern or None)


def broadcast_frame(broadcast_id: uuid.UUID, stored_filter: dict[str, Any], commands: Sequence[dict[str, Any]]) -> str:
    """One frame for several sealed command objects: what they have in common once, the rest for each."""
    first, *others = commands
    shared = {
        name: value
        for name, value in first.items()
        if name not in _PER_TARGET and all(name in other and other[name] == value for other in others)
    }
    targets = [
        messages.BroadcastTarget(
            target_agent=command["target_agent"],
            request_id=command["request_id"],
            fields={name: value for name, value in command.items() if name not in shared and name not in _PER_TARGET},
        )
        for command in commands
    ]
    return codec.encode(messages.BroadcastCommand(str(broadcast_id), agent_filter(stored_filter), shared, targets))
