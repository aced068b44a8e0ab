"""The trail is append-only, and it is the database that says so."""

from __future__ import annotations

import pytest
from django.db import DatabaseError, connection, transaction

from apps.audit.actions import record_event
from apps.audit.actor import Actor
from apps.audit.models import AuditEvent
from conftest import Cast


@pytest.fixture
def event(db: None) -> AuditEvent:
    return record_event("map.created", actor=Actor.system("test"), organization_id=None, details={"name": "a"})


def _refused(sql: str, *parameters: object) -> None:
    with pytest.raises(DatabaseError, match="append-only"), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(sql, parameters)


def test_update_is_refused_by_the_database(event: AuditEvent) -> None:
    _refused("UPDATE audit_auditevent SET action = 'nothing' WHERE id = %s", event.pk)
    event.refresh_from_db()
    assert event.action == "map.created"


def test_delete_is_refused_by_the_database(event: AuditEvent) -> None:
    _refused("DELETE FROM audit_auditevent WHERE id = %s", event.pk)
    assert AuditEvent.objects.filter(pk=event.pk).exists()


def test_orm_cannot_change_or_remove_an_event(event: AuditEvent) -> None:
    event.action = "nothing"
    for attempt in (event.save, event.delete, AuditEvent.objects.all().delete):
        with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():
            attempt()
    with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():
        AuditEvent.objects.update(details={})
    event.refresh_from_db()
    assert (event.action, event.details) == ("map.created", {"name": "a"})


def test_events_outlive_what_they_are_about(cast: Cast) -> None:
    organization_id = cast.acme.pk
    before = AuditEvent.objects.filter(organization_id=organization_id).count()

    cast.acme.delete()

    assert before > 0
    assert AuditEvent.objects.filter(organization_id=organization_id).count() == before


def test_event_reads_as_who_did_what(event: AuditEvent) -> None:
    assert str(event) == "map.created by test"
    event.actor = Actor("user", "1", "olivia@acme.example").as_json()
    assert str(event) == "map.created by olivia@acme.example"
