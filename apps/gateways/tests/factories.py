"""Builders of delivery: a registered gateway, and an agent that says by the protocol what a real one would say."""

from __future__ import annotations

import itertools
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.db import connection
from django.dispatch import Signal
from django.utils import timezone

from apps.audit.actor import Actor
from apps.gateways.actions import session_sql
from apps.gateways.actions.arrivals import Arrival, open_agent_sessions
from apps.gateways.actions.claims import claim_commands
from apps.gateways.actions.reports import (
    AgentMessage,
    Ingested,
    Report,
    Source,
    ingest_reports,
    release_refused,
)
from apps.gateways.actions.requests import queue_command
from apps.gateways.actions.sessions import (
    Offline,
    close_agent_session,
    open_gateway_session,
    register_gateway,
)
from apps.gateways.models import Agent, Command, Gateway
from apps.gateways.pki.naming import subject_name
from apps.orgs.models import Organization
from opsmap_protocol import messages
from opsmap_protocol.checks import CheckResult
from opsmap_protocol.enums import CommandOutcome, HealthStatus, JobStatus
from opsmap_trust.certificates import encode_certificate

SYSTEM = Actor.system("test")
AT = datetime(2026, 11, 20, 3, 0, tzinfo=UTC)
UPTIME = {"type": "native", "name": "uptime", "params": {}}
SYNC = {"type": "sync", "timeout_ms": 5000}
DETACHED = {"type": "async", "poll_interval_ms": 1000, "max_wait_ms": 60_000}

_sessions = itertools.count(1)


def _some_certificate() -> str:
    """One that can be recorded; nobody looks at who signed it."""
    key, now = Ed25519PrivateKey.generate(), datetime.now(UTC)
    builder = x509.CertificateBuilder(subject_name("srv-1"), subject_name("srv-1"), key.public_key())
    builder = builder.serial_number(1).not_valid_before(now).not_valid_after(now + timedelta(days=1))
    return encode_certificate(builder.sign(key, None))


SOME_CERTIFICATE = _some_certificate()


def make_gateway(organization: Organization, gateway_id: str = "gw-1", *, is_online: bool = True) -> Gateway:
    """A registered gateway, by default with an open session."""
    gateway = register_gateway(
        organization_id=organization.pk,
        gateway_id=gateway_id,
        certificate_sha256=uuid.uuid4().hex * 2,
        actor=SYSTEM,
    )
    if is_online:
        connect_gateway(gateway)
    return gateway


def gateway_hello(gateway_id: str, **changes: Any) -> messages.GatewayRegister:
    return messages.GatewayRegister(
        **{"zone": "paris", "labels": {"site": "a"}, "version": "1.0"} | changes, gateway_id=gateway_id
    )


def connect_gateway(gateway: Gateway) -> uuid.UUID:
    """A new session of the gateway; `gateway` knows it from here on."""
    session_id = open_gateway_session(gateway=gateway, hello=gateway_hello(gateway.gateway_id))
    gateway.refresh_from_db()
    return session_id


