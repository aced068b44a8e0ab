"""Writing to the trail."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from functools import cache
from typing import Any

from django.db import connection, models, transaction

from apps.audit.actor import Actor
from apps.audit.models import AuditEvent
from opsmap.lib.prepared import prepared_cursor


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
    event = _new_event(action, actor, organization_id, target, details)
    event.save(force_insert=True)
    return event


def create_with_event(
    row: models.Model,
    action: str,
    *,
    actor: Actor,
    organization_id: uuid.UUID | None,
    target: Mapping[str, Any] | None = None,
    details: Mapping[str, Any] | None = None,
) -> bool:
    """Write a new row and the event that tells of it by one statement: neither without the other, in a transaction or
    outside of any, and in a single round trip.

    Returns False if a unique constraint is in the row's way; then neither is written.
    """
    event = _new_event(action, actor, organization_id, target, details)
    with prepared_cursor() as cursor:
        cursor.execute(_creation_sql(type(row)), [*_values(row), *_values(event)])
        return bool(cursor.rowcount == 1)


def _new_event(
    action: str,
    actor: Actor,
    organization_id: uuid.UUID | None,
    target: Mapping[str, Any] | None,
    details: Mapping[str, Any] | None,
) -> AuditEvent:
    return AuditEvent(
        action=action,
        actor=actor.as_json(),
        organization_id=organization_id,
        target=dict(target or {}),
        details=dict(details or {}),
    )


def _values(row: models.Model) -> list[Any]:
    """As the database takes them, in the order of the columns; what is set on saving is set now."""
    return [
        field.get_db_prep_save(field.pre_save(row, add=True), connection) for field in row._meta.local_concrete_fields
    ]


@cache
def _creation_sql(model: type[models.Model]) -> str:
    return f"""
        WITH created AS ({_insert_sql(model)} VALUES ({_parameters(model)}) ON CONFLICT DO NOTHING RETURNING 1)
        {_insert_sql(AuditEvent)} SELECT {_parameters(AuditEvent)} FROM created
    """  # noqa: S608 - names of our own models


def _insert_sql(model: type[models.Model]) -> str:
    columns = ", ".join(connection.ops.quote_name(str(field.column)) for field in model._meta.local_concrete_fields)
    return f"INSERT INTO {connection.ops.quote_name(model._meta.db_table)} ({columns})"


def _parameters(model: type[models.Model]) -> str:
    return ", ".join(f"%s::{field.db_type(connection)}" for field in model._meta.local_concrete_fields)
