"""What a gateway's connection gets to send: commands under a lease, questions.

The statements have constant texts, and one goes through for a whole batch: this is the path of every command.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import connection, transaction
from django.utils import timezone

from apps.gateways.enums import CommandState
from apps.gateways.models import Command

LEASE = timedelta(seconds=10)
CLAIM_BATCH = 100
PROBE_BATCH = 500
PROBE_PAUSES = (
    (timedelta(seconds=30), timedelta(seconds=5)),
    (timedelta(minutes=5), timedelta(seconds=30)),
    (timedelta(hours=1), timedelta(minutes=5)),
    (timedelta(hours=24), timedelta(hours=1)),
)
"""How long between two questions about a command of unknown fate, by how long its fate is unknown. Then never."""


@dataclass(frozen=True, slots=True)
class ClaimedCommand:
    """A command to send now, and by which session: its token, and since when it is the one in use.

    `fence` counts how often it was claimed.
    """

    id: uuid.UUID
    agent_id: str
    token: str
    in_use_since: datetime
    spec: dict[str, Any]
    execution: dict[str, Any]
    timeout_ms: int
    created_at: datetime
    not_after: datetime
    subject: uuid.UUID | None
    epoch: int
    broadcast_id: uuid.UUID | None
    fence: int

    @property
    def is_first(self) -> bool:
        """No gateway has had it before."""
        return self.fence == 1

    def as_message(self) -> dict[str, Any]:
        """The `command` message; the same each time, so that the agent can know it again."""
        message = {
            "type": "command",
            "request_id": str(self.id),
            "target_agent": self.agent_id,
            "command": self.spec,
            "execution_mode": self.execution,
            "timeout_ms": self.timeout_ms,
            "issued_at": self.created_at.isoformat(),
            "not_after": self.not_after.isoformat(),
            "epoch": self.epoch,
        }
        return message | {"subject": str(self.subject)} if self.subject else message


# The session that claims has to be the one that counts, the gateway's and the agent's: one that was replaced gets
# nothing. `state IN (…)` stands there as the partial index has it.
_DUE = """
    c.state IN ('queued', 'sent')
    AND (c.lease_until IS NULL OR c.lease_until < %(now)s)
    AND c.not_after > %(now)s
    AND NOT (c.is_cancel_requested AND c.state = 'queued')
    AND a.gateway_id = %(gateway)s AND a.session_id IS NOT NULL AND a.token <> '' AND a.quarantined_at IS NULL
    AND EXISTS (SELECT FROM gateways_gateway g WHERE g.id = %(gateway)s AND g.session_id = %(session)s)
"""
_TAKE = """
UPDATE gateways_command c
SET state = 'sent', sent_at = COALESCE(c.sent_at, %(now)s), lease_until = %(lease)s, fence = c.fence + 1,
    -- If it shall end, the agent has to hear so after it has the command: told before, that meant nothing to it.
    cancel_lease_until = NULL
FROM due, gateways_agent a
WHERE c.id = due.id AND a.id = c.agent_id
RETURNING c.id, a.agent_id, a.token, a.connected_at, c.spec, c.execution, c.timeout_ms, c.created_at, c.not_after,
    c.subject, c.epoch, c.broadcast_id, c.fence
