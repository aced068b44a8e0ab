"""The statements about sessions of agents: each goes through once for however many agents it concerns."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import connection

# The preferred session of each agent, else the newest; one of a gateway that stops soon only if there is no other.
# `connected_at` only grows, whatever the clock does: agents go by it.
_CHOOSE = """
UPDATE gateways_agent a
SET gateway_id = best.gateway_id, session_id = best.session_id, token = best.token, credits = best.credits,
    connected_at = GREATEST(clock_timestamp(), a.connected_at + interval '1 microsecond'),
    changed_at = clock_timestamp()
FROM (
    SELECT DISTINCT ON (s.agent_id) s.* FROM gateways_agentsession s WHERE s.agent_id = ANY(%s)
    ORDER BY s.agent_id, s.is_draining, s.is_preferred DESC, s.opened_at DESC, s.id DESC
) best
WHERE a.id = best.agent_id AND a.token <> best.token
RETURNING a.id, a.gateway_id
"""
_RELEASE = "UPDATE gateways_command SET lease_until = NULL WHERE agent_id = ANY(%s) AND state = 'sent'"
_RELEASE_CANCELLATIONS = """
UPDATE gateways_command SET cancel_lease_until = NULL
WHERE agent_id = ANY(%s) AND is_cancel_requested AND state IN ('queued', 'received', 'sent', 'started')
"""


def choose(agents: Sequence[uuid.UUID]) -> dict[uuid.UUID, uuid.UUID]:
    """Bring the best session of each agent into use. Returns those that changed, with their gateway now."""
    return dict(_fetch(_CHOOSE, [list(agents)]))


def release_commands(agents: Sequence[uuid.UUID]) -> None:
    """What was on its way by a former session is sent again at once instead of after its lease; cancellations too."""
    with connection.cursor() as cursor:
        cursor.execute(_RELEASE, [list(agents)])
        cursor.execute(_RELEASE_CANCELLATIONS, [list(agents)])


_BEGIN_ANEW = """
UPDATE gateways_agent a
SET connected_at = GREATEST(clock_timestamp(), a.connected_at + interval '1 microsecond'),
    changed_at = clock_timestamp()
FROM (SELECT id FROM gateways_agent WHERE id = ANY(%s) AND token <> '' ORDER BY id FOR NO KEY UPDATE) AS misled
WHERE a.id = misled.id
RETURNING a.gateway_id
"""


def begin_anew(agents: Sequence[uuid.UUID]) -> set[uuid.UUID]:
    """As if their sessions in use came into use now. Returns the gateways of these."""
    return {gateway_id for (gateway_id,) in _fetch(_BEGIN_ANEW, [list(agents)])}


@dataclass(frozen=True, slots=True)
class InUse:
    """An agent whose session with a certain gateway is in use, and since when."""

    agent_id: str
    token: str
    since: datetime
    config_revision: str
    changed_at: datetime


# What an agent is told by `config_update`: its health checks and its settings.
_REVISION = """
    CASE WHEN settings = '{}' THEN health_checks_revision ELSE health_checks_revision || ' ' || md5(settings::text) END
"""
_CHANGED = f"""
SELECT agent_id, token, connected_at, {_REVISION}, changed_at FROM gateways_agent
WHERE gateway_id = %s AND session_id IS NOT NULL AND token <> '' AND changed_at > %s
"""  # noqa: S608 - constants of this file


def changed_since(gateway_id: uuid.UUID, moment: datetime) -> list[InUse]:
    """The agents of a gateway whose session, health checks or settings changed after `moment`."""
    return [InUse(*row) for row in _fetch(_CHANGED, [gateway_id, moment])]


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """What an agent shall watch, and what the backend sets on it."""

    revision: str
    health_checks: list[dict[str, Any]]
    settings: dict[str, Any]


_CONFIGS = f"""
SELECT agent_id, {_REVISION}, health_checks, settings FROM gateways_agent WHERE gateway_id = %s AND agent_id = ANY(%s)
"""  # noqa: S608 - constants of this file


def read_configs(*, gateway_id: uuid.UUID, agent_ids: Sequence[str]) -> dict[str, AgentConfig]:
    """By agent id."""
    rows = _fetch(_CONFIGS, [gateway_id, list(agent_ids)])
    return {agent_id: _config(*columns) for agent_id, *columns in rows}


def _config(revision: str, checks: str, settings: str) -> AgentConfig:
    return AgentConfig(revision, json.loads(checks), json.loads(settings))


@dataclass(frozen=True, slots=True)
class Candidate:
    """A proven session that seems to be in use, and the journal that the agent has."""

    id: uuid.UUID
    token: str
    incarnation: str
    first_seq: int


@dataclass(frozen=True, slots=True)
class Begun:
    """What an agent is told when its session comes into use, and the journal's state in the database."""

    agent_id: str
    token: str
    since: datetime
    acked_seq: int
    config: AgentConfig


