"""The Celery application: safety nets and background work, never on the path of a command."""

from __future__ import annotations

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "opsmap.settings")

app = Celery("opsmap")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
