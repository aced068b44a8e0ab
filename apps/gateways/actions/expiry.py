"""Certificates that end soon and that none has followed: told once each, before hosts drop out one after another.

Gateways and agents renew at two thirds of a certificate's life. One that has not when a sixth is left has a reason that
somebody should look at: it is away, it is refused, or its clock is wrong.
"""

from __future__ import annotations

import logging
import uuid
from datetime import datetime, timedelta
from typing import Any

from django.db import connection, transaction
from django.utils import timezone

from apps.audit.actions import record_event
from apps.audit.actor import Actor

logger = logging.getLogger(__name__)

AT_MOST_BEFORE = timedelta(days=30)
BATCH = 500
_LOGGED = 20

# Of each name the certificate that lasts longest decides; older ones may end. What does not count any more is not told.
_TELL = """
WITH newest AS (
    SELECT DISTINCT ON (organization_id, role, name) id, organization_id, role, name, not_before, not_after,
        expiry_told_at
    FROM gateways_certificate WHERE revoked_at IS NULL
    ORDER BY organization_id, role, name, not_after DESC
), ending AS (
    SELECT n.id FROM newest n
    WHERE n.expiry_told_at IS NULL
        AND n.not_after < %(now)s + LEAST((n.not_after - n.not_before) / 6, %(at_most)s::interval)
        AND CASE n.role
            WHEN 'agent' THEN EXISTS (
                SELECT FROM gateways_agent a WHERE a.organization_id = n.organization_id AND a.agent_id = n.name
                    AND a.revoked_at IS NULL AND a.removed_at IS NULL)
            ELSE EXISTS (
                SELECT FROM gateways_gateway g WHERE g.organization_id = n.organization_id AND g.gateway_id = n.name
                    AND g.revoked_at IS NULL AND g.removed_at IS NULL)
        END
    ORDER BY n.not_after LIMIT %(limit)s
)
UPDATE gateways_certificate c SET expiry_told_at = %(now)s FROM ending
WHERE c.id = ending.id AND c.expiry_told_at IS NULL
RETURNING c.organization_id, c.role, c.name, c.fingerprint, c.not_after
"""


def tell_expiring_certificates(*, now: datetime | None = None) -> int:
    """Log and audit the certificates that end soon, each once; how many there were."""
    moment = now or timezone.now()
    told = 0
    while count := _tell_some(moment, is_first=told == 0):
        told += count
    if told > _LOGGED:
        logger.warning("%d certificates end soon in all; see certificateEndsBefore of the API", told)
    return told


@transaction.atomic
def _tell_some(moment: datetime, *, is_first: bool) -> int:
    parameters: dict[str, Any] = {"now": moment, "at_most": AT_MOST_BEFORE, "limit": BATCH}
    with connection.cursor() as cursor:
        cursor.execute(_TELL, parameters)
        ending: list[tuple[uuid.UUID, str, str, str, datetime]] = cursor.fetchall()
    for index, (organization_id, role, name, fingerprint, not_after) in enumerate(ending):
        record_event(
            "certificate.expiring",
            actor=Actor.system("certificates"),
            organization_id=organization_id,
            target={"type": role, f"{role}Id": name},
            details={"certificateSha256": fingerprint, "endsAt": not_after.isoformat()},
        )
        if is_first and index < _LOGGED:
            logger.warning("the certificate of %s %s ends at %s and was not renewed", role, name, not_after)
    return len(ending)
