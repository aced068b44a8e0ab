"""Enrolment tokens over REST."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from apps.audit.models import AuditEvent
from apps.gateways.models import EnrolmentToken, Gateway
from apps.gateways.tests.factories import make_gateway
from apps.gateways.tests.fleets import make_enrolment_token
from apps.gateways.tests.sockets import LinkPki
from conftest import Cast
from opsmap_trust.enrolment_tokens import EnrolmentTokenText

URL = "/api/v1/enrolment-tokens"


@pytest.fixture
def operator(client: Client, cast: Cast, pki: LinkPki) -> Client:
    client.force_login(cast.operator)
    return client


def post(client: Client, **body: Any) -> Any:
    return client.post(URL, body, content_type="application/json")


def test_a_token_is_shown_once_with_the_command_to_paste(operator: Client, gateway: Gateway) -> None:
    response = post(
        operator, role="agent", description="web servers", namePattern="web-*", gateway=str(gateway.pk), maxUses=5
    )
    assert (response.status_code, response["Cache-Control"]) == (201, "no-store")
    shown = response.json()
    text, row = shown["token"], EnrolmentToken.objects.get()
    assert EnrolmentTokenText.parse(text).digest == row.digest
    assert f"--token-file - <<'TOKEN'\n{text}\nTOKEN" in shown["commands"]["enroll"]
    assert shown["commands"]["enroll"].startswith("opsmap-agent enroll --gateway wss://")
    expected = {"state": "valid", "namePattern": "web-*", "gateway": "gw-1", "maxUses": 5, "useCount": 0}
    for again in (operator.get(URL).json()["results"][0], operator.get(f"{URL}/{row.pk}").json()):
        assert expected.items() <= again.items()
        assert text not in json.dumps(again)
    event = AuditEvent.objects.get(action="enrolment_token.created")
    assert text not in json.dumps([event.target, event.details])


def test_a_gateway_enrols_at_this_address(operator: Client) -> None:
    shown = post(operator, role="gateway", zone="paris").json()
    assert shown["commands"]["enroll"].startswith("opsmap-gateway enroll --backend http://testserver --zone paris ")
    assert (shown["zone"], shown["gateway"]) == ("paris", None)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "role"),
        ({"role": "backend"}, "role"),
        ({"role": "agent", "namePattern": "web-[12]"}, "namePattern"),
        ({"role": "agent", "maxUses": 0}, "maxUses"),
        ({"role": "agent", "maxUses": 10_001}, "maxUses"),
        ({"role": "agent", "zone": "paris"}, "zone"),
        ({"role": "agent", "description": "x" * 201}, "description"),
        ({"role": "agent", "expiresAt": "2020-01-01T00:00:00Z"}, "expiresAt"),
        ({"role": "agent", "expiresAt": (timezone.now() + timedelta(days=91)).isoformat()}, "expiresAt"),
    ],
)
def test_a_token_for_nothing_or_for_too_much_is_refused(operator: Client, body: dict[str, Any], field: str) -> None:
    response = post(operator, **body)
    assert (response.status_code, list(response.json()["errors"])) == (400, [field])
    assert not EnrolmentToken.objects.exists()


def test_a_gateway_does_not_come_by_a_gateway(operator: Client, gateway: Gateway) -> None:
    assert list(post(operator, role="gateway", gateway=str(gateway.pk)).json()["errors"]) == ["gateway"]


def test_the_gateway_of_somebody_else_is_none(operator: Client, cast: Cast) -> None:
    foreign = make_gateway(cast.umbrella, "gw-umbrella")
    assert post(operator, role="agent", gateway=str(foreign.pk)).status_code == 404
    assert post(operator, role="agent", organizationId=str(cast.umbrella.pk)).status_code == 404
    assert not EnrolmentToken.objects.exists()


def test_who_only_watches_lets_nobody_in(client: Client, cast: Cast, operator: Client) -> None:
    client.force_login(cast.viewer)
    token = make_enrolment_token(cast.acme)
    response = post(client, role="agent")
    assert (response.status_code, response.json()["code"]) == (403, "permission_denied")
    assert client.delete(f"{URL}/{token.pk}").status_code == 403
    assert EnrolmentToken.objects.get().revoked_at is None


def test_a_token_is_revoked_once(operator: Client, cast: Cast) -> None:
    token = make_enrolment_token(cast.acme)
    for _ in range(2):
        assert operator.delete(f"{URL}/{token.pk}").status_code == 204
    assert operator.get(f"{URL}/{token.pk}").json()["state"] == "revoked"
    assert AuditEvent.objects.filter(action="enrolment_token.revoked").count() == 1


def test_why_a_token_serves_no_more(operator: Client, cast: Cast) -> None:
    spent = make_enrolment_token(cast.acme, use_count=1)
    expired = make_enrolment_token(cast.acme, expires_at=timezone.now())
    states = {each["id"]: each["state"] for each in operator.get(URL).json()["results"]}
    assert states == {str(spent.pk): "spent", str(expired.pk): "expired"}


def test_tokens_are_paged_newest_first(operator: Client, cast: Cast) -> None:
    tokens = [str(make_enrolment_token(cast.acme).pk) for _ in range(3)]
    make_enrolment_token(cast.umbrella)
    first = operator.get(URL, {"limit": 2}).json()
    rest = operator.get(URL, {"limit": 2, "before": first["next"]}).json()
    assert [each["id"] for each in first["results"] + rest["results"]] == sorted(tokens, reverse=True)
    assert rest["next"] is None
