"""The trail's one table."""

from __future__ import annotations

from django.db import models

from opsmap.lib.uuid7 import uuid7


class AuditEvent(models.Model):
    """One thing that somebody did, tried or caused.

    No foreign keys: an event must neither block nor follow the deletion of what it is about. A trigger refuses
    UPDATE and DELETE (migration 0002).
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    organization_id = models.UUIDField(null=True)
    timestamp = models.DateTimeField(auto_now_add=True)
    action = models.CharField(max_length=80)
    actor = models.JSONField()
    target = models.JSONField(default=dict)
    details = models.JSONField(default=dict)

    class Meta:
        # The explorer pages backwards through one organization's events; the id grows with time.
        indexes = [models.Index(fields=["organization_id", "-id"], name="audit_by_organization")]

    def __str__(self) -> str:
        return f"{self.action} by {self.actor.get('email') or self.actor.get('id')}"
