"""The safety net of operations."""

from __future__ import annotations

from celery import shared_task

from apps.operations.actions.steps import sweep_operations as sweep


@shared_task(name="operations.sweep_operations")
def sweep_operations() -> None:
    sweep()