@dataclass
class SimulatedAgent:
    """The agent of one host: connects through a gateway and numbers its events as a journal does.

    Says what the link hands on once it has checked the seals; `sockets.LinkedAgent` has seals of its own.
    """

    gateway: Gateway
    agent_id: str = "srv-1"
    hostname: str = "srv-1.example"
    labels: dict[str, str] = field(default_factory=dict)
    incarnation: str = "journal-1"
    first_seq: int = 1
    seq: int = 0
    session_id: str = ""
    token: str = ""
    is_preferred: bool = False

    @property
    def row(self) -> Agent:
        return Agent.objects.get(organization_id=self.gateway.organization_id, agent_id=self.agent_id)

    def hello(self) -> messages.Register:
        return messages.Register(
            agent_id=self.agent_id,
            hostname=self.hostname,
            os=messages.OsInfo("linux", "Debian 13", "6.12", "x86_64"),
            labels=self.labels,
            capabilities=["native", "execute"],
            version="1.0",
            certificate=SOME_CERTIFICATE,
            nonce=uuid.uuid4().hex,
            is_preferred=self.is_preferred,
        )

    def arrival(self) -> Arrival:
        """A session of its own, proven."""
        self.session_id, self.token = f"session-{next(_sessions)}", uuid.uuid4().hex
        return Arrival(self.hello(), self.session_id, self.token, "ab" * 32, messages.DEFAULT_CREDITS)

    def connect(self, gateway: Gateway | None = None) -> dict[str, Any]:
        """Come in (by another gateway if given); the greeting that it gets, none if the session stands by."""
        self.gateway = gateway or self.gateway
        session_id = Gateway.objects.values_list("session_id", flat=True).get(pk=self.gateway.pk)
        session_id = session_id or connect_gateway(self.gateway)
        open_agent_sessions(gateway=self.gateway, session_id=session_id, arrivals=[self.arrival()])
        return self.begin()

    def begin(self) -> dict[str, Any]:
        """What its link tells it if its session is in use."""
        found = session_sql.begin([session_sql.Candidate(self.row.pk, self.token, self.incarnation, self.first_seq)])
        return {"type": "resume", "acked_seq": found[0].acked_seq, "incarnation": self.incarnation} if found else {}

    def disconnect(self, *, session_id: str = "", gateway: Gateway | None = None) -> None:
        offline = Offline(self.agent_id, session_id or self.session_id, "connection lost")
        close_agent_session(gateway=gateway or self.gateway, offline=offline)

    def events(self, *bodies: messages.EventBody, seqs: list[int] | None = None) -> messages.Events:
        """The next events of its journal, or those with the numbers given."""
        if seqs is None:
            seqs = [self.seq + 1 + index for index in range(len(bodies))]
            self.seq += len(bodies)
        events = [messages.Event(seq, AT, body) for seq, body in zip(seqs, bodies, strict=True)]
        return messages.Events(self.agent_id, self.token, self.incarnation, events)

    def report(self, *bodies: messages.EventBody, seqs: list[int] | None = None) -> list[dict[str, Any]]:
        """Tell events; the answers."""
        return self.say(self.events(*bodies, seqs=seqs))

    def say(self, *said: AgentMessage) -> list[dict[str, Any]]:
        """What the link answers when agents of this gateway say that, each by its own session."""
        reports = [Report(self._source_of(message), message) for message in said]
        return answers_of(ingest_reports(reports=reports), reports)

    def _source_of(self, message: AgentMessage) -> Source:
        organization_id = self.gateway.organization_id
        row = Agent.objects.filter(organization_id=organization_id, agent_id=message.agent_id).first() or Agent()
        return Source(row.pk, message.agent_id, message.token, row.incarnation, row.acked_seq)

    def refuse(self, command: Command, *, gateway: Gateway | None = None, code: str = "queue_full") -> None:
        """Its gateway does not pass the command on."""
        gateway = gateway or self.gateway
        release_refused(gateway=gateway, refused=refused(command, self, code))

    def receive(self, command: Command) -> None:
        self.say(messages.CommandReceived(self.agent_id, self.token, str(command.pk)))

    def succeed(self, command: Command) -> None:
        """Take a command and carry it out as a job, to the end."""
        self.receive(command)
        self.report(job_started(command), job_status(command, JobStatus.COMPLETED))

    def fail(self, command: Command, error: str = "exit code 1") -> None:
        self.receive(command)
        self.report(job_started(command), job_status(command, JobStatus.FAILED, error=error, exit_code=1))

    def tell_health(self, check_id: Any, status: str, /, **details: Any) -> None:
        self.report(health_changed(check_id, status, **details))


def answers_of(ingested: Ingested, reports: Sequence[Report]) -> list[dict[str, Any]]:
    """As the link tells them: an acknowledgement for each agent, or the question for what is missing."""
    incarnations = {report.source.agent_id: report.source.incarnation for report in reports}
    answers = []
    for agent_id, seq in ingested.acked.items():
        kind, name = ("resume", "acked_seq") if agent_id in ingested.gaps else ("events_ack", "seq")
        answers.append({"type": kind, "target_agent": agent_id, "incarnation": incarnations[agent_id], name: seq})
    return answers


