"""One command for many agents, over REST."""

from __future__ import annotations

import threading
import uuid
from typing import Any

import pytest
from django.test import Client

from apps.audit.models import AuditEvent
from apps.gateways.enums import CommandState
from apps.gateways.models import Agent, Broadcast, Command, Gateway
from apps.gateways.tests.callers import at_once
from apps.gateways.tests.factories import SYSTEM, failing_audit, make_gateway, queue, wait_until
from apps.gateways.tests.fleets import make_fleet
from apps.orgs.actions import add_member
from apps.orgs.enums import MembershipRole
from conftest import Cast

UPTIME_BODY = {"command": {"type": "native", "name": "uptime"}, "timeoutMs": 2000}
ALL = {"all": True}


def post(client: Client, filter: Any, query: str = "", /, *, key: str = "", **body: Any) -> Any:
    headers = {"Idempotency-Key": key} if key else {}
    content = UPTIME_BODY | {"filter": filter} | body
    return client.post(f"/api/v1/broadcasts{query}", content, content_type="application/json", headers=headers)


@pytest.fixture
def fleet(gateway: Gateway) -> dict[str, Agent]:
    web = make_fleet(gateway, "web-1", "web-2", labels={"role": "web", "site": "a"})
    db = make_fleet(gateway, "db-1", labels={"role": "db", "site": "a"}, hostname="db-1.internal")
    away = make_fleet(gateway, "web-3", labels={"role": "web", "site": "b"}, is_online=False)
    return {agent.agent_id: agent for agent in [*web, *db, *away]}


@pytest.fixture
def operator(client: Client, cast: Cast) -> Client:
    client.force_login(cast.operator)
    return client


def reached() -> set[str]:
    return set(Command.objects.values_list("agent__agent_id", flat=True))


@pytest.mark.parametrize(
    ("filter", "expected"),
    [
        (ALL, {"web-1", "web-2", "web-3", "db-1"}),
        ({"labels": {"role": "web"}}, {"web-1", "web-2", "web-3"}),
        ({"labels": {"role": "web", "site": "a"}}, {"web-1", "web-2"}),
        ({"hostnamePattern": "web-?.example"}, {"web-1", "web-2", "web-3"}),
        ({"hostnamePattern": "*.internal"}, {"db-1"}),
        ({"hostnamePattern": "db-1.interna?", "labels": {"site": "a"}}, {"db-1"}),
        ({"agentIds": ["db-1", "web-1", "db-1"]}, {"web-1", "db-1"}),
        ({"agentIds": ["db-1", "web-1"], "labels": {"role": "web"}}, {"web-1"}),
    ],
)
def test_a_filter_means_the_agents_that_are_all_of_it(
    operator: Client, fleet: dict[str, Agent], filter: dict[str, Any], expected: set[str]
) -> None:
    response = post(operator, filter)
    assert (response.status_code, response.json()["total"]) == (202, len(expected))
    assert reached() == expected


def test_a_pattern_is_no_regular_expression(operator: Client, fleet: dict[str, Agent]) -> None:
    assert post(operator, {"hostnamePattern": "web-1xexample"}).json()["code"] == "fleet_size"
    assert post(operator, {"hostnamePattern": "web-[12].example"}).json()["code"] == "invalid"
    assert post(operator, {"hostnamePattern": "eb-1"}).json()["code"] == "fleet_size"


