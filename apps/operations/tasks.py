"""The safety net of operations."""

from __future__ import annotations

from celery import shared_task

from apps.operations.actions.maintenance import sweep_maintenance
from apps.operations.actions.progress import sweep_operations as sweep


@shared_task(name="operations.sweep_operations")
def sweep_operations() -> None:
    sweep()


@shared_task(name="operations.end_maintenance")
def end_maintenance() -> None:
    sweep_maintenance()
