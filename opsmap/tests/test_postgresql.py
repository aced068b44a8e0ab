"""The pool after PostgreSQL has closed its connections, as on a restart."""

from __future__ import annotations

import pytest
from django.db import connection

pytestmark = pytest.mark.django_db(transaction=True)


def _backend_pid() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        return int(cursor.fetchone()[0])


def _end_all_others() -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


def test_a_connection_that_died_in_the_pool_is_not_used() -> None:
    in_use, idle = connection.pool.getconn(), connection.pool.getconn()
    pids = {in_use.info.backend_pid, idle.info.backend_pid}
    connection.ensure_connection()
    connection.pool.putconn(in_use)
    connection.pool.putconn(idle)
    _end_all_others()
    connection.close()

    found = set()
    for _ in range(4):
        found.add(_backend_pid())
        connection.close()
    assert not found & pids


def test_living_connections_are_used_again() -> None:
    seen = set()
    for _ in range(connection.pool.max_size + 1):
        seen.add(_backend_pid())
        connection.close()
    assert len(seen) <= connection.pool.max_size
