"""The Django admin: what staff sees, what it may decide, and that nothing is written past the actions."""

from __future__ import annotations

from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db import connections
from django.test import AsyncClient, Client, RequestFactory
from pytest_django import DjangoAssertNumQueries

from apps.audit.models import AuditEvent
from apps.gateways.models import (
    Agent,
    AgentDiscovery,
    Certificate,
    Command,
    DiscoveryRequest,
    EnrolmentToken,
    Gateway,
)
from apps.gateways.tests.factories import SimulatedAgent, make_agent, make_gateway, queue
from apps.gateways.tests.fleets import make_certificate, make_discovery, make_enrolment_token, make_fleet
from apps.gateways.tests.sockets import LinkPki
from apps.orgs.models import User
from conftest import Cast
from opsmap_trust.enrolment_tokens import EnrolmentTokenText

MODELS = [Gateway, Agent, Certificate, EnrolmentToken, Command, AgentDiscovery]


@pytest.fixture
def staff(client: Client, cast: Cast) -> Client:
    client.force_login(User.objects.create_superuser("staff@opsmap.example", "x"))
    return client


def address(model: type[Any], page: str = "") -> str:
    return f"/admin/gateways/{model._meta.model_name}/{page}"


def decide(client: Client, rows: list[Any], action: str, **fields: Any) -> Any:
    body = {"action": action, "_selected_action": [str(row.pk) for row in rows], **fields}
    return client.post(address(type(rows[0])), body, follow=True)


def fill(gateway: Gateway, count: int) -> None:
    """So many more of everything."""
    for number in range(count):
        agent = make_agent(gateway, f"srv-{count}-{number}")
        make_certificate(agent.row, days_left=100)
        make_discovery(agent.row)
        queue(agent)
        make_enrolment_token(gateway.organization, gateway=gateway)


