"""Telling browsers that a Map has changed. The message is a hint with nothing in it: each socket pulls what is new."""

from __future__ import annotations

import uuid
from functools import partial

from asgiref.sync import async_to_sync
from channels.layers import get_channel_layer
from django.db import transaction


def map_group(map_id: uuid.UUID) -> str:
    return f"map.{map_id.hex}"


def organization_group(organization_id: uuid.UUID) -> str:
    """Those who watch the list of Maps."""
    return f"maps.{organization_id.hex}"


def notify_on_commit(map_id: uuid.UUID, organization_id: uuid.UUID) -> None:
    """One hint per Map and transaction, however many changes it makes."""
    connection = transaction.get_connection()
    hint = partial(_notify, map_id, organization_id)
    is_registered = any(
        isinstance(entry[1], partial) and entry[1].func is _notify and entry[1].args == hint.args
        for entry in connection.run_on_commit
    )
    if not is_registered:
        transaction.on_commit(hint)


def _notify(map_id: uuid.UUID, organization_id: uuid.UUID) -> None:
    async_to_sync(_send)(map_id, organization_id)


async def _send(map_id: uuid.UUID, organization_id: uuid.UUID) -> None:
    layer = get_channel_layer()
    assert layer is not None
    await layer.group_send(map_group(map_id), {"type": "map.changed"})
    await layer.group_send(organization_group(organization_id), {"type": "map.changed"})
