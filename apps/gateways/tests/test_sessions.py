"""Who is connected: the newest session counts, and a lost gateway is one event."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import IntegrityError

from apps.audit.models import AuditEvent
from apps.gateways.actions.health_checks import set_health_checks
from apps.gateways.actions.sessions import (
    close_gateway_session,
    register_gateway,
)
from apps.gateways.enums import CommandState
from apps.gateways.models import Agent, Command, Gateway
from apps.gateways.signals import agents_lost, agents_online
from apps.gateways.tests.factories import (
    SYSTEM,
    SimulatedAgent,
    claim,
    connect_gateway,
    failing_audit,
    heard,
    make_agent,
    make_gateway,
    queue,
)
from conftest import Cast

CHECKS = [{"check_id": "a", "probe": {"type": "tcp", "port": 5432}}]


def test_register_gateway_is_audited_and_renewing_keeps_its_identity(cast: Cast) -> None:
    first = register_gateway(organization_id=cast.acme.pk, gateway_id="gw-1", certificate_sha256="a" * 64, actor=SYSTEM)
    second = register_gateway(
        organization_id=cast.acme.pk, gateway_id="gw-1", certificate_sha256="b" * 64, actor=SYSTEM
    )
    assert second.pk == first.pk
    assert Gateway.objects.get().certificate_sha256 == "b" * 64
    events = AuditEvent.objects.filter(action__startswith="gateway.").order_by("id")
    assert [event.action for event in events] == ["gateway.registered", "gateway.certificate_renewed"]
    assert events[1].details == {"certificateSha256": "b" * 64}


def test_register_gateway_leaves_nothing_without_its_audit_event(cast: Cast) -> None:
    with failing_audit(), pytest.raises(IntegrityError):
        make_gateway(cast.acme)
    assert not Gateway.objects.exists()


def test_open_gateway_session_stores_what_the_gateway_says_of_itself(gateway: Gateway) -> None:
    assert (gateway.zone, gateway.labels, gateway.version) == ("paris", {"site": "a"}, "1.0")
    assert gateway.is_online
    assert gateway.connected_at == gateway.last_seen_at


def test_a_newer_gateway_session_survives_the_end_of_the_older_one(agent: SimulatedAgent) -> None:
    old = agent.gateway.session_id
    assert old is not None
    newer = connect_gateway(agent.gateway)
    with heard(agents_lost) as news:
        close_gateway_session(gateway=agent.gateway, session_id=old)
    assert news == []
    assert Gateway.objects.get().session_id == newer
    assert agent.row.is_online


def test_a_lost_gateway_is_one_event_for_all_of_its_agents(cast: Cast, agent: SimulatedAgent) -> None:
    for number in range(2, 5):
        make_agent(agent.gateway, f"srv-{number}")
    away = make_agent(agent.gateway, "srv-away")
    away.disconnect()
    elsewhere = make_agent(make_gateway(cast.acme, "gw-2"), "srv-elsewhere")
    assert agent.gateway.session_id is not None
    with heard(agents_lost) as news:
        close_gateway_session(gateway=agent.gateway, session_id=agent.gateway.session_id)
    [told] = news
    assert {lost.agent_id for lost in told["agents"]} == {"srv-1", "srv-2", "srv-3", "srv-4"}
    assert told["reason"] == "gateway gw-1 is not connected"
    assert list(Agent.objects.filter(session_id__isnull=False)) == [elsewhere.row]


def test_a_gateway_without_agents_is_lost_in_silence(gateway: Gateway) -> None:
    assert gateway.session_id is not None
    with heard(agents_lost) as news:
        close_gateway_session(gateway=gateway, session_id=gateway.session_id)
    assert news == []
    assert not Gateway.objects.get().is_online


def test_a_new_agent_registers_itself_with_an_audit_event(cast: Cast, agent: SimulatedAgent) -> None:
    row = agent.row
    assert (row.hostname, row.os["os_release"], row.capabilities) == (
        "srv-1.example",
        "Debian 13",
        ["native", "execute"],
    )
    assert row.gateway == agent.gateway
    agent.connect()
    [event] = AuditEvent.objects.filter(action="agent.registered")
    assert event.actor == {"type": "agent", "id": "srv-1", "email": "", "ip": ""}
    assert event.organization_id == cast.acme.pk
    assert Agent.objects.count() == 1


def test_a_new_agent_leaves_nothing_without_its_audit_event(gateway: Gateway) -> None:
    with failing_audit(), pytest.raises(IntegrityError):
        SimulatedAgent(gateway).connect()
    assert not Agent.objects.exists()


def test_the_same_agent_id_in_two_organizations_is_two_agents(cast: Cast, agent: SimulatedAgent) -> None:
    other = make_agent(make_gateway(cast.umbrella), "srv-1", labels={"of": "umbrella"})
    assert other.row.pk != agent.row.pk
    assert agent.row.labels == {}


def test_the_newest_agent_session_wins(cast: Cast, agent: SimulatedAgent) -> None:
    old_gateway, old_session = agent.gateway, agent.session_id
    agent.connect(make_gateway(cast.acme, "gw-2"))
    with heard(agents_lost) as news:
        agent.disconnect(session_id=old_session, gateway=old_gateway)
    assert news == [], "a late word about a session that was replaced"
    assert agent.row.session_id == agent.session_id
    assert agent.row.gateway == agent.gateway

    assert old_gateway.session_id is not None
    with heard(agents_lost) as news:
        close_gateway_session(gateway=old_gateway, session_id=old_gateway.session_id)
    assert news == [], "it is not behind the old gateway any more"
    assert agent.row.is_online


def test_close_agent_session_tells_the_reason_once(agent: SimulatedAgent) -> None:
    with heard(agents_lost) as news:
        agent.disconnect()
        agent.disconnect()
    [told] = news
    assert [lost.agent_id for lost in told["agents"]] == ["srv-1"]
    assert told["reason"] == "agent srv-1: connection lost"
    assert not agent.row.is_online


def test_a_gateway_cannot_end_the_session_of_a_foreign_agent(cast: Cast, agent: SimulatedAgent) -> None:
    agent.disconnect(gateway=make_gateway(cast.umbrella))
    assert agent.row.is_online


def test_a_returning_agent_frees_what_was_on_its_way(agent: SimulatedAgent) -> None:
    command = queue(agent)
    claim(agent.gateway)
    agent.connect()
    command.refresh_from_db()
    assert (command.state, command.lease_until) == (CommandState.SENT, None)
    assert [frame["request_id"] for frame in claim(agent.gateway)] == [str(command.pk)]
    assert Command.objects.get().fence == 2


def test_an_agent_under_another_name_is_lost_by_its_old_one_first(agent: SimulatedAgent) -> None:
    agent.hostname = "renamed.example"
    with heard(agents_lost) as lost, heard(agents_online) as online:
        agent.connect()
    assert len(lost) == len(online) == 1
    assert agent.row.hostname == "renamed.example"
    assert agent.row.is_online
    with heard(agents_lost) as lost:
        agent.connect()
    assert lost == [], "nothing about it changed"


def test_set_health_checks_changes_the_revision_with_the_content_only(
    agent: SimulatedAgent, django_capture_on_commit_callbacks: Any
) -> None:
    with django_capture_on_commit_callbacks() as hints:
        assert set_health_checks(agent=agent.row, checks=CHECKS)
    assert len(hints) == 1
    revision = agent.row.health_checks_revision
    assert len(revision) == 64

    reordered = [dict(reversed(check.items())) for check in CHECKS]
    with django_capture_on_commit_callbacks() as hints:
        assert not set_health_checks(agent=agent.row, checks=reordered)
    assert hints == []
    assert agent.row.health_checks_revision == revision

    assert set_health_checks(agent=agent.row, checks=[])
    assert agent.row.health_checks_revision != revision
    assert agent.row.health_checks == []
