"""Telling agents that a command shall end, until it has ended."""

from __future__ import annotations

import uuid
from typing import Any

from django.db import connection, transaction
from django.utils import timezone

from apps.gateways.actions.claims import CLAIM_BATCH, LEASE
from apps.gateways.actions.commands import change_state
from apps.gateways.enums import CommandState

# The states as the partial index has them.
_CLAIM_CANCELLATIONS = """
WITH due AS (
    SELECT c.id, a.agent_id, c.state FROM gateways_command c JOIN gateways_agent a ON a.id = c.agent_id
    WHERE c.is_cancel_requested AND c.state IN ('queued', 'received', 'sent', 'started')
        AND (c.cancel_lease_until IS NULL OR c.cancel_lease_until < %(now)s)
        AND a.gateway_id = %(gateway)s AND a.session_id IS NOT NULL AND a.token <> ''
        AND EXISTS (SELECT FROM gateways_gateway g WHERE g.id = %(gateway)s AND g.session_id = %(session)s)
    ORDER BY c.cancel_lease_until NULLS FIRST LIMIT %(limit)s
    FOR NO KEY UPDATE OF c SKIP LOCKED
)
UPDATE gateways_command c SET cancel_lease_until = %(lease)s FROM due WHERE c.id = due.id
RETURNING c.id, due.agent_id, due.state
"""


def claim_cancellations(*, gateway_id: uuid.UUID, session_id: uuid.UUID) -> list[tuple[str, str]]:
    """Agent ids and request ids of the cancellations that this session has to pass on now.

    Each comes again after its lease until its command has ended, and at once by another session: whoever carried it may
    have died. Repeating one is harmless. What is back in the queue is not on any host, and ends here.
    """
    now = timezone.now()
    parameters: dict[str, Any] = {
        "now": now,
        "lease": now + LEASE,
        "gateway": gateway_id,
        "session": session_id,
        "limit": CLAIM_BATCH,
    }
    with connection.cursor() as cursor:
        cursor.execute(_CLAIM_CANCELLATIONS, parameters)
        found: list[tuple[uuid.UUID, str, str]] = cursor.fetchall()
    for pk, _, state in found:
        if state == CommandState.QUEUED:
            with transaction.atomic():
                change_state(pk, CommandState.CANCELLED, from_states={CommandState.QUEUED}, finished_at=now)
    return [(agent_id, str(pk)) for pk, agent_id, state in found if state != CommandState.QUEUED]
