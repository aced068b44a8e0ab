"""The few statements on the path of every command: made once, and planned by PostgreSQL once in each connection.

To put such a statement together from a queryset, and to plan it, takes longer than to run it. Everything else is better
written as a queryset.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, TypeVar

import psycopg
from django.db import connection, models
from django.db.backends.utils import CursorWrapper

M = TypeVar("M", bound=models.Model)


class _PreparedCursor(psycopg.Cursor[Any]):
    """Django's own cursors put the values into the text of a statement, so that no two are the same."""

    def execute(self, query: Any, params: Any = None, **options: Any) -> _PreparedCursor:
        return super().execute(query, params, **{**options, "prepare": True})


def prepared_cursor() -> CursorWrapper:
    """A cursor of Django's connection whose statements are prepared. Their parameters need types: `%s::uuid`."""
    wrapper: Any = connection  # what wraps cursors is no part of its types
    wrapper.ensure_connection()
    with wrapper.wrap_database_errors:
        wrapped: CursorWrapper = wrapper._prepare_cursor(_PreparedCursor(wrapper.connection))
    return wrapped


class Lookup(Generic[M]):
    """Rows of a model by one condition in SQL.

    Args:
        columns: the attributes that are read of them, all by default; the rest is read when it is asked for.
        where: with `%s` for parameters.
        extra: further attributes of the instances, by SQL expressions; JSON is understood.
    """

    def __init__(
        self, model: type[M], *, where: str, columns: Sequence[str] = (), extra: dict[str, str] | None = None
    ) -> None:
        self._model, self._where, self._columns, self._extra = model, where, columns, extra or {}
        self._statement: str | None = None

    def first(self, *parameters: Any) -> M | None:
        """The first row found, in no particular order."""
        with prepared_cursor() as cursor:
            cursor.execute(self._sql(), parameters)
            row = cursor.fetchone()
        return None if row is None else self._instance(row)

    def _sql(self) -> str:
        if self._statement is None:
            table, quote = self._model._meta.db_table, connection.ops.quote_name
            columns = [f"{quote(table)}.{quote(str(field.column))}" for field in self._fields()]
            shown = ", ".join([*columns, *self._extra.values()])
            self._statement = f"SELECT {shown} FROM {quote(table)} WHERE {self._where} LIMIT 1"  # noqa: S608 - ours
        return self._statement

    def _fields(self) -> list[models.Field[Any, Any]]:
        fields = self._model._meta.concrete_fields
        return [field for field in fields if not self._columns or field.attname in self._columns]

    def _instance(self, row: Sequence[Any]) -> M:
        fields = self._fields()
        values = [
            field.from_db_value(value, None, connection) if hasattr(field, "from_db_value") else value
            for field, value in zip(fields, row, strict=False)
        ]
        instance = self._model.from_db(connection.alias, [field.attname for field in fields], values)
        for name, value in zip(self._extra, row[len(fields) :], strict=True):
            setattr(instance, name, value)
        return instance
