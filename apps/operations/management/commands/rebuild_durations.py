"""`manage.py rebuild_durations`: what predictions rest on, made anew from the steps of all operations."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand

from apps.operations.actions.durations import rebuild_durations


class Command(BaseCommand):
    help = "Make the durations that predictions rest on anew, from the steps of all operations."

    def handle(self, *args: Any, **options: Any) -> None:
        count = rebuild_durations()
        self.stdout.write(f"{count} actions of components have a history.")