"""
_CLAIM = f"""
WITH due AS (
    SELECT c.id FROM gateways_command c JOIN gateways_agent a ON a.id = c.agent_id
    WHERE {_DUE} AND c.agent_id <> ALL(%(scarce)s::uuid[])
    ORDER BY c.id LIMIT %(limit)s
    FOR NO KEY UPDATE OF c SKIP LOCKED
) {_TAKE}"""  # noqa: S608 - constants of this file
_CLAIM_BY_NUMBER = f"""
WITH due AS (
    SELECT one.id FROM unnest(%(scarce)s::uuid[], %(credits)s::int[]) AS s(agent_id, credits)
    CROSS JOIN LATERAL (
        SELECT c.id FROM gateways_command c JOIN gateways_agent a ON a.id = c.agent_id
        WHERE c.agent_id = s.agent_id AND {_DUE}
        ORDER BY c.id LIMIT s.credits
        FOR NO KEY UPDATE OF c SKIP LOCKED
    ) AS one
) {_TAKE}"""  # noqa: S608 - constants of this file


def claim_commands(
    *, gateway_id: uuid.UUID, session_id: uuid.UUID, scarce: Mapping[uuid.UUID, int] | None = None
) -> list[ClaimedCommand]:
    """The next commands for this gateway's agents, oldest first, now leased to this session.

    `scarce` says how many each agent may get that may not get a whole claim. A command whose lease ended without an
    answer is claimed again under the same id: the agent knows which it has seen.
    """
    now = timezone.now()
    parameters: dict[str, Any] = {
        "now": now,
        "lease": now + LEASE,
        "gateway": gateway_id,
        "session": session_id,
        "scarce": list(scarce or ()),
        "limit": CLAIM_BATCH,
    }
    with connection.cursor() as cursor:
        cursor.execute(_CLAIM, parameters)
        rows = cursor.fetchall()
        some = {agent: min(count, CLAIM_BATCH) for agent, count in (scarce or {}).items() if count > 0}
        if some:
            cursor.execute(_CLAIM_BY_NUMBER, parameters | {"scarce": list(some), "credits": list(some.values())})
            rows += cursor.fetchall()
    rows.sort()
    return [_claimed(*row) for row in rows]


def _claimed(
    pk: uuid.UUID, agent_id: str, token: str, since: datetime, spec: str, execution: str, *rest: Any
) -> ClaimedCommand:
    return ClaimedCommand(pk, agent_id, token, since, json.loads(spec), json.loads(execution), *rest)


_RETURN = """
UPDATE gateways_command c
SET fence = c.fence - 1, lease_until = NULL,
    state = CASE WHEN c.fence = 1 THEN 'queued' ELSE c.state END,
    sent_at = CASE WHEN c.fence = 1 THEN NULL ELSE c.sent_at END
FROM unnest(%s::uuid[], %s::int[]) AS v(id, fence)
WHERE c.id = v.id AND c.fence = v.fence AND c.state = 'sent'
"""


def return_commands(commands: Sequence[ClaimedCommand]) -> None:
    """Let go of commands that were claimed and not sent, as if they had not been, unless somebody has them since."""
    with connection.cursor() as cursor:
        cursor.execute(_RETURN, [[each.id for each in commands], [each.fence for each in commands]])


@dataclass(frozen=True, slots=True)
class Questions:
    """What to ask the agents of one gateway: running jobs by job id, commands of unknown fate by request id."""

    jobs: dict[str, list[str]]
    probes: dict[str, list[str]]


def due_questions(*, now: datetime | None = None) -> dict[uuid.UUID, Questions]:
    """What is to be asked now, by gateway; each is due again after its pause."""
    moment = now or timezone.now()
    due: dict[uuid.UUID, Questions] = {}
    with transaction.atomic():
        commands = list(
            Command.objects.select_for_update(skip_locked=True, of=("self",), no_key=True)
            .filter(next_poll_at__lte=moment, agent__session_id__isnull=False, agent__gateway_id__isnull=False)
            .select_related("agent")
            .only("state", "job_id", "execution", "finished_at", "next_poll_at", "agent__agent_id", "agent__gateway")
            .order_by("next_poll_at")[:5000]
        )
        for command in commands:
            gateway_id = command.agent.gateway_id
            assert gateway_id is not None
            questions = due.setdefault(gateway_id, Questions({}, {}))
            if command.state == CommandState.UNKNOWN:
                questions.probes.setdefault(command.agent.agent_id, []).append(str(command.pk))
                command.next_poll_at = next_probe_at(command.finished_at or moment, moment)
            else:
                questions.jobs.setdefault(command.agent.agent_id, []).append(command.job_id)
                command.next_poll_at = moment + poll_interval(command.execution)
        Command.objects.bulk_update(commands, ["next_poll_at"])
    return due


def poll_interval(execution: dict[str, Any]) -> timedelta:
    """How long between two questions about a running job."""
    return timedelta(milliseconds=max(500, execution.get("poll_interval_ms", 2000)))


def next_probe_at(unknown_since: datetime, now: datetime) -> datetime | None:
    """When to ask about a command whose fate is unknown: ever less often, for a day."""
    age = now - unknown_since
    return next((now + pause for limit, pause in PROBE_PAUSES if age < limit), None)


def unknown_commands(agents: Sequence[uuid.UUID]) -> dict[str, list[str]]:
    """The commands of these agents that are still asked about, as request ids by agent id: they are here again."""
    rows = Command.objects.filter(
        agent_id__in=agents, state=CommandState.UNKNOWN, next_poll_at__isnull=False
    ).values_list("agent__agent_id", "pk")
    found: dict[str, list[str]] = {}
    for agent_id, pk in rows[:PROBE_BATCH]:
        found.setdefault(agent_id, []).append(str(pk))
    return found