def make_agent(gateway: Gateway, agent_id: str = "srv-1", **changes: Any) -> SimulatedAgent:
    """An agent that is connected."""
    agent = SimulatedAgent(gateway, agent_id, **{"hostname": f"{agent_id}.example"} | changes)
    agent.connect()
    return agent


def queue(agent: SimulatedAgent | Agent, name: str = "uptime", **changes: Any) -> Command:
    """A queued command; `changes` are arguments of `queue_command`."""
    row = agent.row if isinstance(agent, SimulatedAgent) else agent
    arguments = {"spec": UPTIME, "execution": SYNC, "timeout_ms": 5000, "actor": SYSTEM} | changes
    return queue_command(agent=row, name=name, **arguments)


def put(command: Command, state: str, **fields: Any) -> Command:
    """The command as if it had come to `state` some other way."""
    Command.objects.filter(pk=command.pk).update(state=state, **fields)
    command.refresh_from_db()
    return command


def claim(gateway: Gateway, session_id: uuid.UUID | None = None, **scarce: Any) -> list[dict[str, Any]]:
    """The messages that the gateway's session gets now."""
    session = session_id or Gateway.objects.get(pk=gateway.pk).session_id
    assert session is not None
    claimed = claim_commands(gateway_id=gateway.pk, session_id=session, **scarce)
    return [command.as_message() for command in claimed]


def claimed_ids(gateway: Gateway, session_id: uuid.UUID | None = None) -> list[str]:
    return [frame["request_id"] for frame in claim(gateway, session_id)]


def command_result(
    command: Command, outcome: CommandOutcome = CommandOutcome.SUCCEEDED, **changes: Any
) -> messages.CommandResult:
    return messages.CommandResult(str(command.pk), outcome is CommandOutcome.SUCCEEDED, outcome, **changes)


def job_started(command: Command, **changes: Any) -> messages.AsyncStarted:
    facts = {"job_id": f"job-{command.pk}", "pid": 4711, "started_at": AT, "suggested_poll_interval_ms": 1000}
    return messages.AsyncStarted(**{"request_id": str(command.pk)} | facts | changes)


def job_status(command: Command, status: JobStatus, **changes: Any) -> messages.AsyncStatus:
    facts = {"request_id": str(command.pk), "job_id": f"job-{command.pk}", "status": status, "elapsed_ms": 1500}
    return messages.AsyncStatus(**facts | changes)


def check_result(*, passed: bool) -> CheckResult:
    return CheckResult("port_open", passed, {"port": 5432}, AT)


def health_changed(check_id: Any, status: str, /, **details: Any) -> messages.HealthChanged:
    return messages.HealthChanged(str(check_id), HealthStatus(status), details, AT)


def refused(command: Command, agent: SimulatedAgent, code: str = "queue_full") -> messages.CommandRefused:
    return messages.CommandRefused(
        agent.gateway.gateway_id, str(command.pk), agent.agent_id, code, "the queue of srv-1 is full"
    )


def later(**duration: float) -> datetime:
    return timezone.now() + timedelta(**duration)


def wait_until(condition: Callable[[], bool], *, deadline_s: float = 10) -> None:
    """Look until it is so."""
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, f"not {condition.__name__} within {deadline_s} s"
        time.sleep(0.002)


def somebody_waits_for_a_lock() -> bool:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid)"
            " WHERE NOT granted AND datname = current_database()"
        )
        return bool(cursor.fetchone()[0])


@contextmanager
def failing_audit() -> Iterator[None]:
    """The database refuses audit events, as with a full disk: whatever is written without one must not stay."""
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE audit_auditevent ADD CONSTRAINT no_more_events CHECK (false) NOT VALID")
    try:
        yield
    finally:
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE audit_auditevent DROP CONSTRAINT no_more_events")


@contextmanager
def heard(signal: Signal) -> Iterator[list[dict[str, Any]]]:
    """What a signal says while this lasts."""
    news: list[dict[str, Any]] = []

    def listen(sender: type, **arguments: Any) -> None:
        news.append(arguments)

    signal.connect(listen)
    try:
        yield news
    finally:
        signal.disconnect(listen)
