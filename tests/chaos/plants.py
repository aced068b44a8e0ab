"""Faults that are built into the product on purpose: a checker that does not find them would be worth nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.chaos.hooks import replace


@dataclass(frozen=True, slots=True)
class Plant:
    role: str
    build_in: Callable[[], None]


def _forget_commands() -> None:
    """The agent's journal does not recognise a command that it has seen."""
    from opsmap_agent.journal import tables as journal_tables

    replace("opsmap_agent.journal.tables:_known", lambda _: lambda _db, _request_id: None)
    insert = journal_tables._INSERT_COMMAND
    assert insert.startswith("INSERT INTO"), "the plant no longer fits the journal"
    journal_tables._INSERT_COMMAND = insert.replace("INSERT INTO", "INSERT OR REPLACE INTO", 1)


def _acknowledge_before_commit() -> None:
    """The backend acknowledges events, and then their transaction fails."""
    from django.db import transaction

    def make(ingest: Callable[..., Any]) -> Callable[..., Any]:
        def acknowledging(**arguments: Any) -> Any:
            with transaction.atomic():
                answers = ingest(**arguments)
                transaction.set_rollback(True)
            return answers

        return acknowledging

    replace("apps.gateways.actions.reports:ingest_reports", make)


PLANTS = {
    "no-dedupe": Plant("agent", _forget_commands),
    "ack-before-commit": Plant("link", _acknowledge_before_commit),
}
