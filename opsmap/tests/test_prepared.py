"""Rows by prepared statements are the same as by querysets."""

from __future__ import annotations

import uuid

import pytest
from django.db import connection

from apps.orgs.models import Organization
from opsmap.lib.prepared import Lookup, prepared_cursor

pytestmark = pytest.mark.django_db

BY_ID = Lookup(Organization, where="id = %s::uuid")
BRIEFLY = Lookup(Organization, columns=("id", "name"), where="id = %s::uuid", extra={"louder": "upper(name)"})


def make() -> Organization:
    return Organization.objects.create(name="Acme", slug="acme", settings={"deep": [1, None, {"a": "\u00fc"}]})


def test_a_row_is_whole() -> None:
    made = make()
    found = BY_ID.first(made.pk)
    assert found is not None
    loaded = Organization.objects.get()
    assert {name: value for name, value in vars(found).items() if name != "_state"} == {
        name: value for name, value in vars(loaded).items() if name != "_state"
    }
    assert not found._state.adding


def test_columns_that_were_left_out_are_read_when_asked_for() -> None:
    found = BRIEFLY.first(make().pk)
    assert found is not None
    assert found.get_deferred_fields() == {"slug", "settings", "plan", "created_at"}
    assert (found.louder, found.slug) == ("ACME", "acme")  # type: ignore[attr-defined]


def test_nothing_found_is_none() -> None:
    assert BY_ID.first(uuid.uuid4()) is None


def test_what_looks_like_sql_is_a_value() -> None:
    by_name = Lookup(Organization, where="name = %s::text")
    made = Organization.objects.create(name="' OR true --", slug="a")
    make()
    assert by_name.first("' OR true --") == made
    assert by_name.first("' OR 1=1 --") is None


def test_a_statement_is_planned_once() -> None:
    for _ in range(3):
        BY_ID.first(uuid.uuid4())
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_prepared_statements WHERE statement = %s", [BY_ID._sql().replace("%s", "$1")]
        )
        assert cursor.fetchone() == (1,)
    with prepared_cursor() as cursor:
        cursor.execute("SELECT %s::int + 1", [1])
        assert cursor.fetchone() == (2,)
