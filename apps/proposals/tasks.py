"""Making proposals in the background.

PostgreSQL says what is to be done, so nothing is lost with Redis, and what tells of a discovery never waits for it.
"""

from __future__ import annotations

from celery import shared_task

from apps.proposals.actions.looking import follow_changed_maps, look_at_due_hosts

_MAX_SECONDS = 20.0


@shared_task(name="proposals.sweep_discoveries", ignore_result=True)
def sweep_discoveries() -> None:
    """Bring the proposals up to what hosts told and Maps became, for a while; the next sweep goes on."""
    follow_changed_maps()
    look_at_due_hosts(max_seconds=_MAX_SECONDS)