def test_agents_are_named_by_their_rows_too(operator: Client, fleet: dict[str, Agent]) -> None:
    assert post(operator, {"agentIds": [str(fleet["db-1"].pk), "web-1"]}).json()["total"] == 2


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({}, "invalid"),
        ({"filter": {}}, "invalid"),
        ({"filter": {"all": False}}, "invalid"),
        ({"filter": {"labels": {}, "hostnamePattern": ""}}, "invalid"),
        ({"filter": {"agentIds": []}}, "invalid"),
        ({"filter": {"all": True, "labels": {"role": "web"}}}, "invalid"),
        ({"filter": {"labels": {"role": "none"}}}, "fleet_size"),
        ({"filter": {"agentIds": ["web-1", "nobody"]}}, "unknown_agents"),
        ({"filter": ALL, "command": {"type": "shell"}}, "invalid_command"),
        ({"filter": ALL, "command": {"type": "execute", "path": "/bin/a\0b"}}, "invalid"),
        ({"filter": ALL, "command": {"type": "execute", "path": "/bin/\ud800"}}, "invalid"),
    ],
)
def test_a_broadcast_with_faults_sends_nothing(
    operator: Client, fleet: dict[str, Agent], body: dict[str, Any], code: str
) -> None:
    response = operator.post("/api/v1/broadcasts", UPTIME_BODY | body, content_type="application/json")
    assert (response.status_code, response.json()["code"]) == (400, code)
    assert not Command.objects.exists()
    assert not Broadcast.objects.exists()


def test_unknown_agents_are_named_and_foreign_ones_are_unknown(
    operator: Client, cast: Cast, fleet: dict[str, Agent]
) -> None:
    [foreign] = make_fleet(make_gateway(cast.umbrella, "gw-umbrella"), "srv-umbrella")
    named = ["web-1", "srv-umbrella", str(foreign.pk), str(uuid.uuid4())]
    assert post(operator, {"agentIds": named}).json()["unknown"] == named[1:]


def test_who_only_watches_is_told_how_many_and_nothing_is_sent(
    client: Client, cast: Cast, fleet: dict[str, Agent]
) -> None:
    client.force_login(cast.viewer)
    response = post(client, {"labels": {"role": "web"}})
    assert (response.status_code, response.json()["code"]) == (403, "permission_denied")
    assert "on 3 of 3 agents" in response.json()["detail"]
    assert not Broadcast.objects.exists()


def test_a_broadcast_stays_in_one_organization(client: Client, cast: Cast, fleet: dict[str, Agent]) -> None:
    make_fleet(make_gateway(cast.umbrella, "gw-umbrella"), "srv-umbrella")
    client.force_login(cast.outsider)
    assert post(client, ALL, organizationId=str(cast.acme.pk)).status_code == 404
    assert post(client, ALL).json()["total"] == 1
    assert reached() == {"srv-umbrella"}


def test_who_belongs_to_several_organizations_says_which(operator: Client, cast: Cast, fleet: dict[str, Agent]) -> None:
    add_member(organization=cast.umbrella, user=cast.operator, role=MembershipRole.MEMBER, actor=SYSTEM)
    response = post(operator, ALL)
    assert (response.status_code, list(response.json()["errors"])) == (400, ["organizationId"])
    assert post(operator, ALL, organizationId=str(cast.acme.pk)).json()["total"] == 4


def test_agents_that_are_away_are_counted_and_have_their_command(operator: Client, fleet: dict[str, Agent]) -> None:
    shown = post(operator, ALL).json()
    assert (shown["offline"], shown["states"]["queued"], shown["isOver"]) == (1, 4, False)
    commands = list(Command.objects.all())
    assert len({command.not_after for command in commands}) == 1
    assert {(command.subject, command.epoch) for command in commands} == {(None, 0)}


def test_one_audit_event_names_every_agent(operator: Client, cast: Cast, fleet: dict[str, Agent]) -> None:
    shown = post(operator, {"labels": {"role": "web"}}).json()
    event = AuditEvent.objects.get(action="broadcast.requested")
    assert event.target["broadcastId"] == shown["id"]
    assert sorted(event.details["agents"]) == ["web-1", "web-2", "web-3"]
    assert event.details["command"] == UPTIME_BODY["command"]
    assert (event.actor["email"], event.organization_id) == ("operator@acme.example", cast.acme.pk)


@pytest.mark.django_db(transaction=True)
def test_without_its_audit_event_there_is_no_broadcast(client: Client, cast: Cast) -> None:
    make_fleet(make_gateway(cast.acme), "web-1")
    client.raise_request_exception = False
    client.force_login(cast.operator)
    with failing_audit():
        assert post(client, ALL).status_code == 500
    assert not Broadcast.objects.exists()
    assert not Command.objects.exists()


