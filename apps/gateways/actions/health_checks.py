"""What agents watch: their health checks, which the apps above decide on."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from django.db import connection, transaction

from apps.gateways.dispatch import wake_gateway_on_commit
from apps.gateways.models import Agent

# Locked in the order of their ids: two that do this at once cannot wait for each other.
_SET = """
UPDATE gateways_agent a
SET health_checks = v.checks, health_checks_revision = v.revision, changed_at = clock_timestamp()
FROM (
    SELECT v.* FROM jsonb_to_recordset(%s) AS v(id uuid, revision text, checks jsonb)
    JOIN gateways_agent mine ON mine.id = v.id AND mine.health_checks_revision <> v.revision
    ORDER BY mine.id FOR NO KEY UPDATE OF mine
) v
WHERE a.id = v.id
RETURNING a.gateway_id
"""
_WATCHERS = """
SELECT id FROM gateways_agent
WHERE organization_id = %s AND EXISTS (
    SELECT FROM jsonb_array_elements(health_checks) AS given WHERE given ->> 'check_id' = ANY(%s)
)
"""


@transaction.atomic
def set_checks_of_agents(checks: Mapping[uuid.UUID, Sequence[dict[str, Any]]]) -> int:
    """What these agents should watch from now on; told to them on commit. Returns for how many that is new."""
    rows = [{"id": str(pk), "revision": _revision(given), "checks": given} for pk, given in checks.items()]
    with connection.cursor() as cursor:
        cursor.execute(_SET, [json.dumps(rows)])
        gateways: list[uuid.UUID | None] = [gateway_id for (gateway_id,) in cursor.fetchall()]
    for gateway_id in {each for each in gateways if each is not None}:
        wake_gateway_on_commit(gateway_id)
    return len(gateways)


def set_health_checks(*, agent: Agent, checks: list[dict[str, Any]]) -> bool:
    """What one agent should watch from now on. False if it does so already."""
    return set_checks_of_agents({agent.pk: checks}) > 0


def find_watchers(organization_id: uuid.UUID, check_ids: Collection[str]) -> set[uuid.UUID]:
    """The agents that have been given one of these checks."""
    if not check_ids:
        return set()
    with connection.cursor() as cursor:
        cursor.execute(_WATCHERS, [organization_id, list(check_ids)])
        return {pk for (pk,) in cursor.fetchall()}


def _revision(checks: Sequence[dict[str, Any]]) -> str:
    return hashlib.sha256(json.dumps(checks, sort_keys=True).encode()).hexdigest()
