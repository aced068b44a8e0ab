"""What people set on agents from here: `RemoteSettings` of the protocol, told to them as part of `config_update`.

It can only restrict what the file of the host allows: that is checked there. Here it is checked that it means
something.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Sequence
from typing import Any

from django.db import connection, transaction

from apps.audit.actions import record_event
from apps.audit.actor import Actor
from apps.gateways.dispatch import wake_gateway_on_commit
from apps.gateways.exceptions import InvalidSettingsError
from apps.gateways.models import Agent
from opsmap_protocol import codec
from opsmap_protocol.errors import ProtocolError
from opsmap_protocol.messages import RemoteSettings

# As agents hold them, too: nothing is accepted here that they would not do.
LOG_LEVELS = ("debug", "info", "warn", "error")
HEARTBEAT_SECS = (5.0, 60.0)
DISCOVERY_SECS = (60, 7 * 24 * 3600)
MAX_NATIVES = 200
_NATIVE = re.compile(r"[a-z][a-z0-9_.]{0,63}", re.ASCII)

# Locked in the order of their ids. A key that is null goes back to what the host's file says, and is not kept.
_CHANGE = """
UPDATE gateways_agent a SET settings = v.settings, changed_at = clock_timestamp()
FROM (
    SELECT mine.id, jsonb_strip_nulls(mine.settings || %s::jsonb) AS settings FROM gateways_agent mine
    WHERE mine.id = ANY(%s) ORDER BY mine.id FOR NO KEY UPDATE
) v
WHERE a.id = v.id AND a.settings IS DISTINCT FROM v.settings
RETURNING a.agent_id, a.gateway_id
"""


@transaction.atomic
def change_settings(
    *, organization_id: uuid.UUID, agents: Sequence[Agent], changes: dict[str, Any], actor: Actor
) -> list[str]:
    """Set some keys of some agents of one organization; told to them on commit. Returns the agent ids it is new for.

    `changes` has keys of `RemoteSettings`; None gives one back to the host's file. One audit event for all of them, and
    none if nothing changes.

    Raises:
        InvalidSettingsError: a key is unknown, or its value is none.
    """
    check_settings(changes)
    # An empty list restricts nothing, as if it had never been set.
    kept = {name: None if value == [] else value for name, value in changes.items()}
    with connection.cursor() as cursor:
        cursor.execute(_CHANGE, [json.dumps(kept), [agent.pk for agent in agents]])
        changed: list[tuple[str, uuid.UUID | None]] = cursor.fetchall()
    if not changed:
        return []
    names = sorted(agent_id for agent_id, _ in changed)
    record_event(
        "agent.settings_changed",
        actor=actor,
        organization_id=organization_id,
        target={"type": "agent", "agentId": names[0]} if len(names) == 1 else {"type": "fleet"},
        details={"changes": changes, "agents": names},
    )
    for gateway_id in {gateway_id for _, gateway_id in changed}:
        wake_gateway_on_commit(gateway_id)
    return names


def check_settings(changes: dict[str, Any]) -> None:
    """Raises InvalidSettingsError with the first fault."""
    unknown = sorted(changes.keys() - RemoteSettings.__dataclass_fields__.keys())
    if unknown:
        raise InvalidSettingsError(f"There is no setting {unknown[0]}.")
    try:
        wanted: RemoteSettings = codec.build(RemoteSettings, {k: v for k, v in changes.items() if v is not None})
    except ProtocolError as error:
        raise InvalidSettingsError(str(error)) from None
    if wanted.log_level is not None and wanted.log_level not in LOG_LEVELS:
        raise InvalidSettingsError(f"log_level is one of {', '.join(LOG_LEVELS)}.")
    _check_between("heartbeat_interval_secs", wanted.heartbeat_interval_secs, HEARTBEAT_SECS)
    _check_between("discovery_interval_secs", wanted.discovery_interval_secs, DISCOVERY_SECS)
    if len(wanted.disabled_natives) > MAX_NATIVES:
        raise InvalidSettingsError(f"disabled_natives names at most {MAX_NATIVES} commands.")
    for name in wanted.disabled_natives:
        if not _NATIVE.fullmatch(name):
            raise InvalidSettingsError(f"disabled_natives: {name[:64]!r} is no name of a native command.")


def _check_between(name: str, value: float | None, limits: tuple[float, float]) -> None:
    if value is not None and not limits[0] <= value <= limits[1]:
        raise InvalidSettingsError(f"{name} is between {limits[0]:g} and {limits[1]:g} seconds.")
