"""Writing to the trail."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from django.db import transaction

from apps.audit.actor import Actor
from apps.audit.models import AuditEvent


def record_event(
    action: str,
    *,
    actor: Actor,
    organization_id: uuid.UUID | None,
    target: Mapping[str, Any] | None = None,
    details: Mapping[str, Any] | None = None,
) -> AuditEvent:
    """Write one event in the transaction of the thing itself: no audit, no action.

    Raises:
        RuntimeError: called outside a transaction, where the event could survive what it tells of, or the reverse.
    """
    if not transaction.get_connection().in_atomic_block:
        raise RuntimeError("an audit event belongs into the transaction of its action")
    return AuditEvent.objects.create(
        action=action,
        actor=actor.as_json(),
        organization_id=organization_id,
        target=dict(target or {}),
        details=dict(details or {}),
    )