# What the agent no longer holds was acknowledged once, by a database that is gone: it cannot come again.
_BEGIN = f"""
WITH v AS (
    SELECT * FROM jsonb_to_recordset(%s) AS v(id uuid, token text, incarnation text, first_seq bigint)
), mine AS (
    SELECT a.id, v.incarnation, v.first_seq - 1 AS before FROM gateways_agent a JOIN v ON v.id = a.id
    WHERE a.token = v.token ORDER BY a.id FOR NO KEY UPDATE OF a
)
UPDATE gateways_agent a
SET acked_seq = CASE WHEN a.incarnation = mine.incarnation THEN GREATEST(a.acked_seq, mine.before)
                     ELSE mine.before END,
    incarnation = mine.incarnation
FROM mine WHERE a.id = mine.id
RETURNING a.agent_id, a.token, a.connected_at, a.acked_seq, {_REVISION}, a.health_checks, a.settings
"""  # noqa: S608 - constants of this file


def begin(candidates: Sequence[Candidate]) -> list[Begun]:
    """Set the journals of those whose session is in use indeed."""
    rows = [
        {"id": str(each.id), "token": each.token, "incarnation": each.incarnation, "first_seq": each.first_seq}
        for each in candidates
    ]
    return [
        Begun(agent_id, token, since, acked_seq, _config(*config))
        for agent_id, token, since, acked_seq, *config in _fetch(_BEGIN, [json.dumps(rows)])
    ]


_LOADS = """
UPDATE gateways_agent a SET load = v.load, last_seen_at = %s
FROM (
    SELECT a.id, v.load FROM jsonb_to_recordset(%s) AS v(agent_id text, load jsonb)
    JOIN gateways_agent a ON a.agent_id = v.agent_id AND a.gateway_id = %s
    ORDER BY a.id FOR NO KEY UPDATE OF a
) v
WHERE a.id = v.id
"""


def record_loads(gateway_id: uuid.UUID, loads: Mapping[str, dict[str, Any]], now: datetime) -> None:
    rows = [{"agent_id": agent_id, "load": load} for agent_id, load in loads.items()]
    with connection.cursor() as cursor:
        cursor.execute(_LOADS, [now, json.dumps(rows), gateway_id])


_GATEWAY_LOAD = """
UPDATE gateways_gateway SET last_seen_at = %s, load = jsonb_build_object(
    'agents', (SELECT count(*) FROM gateways_agentsession s WHERE s.gateway_id = gateways_gateway.id),
    'losses', %s::jsonb
)
WHERE id = %s
"""


def record_gateway_load(gateway_id: uuid.UUID, losses: Mapping[str, int], now: datetime) -> None:
    """It was heard of now; how many agents have a session with it, and what it lost."""
    with connection.cursor() as cursor:
        cursor.execute(_GATEWAY_LOAD, [now, json.dumps(losses), gateway_id])


_UPDATE = """
UPDATE gateways_agent a
SET hostname = v.hostname, certificate = v.certificate, certificate_sha256 = v.certificate_sha256, os = v.os,
    labels = v.labels, capabilities = v.capabilities, version = v.version, last_seen_at = %s, removed_at = NULL
FROM jsonb_to_recordset(%s)
    AS v(id uuid, hostname text, certificate text, certificate_sha256 text, os jsonb, labels jsonb, capabilities jsonb,
         version text)
WHERE a.id = v.id
"""


def update_agents(rows: Sequence[dict[str, Any]], now: datetime) -> None:
    """What agents say of themselves. They are locked by the caller."""
    with connection.cursor() as cursor:
        cursor.execute(_UPDATE, [now, json.dumps(rows)])


def _fetch(statement: str, parameters: list[Any]) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        rows: list[Any] = cursor.fetchall()
        return rows
