"""Recording an event: what a row holds, and that it never stands apart from what it tells of."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.sessions.models import Session
from django.db import IntegrityError, connection, transaction
from django.utils import timezone

from apps.audit.actions import create_with_event, record_event
from apps.audit.actor import Actor
from apps.audit.models import AuditEvent
from conftest import Cast


def test_record_event_keeps_who_what_where_and_details(cast: Cast) -> None:
    event = record_event(
        "component.started",
        actor=Actor.person(cast.viewer, ip="10.0.0.7"),
        organization_id=cast.acme.pk,
        target={"type": "component", "componentId": "c-1"},
        details={"reason": "morning"},
    )

    event.refresh_from_db()
    assert event.action == "component.started"
    assert event.actor == {
        "type": "user",
        "id": str(cast.viewer.pk),
        "email": "viewer@acme.example",
        "ip": "10.0.0.7",
    }
    assert event.organization_id == cast.acme.pk
    assert event.target == {"type": "component", "componentId": "c-1"}
    assert event.details == {"reason": "morning"}


@pytest.mark.django_db
def test_record_event_without_target_and_details_has_empty_ones() -> None:
    event = record_event("system.started", actor=Actor.system("beat"), organization_id=None)

    event.refresh_from_db()
    assert (event.target, event.details) == ({}, {})
    assert event.actor == {"type": "system", "id": "beat", "email": "", "ip": ""}


@pytest.mark.django_db
def test_events_sort_by_id_as_they_were_recorded() -> None:
    with transaction.atomic():
        made = [record_event(f"step.{n}", actor=Actor.agent("srv-1"), organization_id=None) for n in range(3)]

    by_time = sorted(made, key=lambda event: event.timestamp)
    assert [event.pk.int >> 80 for event in by_time] == sorted(event.pk.int >> 80 for event in made)


@pytest.mark.django_db(transaction=True)
def test_record_event_outside_a_transaction_is_refused() -> None:
    with pytest.raises(RuntimeError, match="transaction"):
        record_event("map.created", actor=Actor.system("test"), organization_id=None)

    assert not AuditEvent.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_event_goes_with_the_transaction_of_its_action() -> None:
    with transaction.atomic():
        record_event("map.created", actor=Actor.system("test"), organization_id=None)
        transaction.set_rollback(True)

    assert not AuditEvent.objects.exists()


def _create(key: str, data: str = "", **fields: Any) -> bool:
    row = Session(session_key=key, session_data=data, expire_date=timezone.now())
    return create_with_event(row, "session.created", actor=Actor.system("test"), organization_id=None, **fields)


@pytest.mark.django_db(transaction=True)
def test_a_row_and_its_event_are_written_together_without_a_transaction_around() -> None:
    assert _create("a", 'He said "%s"; --', details={"b": [1, None, "\u00fc"]})

    row, event = Session.objects.get(), AuditEvent.objects.get()
    assert row.session_data == 'He said "%s"; --'
    assert (event.action, event.organization_id, event.target) == ("session.created", None, {})
    assert event.details == {"b": [1, None, "\u00fc"]}
    assert abs((event.timestamp - row.expire_date).total_seconds()) < 5


@pytest.mark.django_db
def test_a_row_that_is_there_already_is_written_no_more_than_its_event() -> None:
    assert _create("a", "first")
    assert not _create("a", "second")

    assert [row.session_data for row in Session.objects.all()] == ["first"]
    assert AuditEvent.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_no_row_without_its_event() -> None:
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE audit_auditevent ADD CONSTRAINT no_more_events CHECK (false) NOT VALID")
    try:
        with pytest.raises(IntegrityError):
            _create("a")
        assert not Session.objects.exists()
    finally:
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE audit_auditevent DROP CONSTRAINT no_more_events")


@pytest.mark.django_db(transaction=True)
def test_a_row_and_its_event_go_with_the_transaction_around_them() -> None:
    with transaction.atomic():
        assert _create("a")
        transaction.set_rollback(True)

    assert not Session.objects.exists()
    assert not AuditEvent.objects.exists()
