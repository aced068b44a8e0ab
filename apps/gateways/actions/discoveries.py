"""Asking agents to look around: kept until they have answered, told by their gateway's link."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db import connection, transaction
from django.utils import timezone

from apps.audit.actions import record_event
from apps.audit.actor import Actor
from apps.gateways.dispatch import wake_gateway_on_commit
from apps.gateways.exceptions import InvalidDiscoveryError
from apps.gateways.models import Agent
from opsmap_protocol.enums import DiscoveryKind

REPEAT = timedelta(seconds=60)
"""How long an agent has to answer before it is asked again; also the least between two demands for everything."""

LIFE = timedelta(hours=1)
"""Not asked about any more after that: agents look around by themselves when they start and every hour."""

CLAIM_BATCH = 100

# One question a host at a time: what is asked meanwhile makes it wider, and all who asked get the one answer. A
# question that is on its way is asked anew, as its answer may be of before.
_REQUEST = """
INSERT INTO gateways_discoveryrequest AS r
    (agent_id, organization_id, discovery_id, types, is_full, is_open, requested_at, told_at)
SELECT v.agent_id, v.organization_id, v.discovery_id, %(types)s::jsonb, false, true, %(now)s, NULL
FROM unnest(%(agents)s::uuid[], %(organizations)s::uuid[], %(ids)s::text[])
    AS v(agent_id, organization_id, discovery_id)
ORDER BY v.agent_id
ON CONFLICT (agent_id) DO UPDATE
SET types = CASE WHEN r.is_open AND r.types <> excluded.types THEN '[]' ELSE excluded.types END,
    discovery_id = CASE WHEN r.is_open AND r.told_at IS NULL THEN r.discovery_id ELSE excluded.discovery_id END,
    is_full = r.is_open AND r.is_full, is_open = true, requested_at = excluded.requested_at, told_at = NULL
RETURNING r.agent_id, r.discovery_id
"""

_REQUEST_EVERYTHING = """
INSERT INTO gateways_discoveryrequest AS r
    (agent_id, organization_id, discovery_id, types, is_full, is_open, requested_at, told_at)
VALUES (%(agent)s, %(organization)s, %(id)s, '[]', true, true, %(now)s, NULL)
ON CONFLICT (agent_id) DO UPDATE
SET types = '[]', is_full = true, is_open = true, requested_at = excluded.requested_at,
    discovery_id = CASE WHEN r.is_open THEN r.discovery_id ELSE excluded.discovery_id END
"""

_CLOSE = """
UPDATE gateways_discoveryrequest SET is_open = false
WHERE agent_id = %s AND discovery_id = %s AND is_open AND (%s OR NOT is_full)
"""

_CLAIM = """
WITH due AS (
    SELECT r.agent_id AS id, a.agent_id AS name
    FROM gateways_discoveryrequest r JOIN gateways_agent a ON a.id = r.agent_id
    WHERE r.is_open AND (r.told_at IS NULL OR r.told_at < %(told_before)s) AND r.requested_at > %(requested_after)s
        AND a.gateway_id = %(gateway)s AND a.session_id IS NOT NULL AND a.token <> ''
        AND EXISTS (SELECT FROM gateways_gateway g WHERE g.id = %(gateway)s AND g.session_id = %(session)s)
    ORDER BY r.told_at NULLS FIRST LIMIT %(limit)s
    FOR NO KEY UPDATE OF r SKIP LOCKED
)
UPDATE gateways_discoveryrequest r SET told_at = %(now)s FROM due WHERE r.agent_id = due.id
RETURNING due.name, r.discovery_id, r.types, r.is_full
"""


@dataclass(frozen=True, slots=True)
class DueRequest:
    """What an agent has to be asked now."""

    agent_id: str
    discovery_id: str
    types: list[str]
    is_full: bool


@transaction.atomic
def request_discovery(*, agent: Agent, types: Sequence[str] = (), actor: Actor) -> str:
    """Have a host look around now; no `types` means everything. Returns the id that its answer will have.

    An agent that is away for a moment hears it when it is back. Whoever asks while another question waits to be sent
    shares its answer and its id.

    Raises:
        InvalidDiscoveryError: there is no such type.
    """
    return request_discoveries(agents=[agent], types=types, actor=actor)[agent.pk]


@transaction.atomic
def request_discoveries(*, agents: Iterable[Agent], types: Sequence[str] = (), actor: Actor) -> dict[uuid.UUID, str]:
    """`request_discovery` for many agents of one organization: the ids by agent, and one audit event."""
    wanted = {agent.pk: agent for agent in agents}
    kinds = _checked(types)
    if not wanted:
        return {}
    parameters: dict[str, Any] = {
        "agents": list(wanted),
        "organizations": [agent.organization_id for agent in wanted.values()],
        "ids": [str(uuid.uuid4()) for _ in wanted],
        "types": json.dumps(kinds),
        "now": timezone.now(),
    }
    with connection.cursor() as cursor:
        cursor.execute(_REQUEST, parameters)
        ids: dict[uuid.UUID, str] = dict(cursor.fetchall())
    some = next(iter(wanted.values()))
    target = {"agentId": str(some.pk), "name": some.agent_id} if len(wanted) == 1 else {"agents": len(wanted)}
    record_event(
        "discovery.requested",
        actor=actor,
        organization_id=some.organization_id,
        target=target,
        details={"types": kinds or "all"},
    )
    for gateway_id in {agent.gateway_id for agent in wanted.values()}:
        wake_gateway_on_commit(gateway_id)
    return ids


def request_everything(agent: Agent) -> None:
    """What the agent tells builds on something that we do not have. Asked at most once in `REPEAT`."""
    now = timezone.now()
    values: dict[str, Any] = {
        "agent": agent.pk,
        "organization": agent.organization_id,
        "id": str(uuid.uuid4()),
        "now": now,
    }
    with connection.cursor() as cursor:
        cursor.execute(_REQUEST_EVERYTHING, values)
    wake_gateway_on_commit(agent.gateway_id)


def close_request(agent_pk: uuid.UUID, discovery_id: str, *, is_full: bool) -> None:
    """The agent has answered, unless we asked for everything and this is not."""
    with connection.cursor() as cursor:
        cursor.execute(_CLOSE, [agent_pk, discovery_id, is_full])


def claim_requests(*, gateway_id: uuid.UUID, session_id: uuid.UUID) -> list[DueRequest]:
    """What this gateway's session has to ask its agents now; each comes again after `REPEAT` until it is answered."""
    now = timezone.now()
    parameters: dict[str, Any] = {
        "now": now,
        "told_before": now - REPEAT,
        "requested_after": now - LIFE,
        "gateway": gateway_id,
        "session": session_id,
        "limit": CLAIM_BATCH,
    }
    with connection.cursor() as cursor:
        cursor.execute(_CLAIM, parameters)
        return [DueRequest(name, id_, json.loads(types), is_full) for name, id_, types, is_full in cursor.fetchall()]


def _checked(types: Sequence[str]) -> list[str]:
    known = set(DiscoveryKind)
    if unknown := set(types) - known:
        raise InvalidDiscoveryError(f"There is nothing to discover called {min(unknown)[:40]!r}: see {sorted(known)}.")
    return sorted(set(types))
