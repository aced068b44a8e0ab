"""Settings that people push to agents: checked, told, one event for all."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from apps.audit.models import AuditEvent
from apps.gateways.actions import session_sql
from apps.gateways.actions.health_checks import set_health_checks
from apps.gateways.models import Gateway
from apps.gateways.tests.factories import SimulatedAgent, make_gateway
from apps.gateways.tests.fleets import make_fleet
from conftest import Cast


@pytest.fixture
def operator(client: Client, cast: Cast) -> Client:
    client.force_login(cast.operator)
    return client


def patch(client: Client, path: str, body: Any) -> Any:
    return client.patch(f"/api/v1/{path}", body, content_type="application/json")


def events() -> list[AuditEvent]:
    return list(AuditEvent.objects.filter(action="agent.settings_changed").order_by("id"))


def told(agent: SimulatedAgent) -> session_sql.AgentConfig:
    return session_sql.read_configs(gateway_id=agent.gateway.pk, agent_ids=[agent.agent_id])[agent.agent_id]


def test_keys_are_set_and_given_back_one_by_one(operator: Client, agent: SimulatedAgent) -> None:
    address = f"agents/{agent.row.pk}/settings"
    patch(operator, address, {"logLevel": "debug", "disabledNatives": ["kill"]})
    shown = patch(operator, address, {"logLevel": None, "heartbeatIntervalSecs": 10}).json()
    expected = {
        "logLevel": None,
        "heartbeatIntervalSecs": 10,
        "discoveryIntervalSecs": None,
        "disabledNatives": ["kill"],
    }
    assert shown == expected == operator.get(f"/api/v1/{address}").json()
    assert agent.row.settings == {"heartbeat_interval_secs": 10, "disabled_natives": ["kill"]}
    patch(operator, address, {"heartbeatIntervalSecs": None, "disabledNatives": []})
    assert agent.row.settings == {}


def test_what_is_set_already_is_no_event(operator: Client, agent: SimulatedAgent) -> None:
    for _ in range(2):
        assert patch(operator, f"agents/{agent.row.pk}/settings", {"logLevel": "debug"}).status_code == 200
    patch(operator, f"agents/{agent.row.pk}/settings", {"disabledNatives": []})
    [event] = events()
    assert event.details == {"changes": {"log_level": "debug"}, "agents": ["srv-1"]}
    assert event.target == {"type": "agent", "agentId": "srv-1"}


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({}, "invalid"),
        ([], "invalid"),
        ({"logLevels": "debug"}, "invalid"),
        ({"logLevel": "loud"}, "invalid_settings"),
        ({"logLevel": ["debug"]}, "invalid_settings"),
        ({"heartbeatIntervalSecs": 0}, "invalid_settings"),
        ({"heartbeatIntervalSecs": "soon"}, "invalid_settings"),
        ({"discoveryIntervalSecs": 59}, "invalid_settings"),
        ({"discoveryIntervalSecs": 10**30}, "invalid_settings"),
        ({"disabledNatives": "kill"}, "invalid_settings"),
        ({"disabledNatives": ["rm -rf"]}, "invalid_settings"),
        ({"disabledNatives": ["a\0b"]}, "invalid_settings"),
        ({"disabledNatives": ["uptime"] * 201}, "invalid_settings"),
    ],
)
def test_what_no_agent_could_be_set_to_is_refused(
    operator: Client, agent: SimulatedAgent, changes: Any, code: str
) -> None:
    response = patch(operator, f"agents/{agent.row.pk}/settings", changes)
    assert (response.status_code, response.json()["code"]) == (400, code)
    assert (agent.row.settings, events()) == ({}, [])


def test_an_agent_is_told_what_changed(agent: SimulatedAgent, operator: Client) -> None:
    set_health_checks(agent=agent.row, checks=[])
    before, since = told(agent), agent.row.changed_at
    assert since is not None
    patch(operator, f"agents/{agent.row.pk}/settings", {"logLevel": "debug"})
    after = told(agent)
    assert (before.settings, after.settings) == ({}, {"log_level": "debug"})
    [changed] = session_sql.changed_since(agent.gateway.pk, since)
    assert changed.config_revision == after.revision != before.revision
    patch(operator, f"agents/{agent.row.pk}/settings", {"logLevel": None})
    assert told(agent).revision == before.revision


def test_many_are_set_at_once_with_one_event(operator: Client, cast: Cast, gateway: Gateway) -> None:
    make_fleet(gateway, "web-1", "web-2", labels={"role": "web"})
    [db] = make_fleet(gateway, "db-1", labels={"role": "db"})
    [foreign] = make_fleet(make_gateway(cast.umbrella, "gw-umbrella"), "web-9", labels={"role": "web"})
    body = {"filter": {"labels": {"role": "web"}}, "settings": {"logLevel": "debug"}}
    assert patch(operator, "fleet/settings", body).json() == {"total": 2, "changed": 2}
    assert patch(operator, "fleet/settings", body).json() == {"total": 2, "changed": 0}
    [event] = events()
    assert (event.target, event.details["agents"]) == ({"type": "fleet"}, ["web-1", "web-2"])
    for agent in (db, foreign):
        agent.refresh_from_db()
        assert agent.settings == {}


def test_many_are_never_meant_by_mistake(operator: Client, gateway: Gateway) -> None:
    make_fleet(gateway, "web-1")
    for wanted in ({}, {"all": False}, None):
        response = patch(operator, "fleet/settings", {"filter": wanted, "settings": {"logLevel": "debug"}})
        assert response.json()["code"] == "invalid"
    assert events() == []