@pytest.mark.parametrize("model", MODELS)
def test_a_list_costs_the_same_for_one_row_and_for_many(
    model: type[Any], staff: Client, gateway: Gateway, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    fill(gateway, 1)
    staff.get(address(model))  # content types are read once in a process
    with django_assert_num_queries(12, exact=False) as few:
        assert staff.get(address(model)).status_code == 200
    fill(gateway, 12)
    with django_assert_num_queries(len(few.captured_queries)):
        assert staff.get(address(model)).status_code == 200


@pytest.mark.parametrize("model", MODELS)
def test_every_row_has_a_page_and_every_list_a_search(model: type[Any], staff: Client, gateway: Gateway) -> None:
    fill(gateway, 1)
    make_certificate(gateway, days_left=3)
    row = model.objects.first()
    assert staff.get(address(model, f"{row.pk}/change/")).status_code == 200
    for query in ({"q": "srv-1-0"}, {"q": "%'\0"}, {"state": "revoked"}, {"ends": "30"}, {"ends": "x"}):
        assert staff.get(address(model), query).status_code in {200, 302}


def test_a_list_shows_how_an_agent_stands(staff: Client, agent: SimulatedAgent) -> None:
    make_certificate(agent.row, days_left=100)
    Agent.objects.update(labels={"role": "<b>db</b>"}, load={"load": [0.5, 0.1, 0], "memoryPercent": 41.2})
    page = staff.get(address(Agent)).content.decode()
    for text in ("srv-1.example", "Online", "paris", "role=&lt;b&gt;db&lt;/b&gt;", "0.50 0.10 0.00, memory 41 %"):
        assert text in page
    assert "<b>db" not in page


def test_removed_ones_are_shown_to_who_asks(staff: Client, gateway: Gateway) -> None:
    [agent] = make_fleet(gateway, "gone")
    Agent.objects.update(removed_at=agent.connected_at)
    assert "gone.example" not in staff.get(address(Agent)).content.decode()
    assert "gone.example" in staff.get(address(Agent), {"state": "removed"}).content.decode()


@pytest.mark.parametrize("model", MODELS)
def test_nothing_is_added_changed_or_deleted_by_a_form(
    model: type[Any], staff: Client, gateway: Gateway, rf: RequestFactory
) -> None:
    fill(gateway, 1)
    row = model.objects.first()
    before = model.objects.values().get(pk=row.pk)
    for page in (f"{row.pk}/change/", f"{row.pk}/delete/"):
        assert staff.post(address(model, page), {"post": "yes"}).status_code == 403
    if model is not EnrolmentToken:
        assert staff.get(address(model, "add/")).status_code == 403
    response = decide(staff, [row], "delete_selected", post="yes")
    assert model.objects.values().get(pk=row.pk) == before, response.content
    page = admin.site.get_model_admin(model)
    for write in (
        lambda: page.save_model(rf.post("/"), row, None, change=True),
        lambda: page.delete_model(rf.post("/"), row),
        lambda: page.delete_queryset(rf.post("/"), model.objects.all()),
    ):
        with pytest.raises(PermissionDenied):
            write()


def test_quarantine_asks_why_and_is_audited(staff: Client, gateway: Gateway) -> None:
    agents = make_fleet(gateway, "web-1", "web-2")
    page = decide(staff, agents, "quarantine").content.decode()
    assert 'name="reason"' in page
    assert not Agent.objects.filter(quarantined_at__isnull=False).exists()
    page = decide(staff, agents, "quarantine", reason="strange").content.decode()
    assert "Agents in quarantine: 2." in page
    events = AuditEvent.objects.filter(action="agent.quarantined")
    assert {(event.actor["email"], event.details["reason"]) for event in events} == {
        ("staff@opsmap.example", "strange")
    }
    decide(staff, agents, "release")
    assert AuditEvent.objects.filter(action="agent.released").count() == 2


def test_revocation_asks_why(staff: Client, gateway: Gateway) -> None:
    [agent] = make_fleet(gateway, "web-1")
    certificate = make_certificate(gateway, days_left=10)
    for row in (agent, certificate, gateway):
        assert 'name="reason"' in decide(staff, [row], "revoke").content.decode()
        row.refresh_from_db()
        assert row.revoked_at is None
        decide(staff, [row], "revoke", reason="stolen")
        row.refresh_from_db()
        assert row.revoked_at is not None


def test_discovery_is_asked_for_in_each_organization(staff: Client, cast: Cast, gateway: Gateway) -> None:
    agents = make_fleet(gateway, "web-1") + make_fleet(make_gateway(cast.umbrella, "gw-u"), "web-1")
    decide(staff, agents, "discover")
    assert DiscoveryRequest.objects.count() == 2
    events = AuditEvent.objects.filter(action="discovery.requested")
    assert {event.organization_id for event in events} == {cast.acme.pk, cast.umbrella.pk}


def test_too_many_at_once_are_refused(staff: Client, gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("apps.gateways.admin.bases.MAX_DECIDED", 1)
    agents = make_fleet(gateway, "web-1", "web-2")
    assert "Nothing was done" in decide(staff, agents, "quarantine", reason="strange").content.decode()
    assert not Agent.objects.filter(quarantined_at__isnull=False).exists()


TOKEN = {"role": "agent", "name_pattern": "web-*", "max_uses": "5", "life_hours": "2", "description": "web servers"}


def test_a_new_token_is_shown_once(staff: Client, cast: Cast, pki: LinkPki) -> None:
    response = staff.post(address(EnrolmentToken, "add/"), TOKEN | {"organization": str(cast.acme.pk)})
    assert response.status_code == 200
    assert "no-store" in response["Cache-Control"]
    text = response.context["text"]
    row = EnrolmentToken.objects.get()
    assert EnrolmentTokenText.parse(text).digest == row.digest
    assert text in response.content.decode()
    assert (row.organization, row.name_pattern, row.max_uses) == (cast.acme, "web-*", 5)
    assert row.created_by["email"] == "staff@opsmap.example"
    assert AuditEvent.objects.filter(action="enrolment_token.created").count() == 1
    for page in ("", f"{row.pk}/change/"):
        assert text not in staff.get(address(EnrolmentToken, page)).content.decode()
    assert text not in str(staff.cookies)
    decide(staff, [row], "revoke")
    row.refresh_from_db()
    assert row.revoked_at is not None


@pytest.mark.parametrize(
    "change", [{"role": "backend"}, {"max_uses": "0"}, {"life_hours": "3000"}, {"organization": ""}, {"gateway": "x"}]
)
def test_a_token_with_faults_is_none(staff: Client, cast: Cast, pki: LinkPki, change: dict[str, str]) -> None:
    response = staff.post(address(EnrolmentToken, "add/"), TOKEN | {"organization": str(cast.acme.pk)} | change)
    assert response.status_code == 200
    assert not EnrolmentToken.objects.exists()


def test_a_token_that_the_action_refuses_is_none(staff: Client, cast: Cast, settings: Any, tmp_path: Any) -> None:
    settings.PKI_DIR = tmp_path
    body = TOKEN | {"organization": str(cast.acme.pk)}
    response = staff.post(address(EnrolmentToken, "add/"), body, follow=True)
    assert "Nobody can be enrolled" in response.content.decode()
    assert not EnrolmentToken.objects.exists()


def test_a_gateway_of_another_organization_is_refused(staff: Client, cast: Cast, pki: LinkPki) -> None:
    foreign = make_gateway(cast.umbrella, "gw-u")
    body = TOKEN | {"organization": str(cast.acme.pk), "gateway": str(foreign.pk)}
    assert "of another organization" in staff.post(address(EnrolmentToken, "add/"), body).content.decode()
    assert not EnrolmentToken.objects.exists()


@pytest.mark.parametrize("model", MODELS)
def test_whoever_is_no_staff_of_the_platform_sees_nothing(model: type[Any], client: Client, cast: Cast) -> None:
    client.force_login(cast.owner)
    response = client.get(address(model))
    assert (response.status_code, response["Location"].startswith("/admin/login/")) == (302, True)


@pytest.mark.django_db(transaction=True)
async def test_the_admin_works_on_an_event_loop_as_it_is_served(async_client: AsyncClient, cast: Cast) -> None:
    """Our middleware is another one there: what was done must still be told on the page that follows."""

    def prepare() -> tuple[User, Agent]:
        [agent] = make_fleet(make_gateway(cast.acme), "web-1")
        return User.objects.create_superuser("staff@opsmap.example", "x"), agent

    person, agent = await sync_to_async(prepare)()
    await async_client.aforce_login(person)
    body = {"action": "quarantine", "_selected_action": [str(agent.pk)], "reason": "strange"}
    response = await async_client.post(address(Agent), body)
    assert response.status_code == 302
    page = await async_client.get(address(Agent))
    await sync_to_async(connections.close_all)()
    assert "Agents in quarantine: 1." in page.content.decode()
    assert "script-src 'self'" in page.headers["Content-Security-Policy"]
