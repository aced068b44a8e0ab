"""What hosts say: received commands, events of journals, statuses of jobs. One transaction for a batch."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.utils import timezone

from apps.gateways.actions.commands import change_state
from apps.gateways.dispatch import ack_frame, plain_check_result, resume_frame
from apps.gateways.enums import CommandState
from apps.gateways.models import Agent, Command, Gateway
from apps.gateways.signals import health_reported
from opsmap_protocol import messages
from opsmap_protocol.enums import CommandOutcome, JobStatus

_STATE_OF_OUTCOME = {
    CommandOutcome.SUCCEEDED: CommandState.SUCCEEDED,
    CommandOutcome.FAILED: CommandState.FAILED,
    CommandOutcome.NOT_STARTED: CommandState.NOT_STARTED,
    CommandOutcome.REJECTED: CommandState.REJECTED,
    CommandOutcome.EXPIRED: CommandState.EXPIRED,
    CommandOutcome.CANCELLED: CommandState.CANCELLED,
}
_STATE_OF_JOB = {
    JobStatus.COMPLETED: CommandState.SUCCEEDED,
    JobStatus.FAILED: CommandState.FAILED,
    JobStatus.TIMEOUT: CommandState.FAILED,
    JobStatus.CANCELLED: CommandState.CANCELLED,
}

Report = messages.CommandReceived | messages.Events | messages.JobStatuses | messages.CommandRefused


@dataclass(slots=True)
class _Batch:
    """What one batch has touched so far: agents by id, and the acks to send once it is committed."""

    agents: dict[str, Agent]
    acks: dict[str, str] = field(default_factory=dict)
    health: dict[str, list[messages.HealthChanged]] = field(default_factory=dict)


@transaction.atomic
def ingest_reports(*, gateway: Gateway, reports: Sequence[Report]) -> list[str]:
    """Store a batch and change states by it. Returns the frames to send once this has returned, that is, committed.

    An agent can speak of its own commands only: everything is looked up by organization, agent and id.
    """
    names = {name for report in reports if (name := _agent_id(report))}
    # Locked in the order of their ids, so that two batches cannot wait for each other.
    agents = Agent.objects.select_for_update(no_key=True).filter(
        organization_id=gateway.organization_id, agent_id__in=names
    )
    batch = _Batch({agent.agent_id: agent for agent in agents.order_by("pk")})
    for report in reports:
        agent = batch.agents.get(_agent_id(report))
        if agent is None:
            continue
        match report:
            case messages.CommandReceived():
                _apply_received(agent, report.request_id)
            case messages.Events():
                _apply_events(batch, agent, report)
            case messages.JobStatuses():
                for status in report.jobs:
                    _apply_job_status(agent, status)
            case messages.CommandRefused():
                _release(agent, report)
    for agent_id, changes in batch.health.items():
        health_reported.send(sender=Agent, agent=batch.agents[agent_id], reports=changes)
    return list(batch.acks.values())


def _agent_id(report: Report) -> str:
    return report.target_agent if isinstance(report, messages.CommandRefused) else report.agent_id


def _apply_received(agent: Agent, request_id: str) -> None:
    command_id = _command_id(request_id)
    if command_id is not None:
        change_state(command_id, CommandState.RECEIVED, agent=agent, received_at=timezone.now(), lease_until=None)


def _apply_events(batch: _Batch, agent: Agent, report: messages.Events) -> None:
    """The events that are new, in order. Behind a gap nothing counts, and the agent is asked for what is missing."""
    if report.incarnation != agent.incarnation:
        return
    acked = agent.acked_seq
    has_gap = False
    for event in report.events:
        if event.seq <= acked:
            continue
        if event.seq != acked + 1:
            has_gap = True
            break
        acked = event.seq
        match event.body:
            case messages.CommandResult():
                _apply_result(agent, event.body)
            case messages.AsyncStarted():
                _apply_started(agent, event.body)
            case messages.AsyncStatus():
                _apply_job_status(agent, event.body)
            case messages.JobExited():
                _apply_exit(agent, event.body)
            case messages.HealthChanged():
                batch.health.setdefault(agent.agent_id, []).append(event.body)
    if acked != agent.acked_seq:
        agent.acked_seq = acked
        Agent.objects.filter(pk=agent.pk).update(acked_seq=acked, last_seen_at=timezone.now())
    answer = resume_frame(agent) if has_gap else ack_frame(agent.agent_id, agent.incarnation, acked)
    batch.acks[agent.agent_id] = answer


def _apply_result(agent: Agent, result: messages.CommandResult) -> None:
    command_id = _command_id(result.request_id)
    if command_id is None:
        return
    now = timezone.now()
    facts = result.result if isinstance(result.result, dict) else {}
    change_state(
        command_id,
        _STATE_OF_OUTCOME[result.outcome],
        agent=agent,
        detail=result.error or "",
        result=result.result,
        exit_code=_integer(facts.get("exit_code")),
        duration_ms=_bounded(result.duration_ms),
        finished_at=now,
    )


def _apply_started(agent: Agent, started: messages.AsyncStarted) -> None:
    command_id = _command_id(started.request_id)
    if command_id is None:
        return
    interval = timedelta(milliseconds=max(500, started.suggested_poll_interval_ms))
    change_state(
        command_id,
        CommandState.STARTED,
        agent=agent,
        job_id=started.job_id[:80],
        pid=_bounded(started.pid),
        started_at=started.started_at,
        next_poll_at=timezone.now() + interval,
        lease_until=None,
    )


def _apply_job_status(agent: Agent, status: messages.AsyncStatus) -> None:
    command_id = _command_id(status.request_id)
    if command_id is None:
        return
    facts: dict[str, Any] = {
        "check_result": plain_check_result(status.check_result),
        "exit_code": _integer(status.exit_code),
        "duration_ms": _bounded(status.elapsed_ms),
    }
    if not status.status.is_final:
        Command.objects.filter(pk=command_id, agent=agent, state=CommandState.STARTED).update(**facts)
        return
    detail = status.error or ""
    if status.status is JobStatus.TIMEOUT and not detail:
        detail = "The completion check did not pass in time."
    change_state(
        command_id,
        _STATE_OF_JOB[status.status],
        agent=agent,
        detail=detail,
        log_tail=status.log_tail or "",
        finished_at=timezone.now(),
        **facts,
    )


def _apply_exit(agent: Agent, exited: messages.JobExited) -> None:
    command_id = _command_id(exited.request_id)
    if command_id is not None:
        Command.objects.filter(pk=command_id, agent=agent).update(
            exit_code=_integer(exited.exit_code), process_exited_at=timezone.now()
        )


def _release(agent: Agent, refused: messages.CommandRefused) -> None:
    """The gateway could not pass it on: free for the next try, by whichever gateway the agent comes in again."""
    command_id = _command_id(refused.request_id)
    if command_id is not None:
        Command.objects.filter(pk=command_id, agent=agent, state=CommandState.SENT).update(
            state=CommandState.QUEUED,
            lease_until=timezone.now() + timedelta(seconds=1),
            detail=refused.reason[:500],
        )


def _command_id(request_id: str) -> uuid.UUID | None:
    """The id, if it can be one. Whose command it is decides the `agent` of each update."""
    try:
        return uuid.UUID(request_id)
    except ValueError:
        return None


def _integer(value: Any) -> int | None:
    """An exit code that the column can hold."""
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**31 else None


def _bounded(value: int) -> int:
    return min(max(value, 0), 2**31 - 1)


def due_polls(*, now: datetime | None = None) -> dict[uuid.UUID, list[tuple[str, list[str]]]]:
    """The running jobs to ask about, as agent ids and job ids by gateway; each is due again after its interval."""
    moment = now or timezone.now()
    due: dict[uuid.UUID, dict[str, list[str]]] = {}
    with transaction.atomic():
        commands = list(
            Command.objects.select_for_update(skip_locked=True, of=("self",), no_key=True)
            .filter(next_poll_at__lte=moment, agent__session_id__isnull=False, agent__gateway_id__isnull=False)
            .select_related("agent")
            .order_by("next_poll_at")[:5000]
        )
        for command in commands:
            interval = timedelta(milliseconds=max(500, command.execution.get("poll_interval_ms", 2000)))
            command.next_poll_at = moment + interval
            gateway_id = command.agent.gateway_id
            assert gateway_id is not None
            due.setdefault(gateway_id, {}).setdefault(command.agent.agent_id, []).append(command.job_id)
        Command.objects.bulk_update(commands, ["next_poll_at"])
    return {gateway_id: list(jobs.items()) for gateway_id, jobs in due.items()}
