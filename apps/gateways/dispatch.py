"""Rows to frames and frames to messages, and the hints that wake whoever sends.

Hints may be lost: everything is also looked for.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Iterable
from typing import Any

from asgiref.sync import async_to_sync
from channels.layers import get_channel_layer
from django.db import transaction

from apps.gateways.exceptions import InvalidCommandError
from apps.gateways.models import Agent, Command
from opsmap_protocol import codec, messages
from opsmap_protocol.checks import CheckResult, HealthCheck
from opsmap_protocol.errors import ProtocolError
from opsmap_protocol.specs import CommandSpec, ExecutionMode


def gateway_group(gateway_id: uuid.UUID) -> str:
    """The channel group of a gateway's link consumer."""
    return f"gateway.{gateway_id.hex}"


def wake_gateway_on_commit(gateway_id: uuid.UUID | None) -> None:
    """Tell the link consumer of a gateway, once the transaction is through, that there is something to send."""
    if gateway_id is not None:
        transaction.on_commit(lambda: _wake(gateway_id))


def _wake(gateway_id: uuid.UUID) -> None:
    layer = get_channel_layer()
    assert layer is not None
    async_to_sync(layer.group_send)(gateway_group(gateway_id), {"type": "link.wake"})


def check_command(spec: dict[str, Any], execution: dict[str, Any]) -> None:
    """Raises InvalidCommandError unless an agent could understand it."""
    try:
        codec.build(CommandSpec, spec)
        codec.build(ExecutionMode, execution)
    except ProtocolError as error:
        raise InvalidCommandError(str(error)) from None


def read_frame(frame: str | bytes) -> Any:
    """The message in a gateway's frame, with nothing in it that PostgreSQL refuses: a command may print anything.

    Raises:
        ProtocolError: it cannot be understood.
    """
    return codec.from_plain(_storable(codec.parse(frame)), messages.FROM_GATEWAY)


def _storable(value: Any) -> Any:
    """JSON knows NUL, Python's JSON also NaN; PostgreSQL knows neither, and one of them would refuse a whole batch."""
    match value:
        case str():
            return value.replace("\0", "\ufffd")
        case float() if not math.isfinite(value):
            return None
        case list():
            return [_storable(item) for item in value]
        case dict():
            return {_storable(key): _storable(item) for key, item in value.items()}
    return value


def command_frame(command: Command, agent_id: str) -> str:
    return codec.encode(
        messages.Command(
            request_id=str(command.pk),
            target_agent=agent_id,
            command=codec.build(CommandSpec, command.spec),
            execution_mode=codec.build(ExecutionMode, command.execution),
            timeout_ms=command.timeout_ms,
            not_after=command.not_after,
            subject=str(command.subject) if command.subject else None,
            epoch=command.epoch,
        )
    )


def cancel_frame(command: Command, agent_id: str) -> str:
    return codec.encode(messages.CancelCommand(target_agent=agent_id, request_id=str(command.pk)))


def resume_frame(agent: Agent) -> str:
    return codec.encode(messages.Resume(agent.agent_id, agent.incarnation, agent.acked_seq))


def ack_frame(agent_id: str, incarnation: str, seq: int) -> str:
    return codec.encode(messages.EventsAck(agent_id, incarnation, seq))


def health_checks_frame(agent: Agent) -> str:
    checks = [codec.build(HealthCheck, check) for check in agent.health_checks]
    return codec.encode(messages.ConfigUpdate(agent.agent_id, agent.health_checks_revision, checks))


def poll_frame(agent_id: str, job_ids: Iterable[str]) -> str:
    return codec.encode(messages.CheckJobStatus(agent_id, list(job_ids)))


def registered_frame(session_id: uuid.UUID) -> str:
    return codec.encode(messages.GatewayRegistered(str(session_id)))


def error_frame(code: str, reason: str, about: str | None = None) -> str:
    return codec.encode(messages.Error(code, reason, about))


def plain_check_result(result: CheckResult | None) -> dict[str, Any] | None:
    plain: dict[str, Any] | None = codec.to_plain(result)
    return plain
