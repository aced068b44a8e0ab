"""What hosts say of commands: receipts, events of journals, statuses of jobs. One transaction for a batch."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta

from django.db import DataError, transaction
from django.db.models import Case, F, Q, Value, When
from django.db.models.functions import Greatest
from django.utils import timezone

from apps.gateways.actions import report_sql
from apps.gateways.actions.commands import tell_ended
from apps.gateways.actions.losses import note_lost_events
from apps.gateways.actions.report_rows import Rows, command_id_of
from apps.gateways.enums import CommandState
from apps.gateways.models import Agent, Command, Gateway
from apps.gateways.signals import health_reported
from opsmap_protocol import messages

logger = logging.getLogger(__name__)

AgentMessage = messages.CommandReceived | messages.Events | messages.JobStatuses | messages.ProbeResult
MAX_SEQ = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Source:
    """The session that something was said in, proven by token and seal. `acked_seq` is what the link last knew."""

    agent_pk: uuid.UUID
    agent_id: str
    token: str
    incarnation: str
    acked_seq: int


@dataclass(frozen=True, slots=True)
class Report:
    source: Source
    message: AgentMessage


@dataclass(slots=True)
class Ingested:
    """What a batch came to, by agent id, to be told once it is committed.

    `acked` is the newest stored event of each agent that told some. `gaps` are the agents whose events had a gap, which
    are asked to tell again. `ignored` spoke by a session that is not in use, or of another journal. `heard` are the
    commands that something was heard of, with their agents.
    """

    acked: dict[str, int] = field(default_factory=dict)
    gaps: set[str] = field(default_factory=set)
    ignored: set[str] = field(default_factory=set)
    heard: list[tuple[str, str]] = field(default_factory=list)


def ingest_reports(*, reports: Sequence[Report]) -> Ingested:
    """Store a batch and change states by it. What this returns is committed.

    An event that no column can hold must not stop its agent for ever: it counts as the failure of its command.
    """
    ingested = Ingested()
    try:
        _ingest(reports, ingested)
    except DataError:
        ingested = Ingested()
        for report in reports:
            for single in _taken_apart(report):
                _ingest_alone(single, ingested)
    return ingested


def _taken_apart(report: Report) -> list[Report]:
    if not isinstance(report.message, messages.Events):
        return [report]
    return [replace(report, message=replace(report.message, events=[event])) for event in report.message.events]


def _ingest_alone(report: Report, ingested: Ingested) -> None:
    try:
        _ingest([report], ingested)
    except DataError as error:
        reason = f"its result could not be stored: {str(error).splitlines()[0]}"[:500]
        logger.warning("what %s says is not stored: %s", report.source.agent_id, reason)
        if isinstance(report.message, messages.Events):
            _ingest([report], ingested, unstorable=reason)


@transaction.atomic
def _ingest(reports: Sequence[Report], ingested: Ingested, *, unstorable: str = "") -> None:
    """One transaction. `ingested` is written last: with an error it stays as it was."""
    journals = _read_journals(reports, ingested)
    # Locks the agents, in the order of their ids: two batches cannot wait for each other.
    in_use = report_sql.advance_journals([journal.as_row() for journal in journals.values() if journal.is_plausible])
    rows = Rows(timezone.now())
    for report in reports:
        source, message = report.source, report.message
        match message:
            case messages.CommandReceived():
                rows.add_received(source.agent_pk, message.request_id)
            case messages.ProbeResult():
                rows.add_never_seen(source.agent_pk, message)
            case messages.JobStatuses() if source.agent_pk in in_use:
                for status in message.jobs:
                    rows.add_body(source.agent_pk, status)
    for agent_pk, journal in journals.items():
        for event in journal.events if agent_pk in in_use else ():
            if unstorable:
                rows.add_unstorable(agent_pk, event.body, unstorable)
            else:
                rows.add_body(agent_pk, event.body)
    _store(rows)
    for agent_pk, journal in journals.items():
        _note(journal, ingested, is_in_use=agent_pk in in_use)
    for report in reports:
        ingested.heard += [(report.source.agent_id, request_id) for request_id in _request_ids(report.message)]


@dataclass(slots=True)
class _Journal:
    """The events of one agent in a batch: those that follow what is stored, in order, up to the first gap."""

    source: Source
    before: int
    events: list[messages.Event] = field(default_factory=list)
    has_gap: bool = False
    has_events: bool = False
    is_plausible: bool = True

    @property
    def seq(self) -> int:
        return self.events[-1].seq if self.events else self.before

    def add(self, message: messages.Events) -> None:
        self.has_events = True
        if message.incarnation != self.source.incarnation:
            self.is_plausible = False
        for event in message.events:
            if event.seq <= self.seq:
                continue
            # One that stands for others that were dropped closes the gap that they leave.
            first_seq = event.body.first_seq if isinstance(event.body, messages.EventsLost) else event.seq
            if first_seq > self.seq + 1 or event.seq > MAX_SEQ:
                self.has_gap = True
                return
            self.events.append(event)

    def as_row(self) -> report_sql.JournalRow:
        return {
            "id": str(self.source.agent_pk),
            "token": self.source.token,
            "incarnation": self.source.incarnation,
            "before": self.before,
            "seq": self.seq,
        }


def _read_journals(reports: Sequence[Report], ingested: Ingested) -> dict[uuid.UUID, _Journal]:
    journals: dict[uuid.UUID, _Journal] = {}
    for report in reports:
        if not isinstance(report.message, (messages.Events, messages.JobStatuses)):
            continue
        source = report.source
        known = ingested.acked.get(source.agent_id, source.acked_seq)
        journal = journals.setdefault(source.agent_pk, _Journal(source, known))
        if isinstance(report.message, messages.Events):
            journal.add(report.message)
    return journals


def _note(journal: _Journal, ingested: Ingested, *, is_in_use: bool) -> None:
    agent_id = journal.source.agent_id
    if not is_in_use:
        ingested.ignored.add(agent_id)
    elif journal.has_events:
        ingested.acked[agent_id] = journal.seq
        if journal.has_gap:
            ingested.gaps.add(agent_id)


def _store(rows: Rows) -> None:
    """In the order in which things happen to one command."""
    if rows.received:
        report_sql.mark_received(rows.received, rows.now)
    if rows.started:
        report_sql.mark_started(rows.started)
    if rows.running:
        report_sql.note_running(rows.running)
    if rows.outputs:
        report_sql.add_outputs(rows.outputs, rows.output_totals())
    ended = report_sql.mark_ended(list(rows.ended.values()), rows.now) if rows.ended else []
    if rows.never_seen:
        ended += report_sql.mark_never_seen(rows.never_seen, rows.now)
    if rows.exits:
        report_sql.note_exits(list(rows.exits.values()), rows.now)
    if ended:
        about_something = [command_id for command_id, subject in ended if subject is not None]
        tell_ended([command_id for command_id, _ in ended], with_subject=about_something)
    if rows.lost:
        note_lost_events(rows.lost, rows.now)
    if rows.health:
        for agent in Agent.objects.filter(pk__in=rows.health).order_by("pk"):
            health_reported.send(sender=Agent, agent=agent, reports=rows.health[agent.pk])


def _request_ids(message: AgentMessage) -> list[str]:
    match message:
        case messages.CommandReceived():
            return [message.request_id]
        case messages.Events():
            return [event.body.request_id for event in message.events if isinstance(event.body, messages.CommandEvent)]
    return []


def release_refused(*, gateway: Gateway, refused: messages.CommandRefused) -> None:
    """The gateway could not pass a command on: free for the next try, by whichever gateway the agent has.

    One that the agent's labels or name rule out by now is not tried again. It may be corrected: only hosts have the
    last word.
    """
    command_id = command_id_of(refused.request_id)
    if command_id is None:
        return
    mine = Command.objects.filter(
        pk=command_id,
        agent__organization_id=gateway.organization_id,
        agent__agent_id=refused.target_agent,
        agent__gateway=gateway,
        state=CommandState.SENT,
    )
    now = timezone.now()
    if refused.code == "filter_mismatch":
        if mine.update(state=CommandState.EXPIRED, detail=refused.reason[:500], lease_until=None, finished_at=now):
            tell_ended([command_id], with_subject=[command_id])
        return
    pause = timedelta(0) if refused.code == "draining" else timedelta(seconds=1)
    # This try is as if it had not been. Only if it was the first one, no host can have the command.
    is_first = Q(fence__lte=1)
    mine.update(
        state=Case(When(is_first, then=Value(CommandState.QUEUED)), default=F("state")),
        sent_at=Case(When(is_first, then=Value(None)), default=F("sent_at")),
        fence=Greatest(F("fence") - 1, 0),
        lease_until=now + pause,
        detail=refused.reason[:500],
    )
