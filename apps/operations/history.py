"""The past of a component, page by page: each state with its cause, and how long it lasted."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.utils import timezone

from apps.maps.models import Component
from apps.operations.models import StateChange

MAX_PAGE = 500


def describe_history(
    component: Component, *, limit: int, before: int | None = None, now: datetime | None = None
) -> dict[str, Any]:
    """Newest first. `next` is the `before` of the page that follows, null on the last one. At most two queries.

    `durationMs` is how long the component was in that state: up to the change after it, of the newest up to now.
    """
    changes = StateChange.objects.filter(component=component).order_by("-pk")
    later = changes.filter(pk__gte=before).last() if before is not None else None
    page = list((changes.filter(pk__lt=before) if before is not None else changes)[: limit + 1])
    until = later.at if later else now or timezone.now()
    entries = []
    for change in page[:limit]:
        entries.append(_describe(change, until))
        until = change.at
    return {"results": entries, "next": page[limit - 1].pk if len(page) > limit else None}


def _describe(change: StateChange, until: datetime) -> dict[str, Any]:
    return {
        "id": change.pk,
        "previous": change.previous,
        "state": change.state,
        "cause": change.cause,
        "reason": change.reason,
        "at": change.at,
        "durationMs": max(0, (until - change.at) // timedelta(milliseconds=1)),
    }
