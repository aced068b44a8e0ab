"""A connection that PostgreSQL has closed, as on a restart, is seen before it is used.

Django's own check (`CONN_HEALTH_CHECKS`) asks PostgreSQL each time. But a connection that waits in the pool has nothing
to say: if there is something to read, it is the end. To look costs no round trip.
"""

from __future__ import annotations

import select
from typing import Any

from django.db.backends.postgresql import base


class DatabaseWrapper(base.DatabaseWrapper):
    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        connection = super().get_new_connection(conn_params)
        while self.pool and _has_something_to_say(connection):
            # The pool throws away what is closed, and connects anew.
            connection.close()
            self.pool.putconn(connection)
            connection = super().get_new_connection(conn_params)
        return connection


def _has_something_to_say(connection: Any) -> bool:
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return bool(poll.poll(0))
