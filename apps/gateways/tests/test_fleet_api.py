"""The registry over REST: pages, filters, one gateway or agent, and taking it out of sight."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from apps.audit.models import AuditEvent
from apps.gateways.actions.sessions import record_heartbeats
from apps.gateways.models import Agent, Command, Gateway
from apps.gateways.tests.factories import SimulatedAgent, connect_gateway, make_agent, make_gateway, queue
from apps.gateways.tests.fleets import make_certificate, make_discovery, make_fleet
from conftest import Cast

Get = Callable[..., Any]


@pytest.fixture
def get(client: Client, cast: Cast) -> Get:
    """The names in a list, as a viewer of Acme sees it."""
    client.force_login(cast.viewer)

    def names(path: str = "agents", **query: Any) -> list[str]:
        response = client.get(f"/api/v1/{path}", query)
        assert response.status_code == 200, response.content
        return [each["agentId" if path == "agents" else "gatewayId"] for each in response.json()["results"]]

    return names


def test_pages_show_every_agent_once_also_when_some_come_and_go(client: Client, get: Get, gateway: Gateway) -> None:
    make_fleet(gateway, *(f"web-{number}" for number in range(6)), hostname="web.example")
    make_fleet(gateway, "<b>\n", "ζ", hostname="<b>\n")
    seen: list[str] = []
    after: dict[str, str] = {}
    while True:
        page = client.get("/api/v1/agents", {"limit": 3, **after}).json()
        seen += [each["agentId"] for each in page["results"]]
        if page["next"] is None:
            break
        after = {"after": page["next"]}
        make_fleet(gateway, f"a-{len(seen)}", hostname="a-new")
        Agent.objects.filter(agent_id=seen[0]).delete()
    expected = ["<b>\n", "ζ", *(f"web-{number}" for number in range(6))]
    assert sorted(name for name in seen if not name.startswith("a-")) == sorted(expected)
    assert len(seen) == len(set(seen))


@pytest.mark.parametrize("after", ["x", "e30=", "WzEsMl0=", "WyJhIiwgIngiXQ==", "ÿ", "[" * 1500, "a" * 3000])
def test_a_cursor_that_is_none_is_refused(client: Client, get: Get, after: str) -> None:
    response = client.get("/api/v1/agents", {"after": after})
    assert (response.status_code, list(response.json()["errors"])) == (400, ["after"])


def test_filters_mean_those_that_are_all_of_it(get: Get, cast: Cast, gateway: Gateway) -> None:
    other = make_gateway(cast.acme, "gw-2")
    Gateway.objects.filter(pk=other.pk).update(zone="lyon")
    [db] = make_fleet(gateway, "db-1", labels={"role": "db", "site": "a"}, version="1.0")
    web = make_fleet(other, "web-1", "web-2", labels={"role": "web", "site": "a"}, version="1.1")
    make_certificate(db, days_left=10)
    make_certificate(db, days_left=300, revoked_at=timezone.now())
    make_certificate(web[0], days_left=5)
    make_certificate(web[0], days_left=300)
    assert get(label="role=db") == ["db-1"]
    assert get(label=["role=web", "site=a"]) == ["web-1", "web-2"]
    assert get(label="role=a=b") == []
    assert get(name="web-?.example") == ["web-1", "web-2"]
    assert get(version="1.0") == get(gateway="gw-1") == get(gateway=str(gateway.pk)) == get(zone="paris") == ["db-1"]
    assert get(zone="lyon", name="*-2*") == ["web-2"]
    soon = (timezone.now() + timedelta(days=30)).isoformat()
    assert get(certificateEndsBefore=soon) == ["db-1"], "what was renewed does not end soon, what was revoked is none"
    assert get("gateways", zone="lyon") == get("gateways", name="*2") == ["gw-2"]
    assert get("gateways", label="site=a") == ["gw-1", "gw-2"]


def test_states_are_told_apart(client: Client, get: Get, cast: Cast, gateway: Gateway) -> None:
    now = timezone.now()
    make_fleet(gateway, "online")
    make_fleet(gateway, "offline", is_online=False)
    make_fleet(gateway, "quarantined", quarantined_at=now)
    make_fleet(gateway, "revoked", quarantined_at=now, revoked_at=now)
    make_fleet(gateway, "removed", revoked_at=now, removed_at=now)
    for state in ("online", "offline", "quarantined", "revoked", "removed"):
        assert get(state=state) == [state]
        [shown] = client.get("/api/v1/agents", {"state": state}).json()["results"]
        assert shown["state"] == state
    assert get(state=["online", "revoked"]) == ["online", "revoked"]
    assert get() == ["offline", "online", "quarantined", "revoked"]
    away = make_gateway(cast.acme, "away", is_online=False)
    assert get("gateways", state="online") == ["gw-1"]
    assert get("gateways", state="offline") == ["away"]
    assert get("gateways", state="quarantined") == []
    Gateway.objects.filter(pk=away.pk).update(revoked_at=now)
    assert get("gateways", state="revoked") == ["away"]


@pytest.mark.parametrize(
    "query",
    [{"limit": 201}, {"state": "asleep"}, {"label": "role"}, {"name": "web-[12]"}, {"certificateEndsBefore": "soon"}],
)
def test_a_wrong_filter_is_refused(client: Client, get: Get, query: dict[str, Any]) -> None:
    assert client.get("/api/v1/agents", query).json()["code"] == "invalid"


def test_a_page_costs_the_same_for_one_agent_and_for_many(
    client: Client, cast: Cast, gateway: Gateway, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    client.force_login(cast.viewer)
    second = make_gateway(cast.acme, "gw-2")
    for count in (1, 12):
        for number in range(count):
            agent = make_agent(gateway, f"srv-{count}-{number}")
            agent.connect(second)
            make_certificate(agent.row, days_left=100)
        # The session, the person, their organizations, the page, the sessions of its agents.
        with django_assert_num_queries(5):
            assert len(client.get("/api/v1/agents").json()["results"]) >= count
    with django_assert_num_queries(4):
        client.get("/api/v1/gateways")


def test_one_agent_shows_everything(client: Client, get: Get, cast: Cast, agent: SimulatedAgent) -> None:
    agent.connect(make_gateway(cast.acme, "gw-2"))
    certificate = make_certificate(agent.row, days_left=100)
    make_discovery(agent.row)
    Agent.objects.update(lost_events=3, settings={"log_level": "debug"})
    shown = client.get(f"/api/v1/agents/{agent.row.pk}").json()
    assert [(each["gateway"], each["isInUse"]) for each in shown["sessions"]] == [("gw-1", False), ("gw-2", True)]
    # The other is the one that it came with, which ends sooner.
    assert shown["certificates"][0]["fingerprint"] == certificate.fingerprint
    assert shown["certificateEndsAt"] == shown["certificates"][0]["notAfter"]
    assert shown["settings"]["logLevel"] == "debug"
    assert shown["settings"]["disabledNatives"] == []
    assert shown["lastDiscovery"]["discoveryId"] == "d-1"
    assert shown["lostEvents"]["count"] == 3
    assert (shown["state"], shown["quarantine"], shown["zone"]) == ("online", None, "paris")


def test_a_gateway_shows_what_it_carries(client: Client, get: Get, cast: Cast, agent: SimulatedAgent) -> None:
    record_heartbeats(gateway=agent.gateway, heartbeats=[], losses={"queue_full": 2})
    make_certificate(agent.gateway, days_left=10, revoked_at=timezone.now(), revocation_reason="stolen")
    shown = client.get(f"/api/v1/gateways/{agent.gateway.pk}").json()
    assert shown["load"] == {"agents": 1, "losses": {"queue_full": 2}}
    assert (shown["state"], shown["certificateEndsAt"]) == ("online", None)
    assert shown["certificates"][0]["revocationReason"] == "stolen"


def test_a_discovery_is_told_again_only_if_it_is_new(client: Client, get: Get, agent: SimulatedAgent) -> None:
    address = f"/api/v1/agents/{agent.row.pk}/discovery"
    response = client.get(address)
    assert (response.status_code, response.json()["code"]) == (404, "no_discovery")
    discovery = make_discovery(agent.row)
    response = client.get(address)
    assert response.json()["findings"]["ports"] == [{"key": "tcp:0.0.0.0:5432", "port": 5432}]
    headers = {"If-None-Match": response["ETag"]}
    assert client.get(address, headers=headers).status_code == 304
    discovery.discovered_at += timedelta(minutes=1)
    discovery.save()
    assert client.get(address, headers=headers).status_code == 200


def test_discovery_is_asked_for_one_host_or_many(client: Client, cast: Cast, gateway: Gateway) -> None:
    agents = make_fleet(gateway, "web-1", "web-2")
    client.force_login(cast.operator)

    def post(path: str, body: dict[str, Any]) -> Any:
        return client.post(f"/api/v1/{path}", body, content_type="application/json")

    response = post(f"agents/{agents[0].pk}/discover", {"types": ["services"]})
    assert (response.status_code, bool(response.json()["discoveryId"])) == (202, True)
    assert post(f"agents/{agents[0].pk}/discover", {"types": ["dreams"]}).json()["code"] == "invalid_discovery"
    assert post("fleet/discover", {"filter": {"all": True}}).json() == {"total": 2}
    assert post("fleet/discover", {}).json()["code"] == "invalid"


def remove(client: Client, path: str) -> tuple[int, str]:
    response = client.delete(f"/api/v1/{path}")
    return response.status_code, response.json()["code"] if response.content else ""


def test_what_is_in_use_is_not_removed(client: Client, cast: Cast, agent: SimulatedAgent) -> None:
    client.force_login(cast.operator)
    assert remove(client, f"agents/{agent.row.pk}") == (409, "still_in_use")
    agent.disconnect()
    Agent.objects.update(last_seen_at=timezone.now() - timedelta(days=29))
    assert remove(client, f"agents/{agent.row.pk}") == (409, "still_in_use")
    assert remove(client, f"gateways/{agent.gateway.pk}") == (409, "still_in_use")
    assert not AuditEvent.objects.filter(action__endswith=".removed").exists()


def test_what_is_long_gone_is_revoked_and_removed_and_its_history_stays(
    client: Client, get: Get, cast: Cast, agent: SimulatedAgent
) -> None:
    command = queue(agent)
    agent.disconnect()
    Agent.objects.update(last_seen_at=timezone.now() - timedelta(days=31))
    client.force_login(cast.operator)
    for _ in range(2):
        assert remove(client, f"agents/{agent.row.pk}") == (204, "")
    assert (get(), get(state="removed")) == ([], ["srv-1"])
    assert agent.row.revoked_at is not None
    assert Command.objects.filter(pk=command.pk).exists()
    [line] = client.get("/api/v1/commands").json()["results"]
    assert line["agent"]["agentId"] == "srv-1"
    assert AuditEvent.objects.filter(action="agent.removed").count() == 1
    body = {"command": {"type": "native", "name": "uptime"}, "filter": {"agentIds": ["srv-1"]}}
    response = client.post("/api/v1/broadcasts", body, content_type="application/json")
    assert response.json()["code"] == "unknown_agents"


def test_a_revoked_gateway_is_removed_and_comes_back_when_it_connects(
    client: Client, get: Get, cast: Cast, gateway: Gateway
) -> None:
    Gateway.objects.update(revoked_at=timezone.now())
    client.force_login(cast.operator)
    assert remove(client, f"gateways/{gateway.pk}") == (204, "")
    assert get("gateways") == []
    Gateway.objects.update(revoked_at=None)
    connect_gateway(gateway)
    assert get("gateways") == ["gw-1"]


def test_a_removed_agent_that_connects_is_there_again(get: Get, agent: SimulatedAgent) -> None:
    Agent.objects.update(removed_at=timezone.now())
    assert get() == []
    agent.connect()
    assert get() == ["srv-1"]


def test_nothing_of_another_organization_is_seen_or_changed(client: Client, cast: Cast, agent: SimulatedAgent) -> None:
    client.force_login(cast.outsider)
    for path in ("agents", "gateways"):
        assert client.get(f"/api/v1/{path}").json() == {"results": [], "next": None}
        assert client.get(f"/api/v1/{path}", {"gateway": str(agent.gateway.pk)}).json()["results"] == []
    assert client.get(f"/api/v1/agents/{uuid.uuid4()}").status_code == 404
