"""Who was revoked: cut off within seconds, not let in again, and believed in nothing."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, tzinfo
from functools import partial

import pytest
from django.db import IntegrityError, connection
from django.utils import timezone

from apps.audit.models import AuditEvent
from apps.gateways import dispatch
from apps.gateways.actions.enrolment import enroll
from apps.gateways.actions.enrolment_tokens import create_enrolment_token
from apps.gateways.actions.revocation import revoke_agent, revoke_certificate, revoke_gateway
from apps.gateways.enums import CommandState
from apps.gateways.link import identity
from apps.gateways.models import Agent, AgentSession, Certificate, Command, Gateway
from apps.gateways.pki import fingerprint
from apps.gateways.signals import agents_lost
from apps.gateways.tests.factories import (
    SYSTEM,
    claimed_ids,
    command_result,
    failing_audit,
    heard,
    make_agent,
    make_gateway,
    queue,
)
from apps.gateways.tests.requests import new_key, request_for
from apps.gateways.tests.sockets import (
    LinkedAgent,
    LinkPki,
    close_code,
    connected,
    hear,
    hear_nothing,
    in_database,
    link,
    say,
)
from conftest import Cast
from opsmap_protocol.enums import PeerRole
from opsmap_protocol.errors import CloseCode

transactional = pytest.mark.django_db(transaction=True)


@pytest.fixture
def _without_hints(monkeypatch: pytest.MonkeyPatch) -> None:
    """Redis is flushed, or away."""
    monkeypatch.setattr(dispatch, "send_hint", lambda group, message: None)


@pytest.fixture
def linked(cast: Cast, pki: LinkPki) -> LinkedAgent:
    return LinkedAgent(pki, cast.acme.pk)


# Rows


def test_a_revoked_agent_has_no_session_and_its_open_commands_end(gateway: Gateway, cast: Cast) -> None:
    agent = make_agent(gateway)
    sent = queue(agent.row)
    claimed_ids(gateway)
    queued = queue(agent.row)
    with heard(agents_lost) as news:
        row = agent.row
        revoke_agent(agent=row, actor=SYSTEM, reason="stolen")
    assert [each["agents"][0].agent_id for each in news] == ["srv-1"]
    assert (row.session_id, row.token) == (None, "")
    assert row.revoked_at is not None
    assert not AgentSession.objects.exists()
    queued, sent = Command.objects.get(pk=queued.pk), Command.objects.get(pk=sent.pk)
    assert (queued.state, sent.state) == (CommandState.CANCELLED, CommandState.UNKNOWN)
    assert queued.detail == "The agent was revoked before this was sent: stolen"
    assert "may have run" in sent.detail
    assert sent.next_poll_at is None, "nobody will answer"
    assert not Certificate.objects.filter(revoked_at=None).exists()
    [event] = AuditEvent.objects.filter(action="agent.revoked")
    assert (event.organization_id, event.details["reason"]) == (cast.acme.pk, "stolen")


def test_revoking_twice_is_revoking_once(gateway: Gateway) -> None:
    row = make_agent(gateway).row
    revoke_agent(agent=row, actor=SYSTEM, reason="stolen")
    first = row.revoked_at
    revoke_agent(agent=row, actor=SYSTEM, reason="again")
    revoke_gateway(gateway=gateway, actor=SYSTEM, reason="stolen")
    revoke_gateway(gateway=gateway, actor=SYSTEM, reason="again")
    assert row.revoked_at == first
    actions = ["agent.revoked", "gateway.revoked"]
    assert sorted(AuditEvent.objects.filter(action__in=actions).values_list("action", flat=True)) == actions


def test_a_revocation_without_its_audit_event_does_not_happen(gateway: Gateway) -> None:
    row = make_agent(gateway).row
    with failing_audit(), pytest.raises(IntegrityError):
        revoke_agent(agent=row, actor=SYSTEM, reason="stolen")
    assert Agent.objects.get().is_online
    assert Certificate.objects.filter(revoked_at=None).exists()


def test_the_agents_of_a_revoked_gateway_go_over_to_their_other_one(gateway: Gateway, cast: Cast) -> None:
    agent = make_agent(gateway)
    other = make_gateway(cast.acme, "gw-2")
    agent.connect(other)
    make_agent(gateway, "srv-2")
    revoke_gateway(gateway=gateway, actor=SYSTEM, reason="stolen")
    assert (gateway.session_id, gateway.revoked_at is None) == (None, False)
    assert Agent.objects.get(agent_id="srv-1").gateway == other
    assert not Agent.objects.get(agent_id="srv-2").is_online


def test_an_agent_that_was_revoked_a_moment_ago_does_not_come_in(gateway: Gateway) -> None:
    """Between its challenge and its answer: what decides is the row."""
    agent = make_agent(gateway)
    revoke_agent(agent=agent.row, actor=SYSTEM, reason="stolen")
    assert agent.connect() == {}
    assert not agent.row.is_online
    assert not AgentSession.objects.exists()


def test_a_certificate_is_revoked_alone(gateway: Gateway) -> None:
    agent = make_agent(gateway)
    certificate = Certificate.objects.get(name="srv-1")
    revoke_certificate(certificate=certificate, actor=SYSTEM, reason="copied")
    assert certificate.revoked_at is not None
    assert certificate.revocation_reason == "copied"
    assert agent.row.revoked_at is None
    assert not agent.row.is_online, "it has to come again, by another one"
    revoke_certificate(certificate=certificate, actor=SYSTEM, reason="again")
    assert AuditEvent.objects.filter(action="certificate.revoked").count() == 1


@transactional
def test_the_agent_and_its_certificates_revoked_at_once_do_not_wait_for_each_other(cast: Cast) -> None:
    gateway = make_gateway(cast.acme)
    for number in range(8):
        agent = make_agent(gateway, f"srv-{number}").row
        rows = [_another_certificate(agent, str(each)) for each in range(3)]
        works = [partial(revoke_certificate, certificate=row) for row in rows] + [partial(revoke_agent, agent=agent)]
        barrier = threading.Barrier(len(works))

        def run(work: Callable[..., None], barrier: threading.Barrier = barrier) -> None:
            barrier.wait(20)
            try:
                work(actor=SYSTEM, reason="stolen")
            finally:
                connection.close()

        with ThreadPoolExecutor(len(works)) as pool:
            list(pool.map(run, works))
    assert not Certificate.objects.filter(revoked_at=None).exists()
    assert AuditEvent.objects.filter(action="agent.revoked").count() == 8


def _another_certificate(agent: Agent, serial: str) -> Certificate:
    now = timezone.now()
    return Certificate.objects.create(
        organization_id=agent.organization_id,
        role=PeerRole.AGENT,
        name=agent.agent_id,
        fingerprint=uuid.uuid4().hex * 2,
        serial=serial,
        not_before=now,
        not_after=now + timedelta(days=1),
    )


# The link


@transactional
@pytest.mark.usefixtures("_without_hints")
async def test_a_revoked_agent_is_cut_within_seconds_though_the_hint_is_lost(
    gateway_pem: str, linked: LinkedAgent
) -> None:
    async with connected(gateway_pem) as communicator:
        await linked.come_in(communicator)
        command = await in_database(lambda: queue(linked.row))
        await hear(communicator, "command")
        began_s = time.monotonic()
        await in_database(lambda: revoke_agent(agent=linked.row, actor=SYSTEM, reason="stolen"))
        told = await hear(communicator, "revoke_agent")
        assert time.monotonic() - began_s < 10
        assert (told["agent_id"], told["reason"]) == ("srv-1", "stolen")
        assert told["certificates"] == [fingerprint(linked.certificate)]
        # Whatever it still says, the gateway may have on the way: nothing of it counts.
        await say(communicator, linked.events(command_result(command)), linked.received(str(command.pk)))
        await hear_nothing(communicator, "events_ack")
        state = await in_database(lambda: Command.objects.get(pk=command.pk).state)
        assert state == CommandState.UNKNOWN
        await hear_nothing(communicator, "revoke_agent", for_s=1.2)


@transactional
async def test_a_revoked_agent_that_comes_again_is_refused_and_the_gateway_hears_it(
    gateway_pem: str, linked: LinkedAgent
) -> None:
    async with connected(gateway_pem) as communicator:
        await linked.come_in(communicator)
        await in_database(lambda: revoke_agent(agent=linked.row, actor=SYSTEM, reason="stolen"))
        await hear(communicator, "revoke_agent")
        await say(communicator, linked.online())
        told = await hear(communicator, "revoke_agent")
        assert told["certificates"] == [fingerprint(linked.certificate)]
        await hear_nothing(communicator, "challenge")
        # Also by a certificate that nobody has seen before it was revoked.
        again = LinkedAgent(linked.pki, linked.organization_id)
        await say(communicator, again.online())
        told = await hear(communicator, "revoke_agent")
        assert fingerprint(again.certificate) in told["certificates"]


@transactional
async def test_every_gateway_of_the_organization_hears_of_it_and_no_other(
    gateway_pem: str, cast: Cast, linked: LinkedAgent
) -> None:
    elsewhere = await in_database(linked.pki.gateway_pem, cast.acme, "gw-2")
    strangers = await in_database(linked.pki.gateway_pem, cast.umbrella, "gw-3")
    async with (
        connected(gateway_pem) as first,
        connected(elsewhere, "gw-2") as second,
        connected(strangers, "gw-3") as third,
    ):
        await linked.come_in(first)
        await in_database(lambda: revoke_agent(agent=linked.row, actor=SYSTEM, reason="stolen"))
        for communicator in (first, second):
            assert (await hear(communicator, "revoke_agent"))["agent_id"] == "srv-1"
        await hear_nothing(third, "revoke_agent", for_s=1.2)


@transactional
async def test_by_another_certificate_the_agent_proves_itself_anew(gateway_pem: str, linked: LinkedAgent) -> None:
    """It has renewed, and its former certificate is revoked."""
    async with connected(gateway_pem) as communicator:
        await linked.come_in(communicator)
        renewed = LinkedAgent(linked.pki, linked.organization_id)
        await renewed.come_in(communicator)
        former = await in_database(Certificate.objects.get, fingerprint=fingerprint(linked.certificate))
        await in_database(lambda: revoke_certificate(certificate=former, actor=SYSTEM, reason="copied"))
        await hear(communicator, "revoke_agent")
        challenge = await hear(communicator, "challenge")
        renewed.token = challenge["token"]
        await say(communicator, renewed.presence())
        await hear(communicator, "resume")
        assert (await in_database(lambda: renewed.row.is_online)) is True


@transactional
@pytest.mark.usefixtures("_without_hints")
@pytest.mark.parametrize("what", ["gateway", "certificate"])
async def test_a_revoked_gateway_is_closed_within_seconds_and_not_let_in_again(gateway_pem: str, what: str) -> None:
    def revoke() -> None:
        if what == "gateway":
            revoke_gateway(gateway=Gateway.objects.get(), actor=SYSTEM, reason="stolen")
        else:
            revoke_certificate(certificate=Certificate.objects.get(), actor=SYSTEM, reason="copied")

    async with connected(gateway_pem) as communicator:
        began_s = time.monotonic()
        await in_database(revoke)
        assert await close_code(communicator) == CloseCode.REVOKED
        assert time.monotonic() - began_s < 10
    again = link(gateway_pem)
    await again.connect(timeout=5)
    assert await close_code(again) == CloseCode.REVOKED


@transactional
async def test_a_revoked_gateway_comes_in_again_once_it_is_enrolled_anew(gateway_pem: str, cast: Cast) -> None:
    def enroll_anew() -> str:
        revoke_gateway(gateway=Gateway.objects.get(), actor=SYSTEM, reason="stolen")
        _, token = create_enrolment_token(organization_id=cast.acme.pk, role=PeerRole.GATEWAY, actor=SYSTEM)
        csr = request_for(new_key(seals=False))
        enrolled = enroll(token=token, role=PeerRole.GATEWAY, name="gw-1", hostname="gw-1", csr=csr)
        return f"-----BEGIN CERTIFICATE-----\n{enrolled.chain[0]}\n-----END CERTIFICATE-----\n"

    async with connected(gateway_pem):
        pass
    pem = await in_database(enroll_anew)
    async with connected(pem) as communicator:
        await hear(communicator, "authorities")
    former = link(gateway_pem)
    await former.connect(timeout=5)
    assert await close_code(former) == CloseCode.REVOKED


@transactional
async def test_a_connection_ends_with_its_certificate(gateway_pem: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Later:
        @staticmethod
        def now(zone: tzinfo) -> datetime:
            return datetime(2100, 1, 1, tzinfo=zone)

    async with connected(gateway_pem) as communicator:
        monkeypatch.setattr(identity, "datetime", Later)
        assert await close_code(communicator) == CloseCode.UNAUTHENTICATED
