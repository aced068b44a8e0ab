"""The statements that store reports: one for each kind, for a whole batch, forward only.

Rows come as one JSON parameter, so the texts are constant. Whether a state may be entered is said in the WHERE, by the
predecessors that the rows or parameters name: of two that compete, one changes nothing.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, TypedDict

from django.db import connection

from apps.gateways.enums import PREDECESSORS, CommandState

Row = dict[str, Any]
Ended = list[tuple[uuid.UUID, uuid.UUID | None]]
"""Ids and subjects of commands that have ended by a statement."""


MAX_CLOCK_OFFSET = timedelta(seconds=60)
"""An agent whose clock is slower by more than that takes no command, as it would seem to come from the future."""


class JournalRow(TypedDict):
    id: str
    token: str
    incarnation: str
    before: int
    seq: int


_ADVANCE_JOURNALS = """
WITH v AS (
    SELECT * FROM jsonb_to_recordset(%s) AS v(id uuid, token text, incarnation text, before bigint, seq bigint)
), mine AS (
    SELECT a.id, v.seq FROM gateways_agent a JOIN v ON v.id = a.id
    WHERE a.token = v.token AND a.incarnation = v.incarnation AND a.acked_seq = v.before
    ORDER BY a.id FOR NO KEY UPDATE OF a
)
UPDATE gateways_agent a SET acked_seq = mine.seq, last_seen_at = now() FROM mine WHERE a.id = mine.id
RETURNING a.id
"""


def advance_journals(rows: Sequence[JournalRow]) -> set[uuid.UUID]:
    """The events of these agents are stored up to `seq`, if they were up to `before` and the session is in use.

    Returns the agents of whom that is so; they are locked from here on.
    """
    return {row[0] for row in _execute(_ADVANCE_JOURNALS, rows)} if rows else set()


_RECEIVED = """
UPDATE gateways_command c SET state = 'received', received_at = %s, heard_at = now(), lease_until = NULL
FROM jsonb_to_recordset(%s) AS v(id uuid, agent uuid)
WHERE c.id = v.id AND c.agent_id = v.agent AND c.state = ANY(%s)
RETURNING c.id
"""


def mark_received(rows: Sequence[Row], now: datetime) -> None:
    _execute(_RECEIVED, now, rows, _before(CommandState.RECEIVED))


_STARTED = """
UPDATE gateways_command c
SET state = 'started', job_id = v.job_id, pid = v.pid, started_at = v.started_at, next_poll_at = v.next_poll_at,
    heard_at = now(), lease_until = NULL,
    -- If it was given up before, this takes it back.
    finished_at = NULL, detail = CASE WHEN c.finished_at IS NULL THEN c.detail ELSE '' END
FROM jsonb_to_recordset(%s)
    AS v(id uuid, agent uuid, job_id text, pid int, started_at timestamptz, next_poll_at timestamptz)
WHERE c.id = v.id AND c.agent_id = v.agent AND c.state = ANY(%s)
RETURNING c.id
"""


def mark_started(rows: Sequence[Row]) -> None:
    _execute(_STARTED, rows, _before(CommandState.STARTED))


_RUNNING = """
UPDATE gateways_command c
SET check_result = v.check_result, exit_code = v.exit_code, duration_ms = v.duration_ms, heard_at = now()
FROM jsonb_to_recordset(%s) AS v(id uuid, agent uuid, check_result jsonb, exit_code int, duration_ms int)
WHERE c.id = v.id AND c.agent_id = v.agent AND c.state = 'started'
RETURNING c.id
"""


def note_running(rows: Sequence[Row]) -> None:
    _execute(_RUNNING, rows)


_ENDED = """
UPDATE gateways_command c
SET state = v.state, detail = COALESCE(v.detail, ''), finished_at = %s, next_poll_at = NULL, lease_until = NULL,
    result = COALESCE(v.result, c.result),
    check_result = COALESCE(v.check_result, c.check_result),
    exit_code = COALESCE(v.exit_code, c.exit_code),
    duration_ms = COALESCE(v.duration_ms, c.duration_ms),
    log_tail = COALESCE(v.log_tail, c.log_tail)
FROM jsonb_to_recordset(%s)
    AS v(id uuid, agent uuid, state text, allowed text[], detail text, result jsonb, check_result jsonb,
         exit_code int, duration_ms int, log_tail text)
WHERE c.id = v.id AND c.agent_id = v.agent AND c.state = ANY(v.allowed)
RETURNING c.id, c.subject
"""


def mark_ended(rows: Sequence[Row], now: datetime) -> Ended:
    return _execute(_ENDED, now, rows)


_NEVER_SEEN = """
UPDATE gateways_command c
SET state = 'expired', detail = 'It never reached the agent.', finished_at = %s, next_poll_at = NULL, lease_until = NULL
FROM jsonb_to_recordset(%s) AS v(id uuid, agent uuid, since timestamptz)
WHERE c.id = v.id AND c.agent_id = v.agent AND c.state = ANY(%s)
    AND c.sent_at > v.since + %s AND c.not_after < %s
RETURNING c.id, c.subject
"""


def mark_never_seen(rows: Sequence[Row], now: datetime) -> Ended:
    """Not seen by a journal that was there when the command was first sent, and too late to come: it never ran.

    The host measures both by its own clock. Until there is no doubt the question comes again.
    """
    return _execute(_NEVER_SEEN, now, rows, _before(CommandState.EXPIRED), MAX_CLOCK_OFFSET, now - MAX_CLOCK_OFFSET)


_EXITS = """
UPDATE gateways_command c SET exit_code = v.exit_code, process_exited_at = %s
FROM jsonb_to_recordset(%s) AS v(id uuid, agent uuid, exit_code int)
WHERE c.id = v.id AND c.agent_id = v.agent
RETURNING c.id
"""


def note_exits(rows: Sequence[Row], now: datetime) -> None:
    _execute(_EXITS, now, rows)


_OUTPUTS = """
INSERT INTO gateways_commandoutput (id, organization_id, command_id, stream, "offset", text)
SELECT v.piece, c.organization_id, c.id, v.stream, v.position, v.text
FROM jsonb_to_recordset(%s) AS v(id uuid, agent uuid, piece uuid, stream text, position int, text text)
JOIN gateways_command c ON c.id = v.id AND c.agent_id = v.agent
ON CONFLICT (command_id, stream, "offset") DO NOTHING
RETURNING id
"""
_OUTPUT_TOTALS = """
UPDATE gateways_command c SET output = c.output || v.output
FROM jsonb_to_recordset(%s) AS v(id uuid, agent uuid, output jsonb)
WHERE c.id = v.id AND c.agent_id = v.agent
RETURNING c.id
"""


def add_outputs(pieces: Sequence[Row], totals: Sequence[Row]) -> None:
    _execute(_OUTPUTS, pieces)
    _execute(_OUTPUT_TOTALS, totals)


def _before(state: CommandState) -> list[str]:
    return sorted(before.value for before in PREDECESSORS[state])


def _execute(statement: str, *parameters: Any) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(statement, [_as_parameter(each) for each in parameters])
        rows: list[Any] = cursor.fetchall()
        return rows


def _as_parameter(value: Any) -> Any:
    is_rows = isinstance(value, Iterable) and not isinstance(value, str) and any(isinstance(row, dict) for row in value)
    return json.dumps(value, ensure_ascii=False) if is_rows else value
