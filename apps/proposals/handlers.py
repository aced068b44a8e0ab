"""News from the apps below, received in their transactions: only noted there, and worked at by the worker.

Discoveries need no note: the worker sees by their ids which ones it has not looked at.
"""

from __future__ import annotations

import uuid
from typing import Any

from apps.maps import signals as map_signals
from apps.proposals.actions.looking import note_changed_map


def connect() -> None:
    """Called once, when Django is ready."""
    map_signals.map_structure_changed.connect(_on_structure_changed)


def _on_structure_changed(sender: type, *, map_id: uuid.UUID, organization_id: uuid.UUID, **kwargs: Any) -> None:
    note_changed_map(map_id, organization_id)