def test_a_key_makes_a_repeated_broadcast_harmless(operator: Client, fleet: dict[str, Agent], gateway: Gateway) -> None:
    first = post(operator, ALL, key="once").json()
    make_fleet(gateway, "web-4")
    again = post(operator, ALL, key="once").json()
    assert (again["id"], again["total"]) == (first["id"], 4)
    assert AuditEvent.objects.filter(action="broadcast.requested").count() == 1
    other = post(operator, {"agentIds": ["db-1"]}, key="once")
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_key_reused")


@pytest.mark.django_db(transaction=True)
def test_the_same_broadcast_twice_at_once_is_one(cast: Cast) -> None:
    make_fleet(make_gateway(cast.acme), "web-1", "web-2")
    answers = at_once(4, cast.operator, lambda client: post(client, ALL, key="once"))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert (Broadcast.objects.count(), Command.objects.count()) == (1, 2)


def test_a_broadcast_shows_states_and_pages_of_results(client: Client, cast: Cast, fleet: dict[str, Agent]) -> None:
    client.force_login(cast.operator)
    broadcast_id = post(client, ALL).json()["id"]
    Command.objects.filter(agent=fleet["db-1"]).update(state=CommandState.FAILED, exit_code=3)
    client.force_login(cast.viewer)
    address = f"/api/v1/broadcasts/{broadcast_id}"
    first = client.get(address, {"limit": 3}).json()
    assert (first["states"]["failed"], first["states"]["queued"], len(first["results"])) == (1, 3, 3)
    rest = client.get(address, {"limit": 3, "before": first["next"]}).json()
    assert (len(rest["results"]), rest["next"]) == (1, None)
    names = {line["agent"]["agentId"] for line in first["results"] + rest["results"]}
    assert names == set(fleet)
    [failed] = client.get(address, {"state": "failed"}).json()["results"]
    assert (failed["agent"]["agentId"], failed["exitCode"], failed["broadcastId"]) == ("db-1", 3, broadcast_id)
    client.force_login(cast.outsider)
    assert client.get(address).status_code == 404


def test_cancelling_ends_what_was_not_sent_and_asks_for_the_rest(
    client: Client, cast: Cast, fleet: dict[str, Agent]
) -> None:
    client.force_login(cast.operator)
    broadcast_id = post(client, ALL).json()["id"]
    Command.objects.filter(agent=fleet["db-1"]).update(state=CommandState.STARTED)
    Command.objects.filter(agent=fleet["web-1"]).update(state=CommandState.SUCCEEDED)
    other = queue(fleet["web-1"])
    address = f"/api/v1/broadcasts/{broadcast_id}/cancel"
    for person, status in ((cast.outsider, 404), (cast.viewer, 403)):
        client.force_login(person)
        assert client.post(address).status_code == status
    assert not Command.objects.filter(is_cancel_requested=True).exists()
    client.force_login(cast.operator)
    response = client.post(address)
    assert response.status_code == 202
    states = response.json()["states"]
    assert (states["cancelled"], states["started"], states["succeeded"]) == (2, 1, 1)
    assert [command.agent for command in Command.objects.filter(is_cancel_requested=True)] == [fleet["db-1"]]
    other.refresh_from_db()
    assert other.state == CommandState.QUEUED
    assert AuditEvent.objects.filter(action="broadcast.cancel_requested").count() == 1


@pytest.mark.django_db(transaction=True)
def test_a_broadcast_may_be_waited_for(client: Client, cast: Cast) -> None:
    make_fleet(make_gateway(cast.acme), "web-1", "web-2")
    waiting: list[Any] = []
    asking = threading.Thread(
        target=lambda: waiting.extend(at_once(1, cast.operator, lambda c: post(c, ALL, "?wait=20")))
    )
    asking.start()
    wait_until(Broadcast.objects.exists)
    client.force_login(cast.operator)
    client.post(f"/api/v1/broadcasts/{Broadcast.objects.get().pk}/cancel")
    asking.join(10)
    [answer] = waiting
    assert (answer.status_code, answer.json()["states"]["cancelled"]) == (200, 2)
