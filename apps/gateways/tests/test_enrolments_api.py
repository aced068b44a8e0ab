"""POST /api/v1/enrolments: a gateway without anything but a token."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from apps.gateways.actions.enrolment_throttle import BY_ADDRESS
from apps.gateways.actions.enrolment_tokens import create_enrolment_token
from apps.gateways.models import Certificate, Gateway
from apps.gateways.pki.anchors import current_anchors
from apps.gateways.tests.factories import SYSTEM
from apps.gateways.tests.requests import certificate_in, new_key, request_for
from apps.gateways.tests.sockets import LinkPki
from conftest import Cast
from opsmap_protocol.enums import PeerRole


@pytest.fixture
def body(cast: Cast, pki: LinkPki) -> dict[str, str]:
    BY_ADDRESS.forget()
    _, text = create_enrolment_token(organization_id=cast.acme.pk, role=PeerRole.GATEWAY, actor=SYSTEM)
    csr = request_for(new_key(seals=False))
    return {"token": text, "role": "gateway", "name": "gw-9", "hostname": "gw-9.example", "csr": csr}


def post(body: dict[str, Any], **extra: Any) -> Any:
    return Client().post("/api/v1/enrolments", body, content_type="application/json", **extra)


def test_a_gateway_gets_its_certificate_and_whom_to_trust(body: dict[str, str], pki: LinkPki) -> None:
    answer = post(body)
    assert answer.status_code == 201
    told, anchors = answer.json(), current_anchors(pki.folder)
    assert told["root"] == anchors.root
    assert told["backendAuthorities"] == anchors.backend
    assert told["gatewayAuthorities"] == anchors.gateway == told["certificate"][1:]
    assert told["agentAuthorities"] == anchors.agent
    assert certificate_in(told["certificate"][0]).serial_number == int(Certificate.objects.get().serial, 16)
    assert Gateway.objects.get().gateway_id == "gw-9"


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"token": "opsmap-enrol-guess"}, 400, "bad_request"),
        ({"token": f"opsmap-enrol-{'A' * 43}.{'B' * 42}A"}, 403, "token_unknown"),
        ({"csr": "bm90aGluZw=="}, 400, "bad_request"),
        ({"role": "agent"}, 400, "invalid"),
        ({"name": ""}, 400, "invalid"),
        ({"hostname": "<b>"}, 400, "bad_request"),
    ],
)
def test_refusals_are_problems(body: dict[str, str], changes: dict[str, str], status: int, code: str) -> None:
    answer = post(body | changes)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer["Content-Type"] == "application/problem+json"
    assert not Gateway.objects.exists()


def test_the_second_use_is_refused(body: dict[str, str]) -> None:
    post(body)
    answer = post(body | {"name": "gw-10"})
    assert (answer.status_code, answer.json()["code"]) == (403, "token_spent")


def test_who_is_refused_often_waits(body: dict[str, str]) -> None:
    for _ in range(20):
        assert post(body | {"token": "opsmap-enrol-guess"}).status_code == 400
    answer = post(body)
    assert (answer.status_code, answer.json()["code"]) == (429, "too_many_refusals")
    assert 0 < int(answer["Retry-After"]) <= 60


@pytest.mark.parametrize(
    ("extra", "is_taken"),
    [
        ({}, True),
        ({"REMOTE_ADDR": "::1"}, True),
        ({"REMOTE_ADDR": "10.0.0.9"}, False),
        ({"REMOTE_ADDR": "10.0.0.9", "secure": True}, True),
        # A proxy on this machine: who came to it is not known to have come by https.
        ({"HTTP_X_FORWARDED_FOR": "10.0.0.9"}, False),
        ({"HTTP_X_FORWARDED_PROTO": "https"}, False),
    ],
)
def test_a_token_is_not_taken_by_plain_http(body: dict[str, str], extra: dict[str, Any], is_taken: bool) -> None:
    answer = post(body, **extra)
    assert answer.status_code == (201 if is_taken else 403)
    if not is_taken:
        assert answer.json()["code"] == "https_required"


def test_a_proxy_that_ends_tls_is_believed_if_the_installation_says_so(body: dict[str, str], settings: Any) -> None:
    settings.SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    assert post(body, HTTP_X_FORWARDED_PROTO="http").status_code == 403
    assert post(body, HTTP_X_FORWARDED_PROTO="https").status_code == 201


def test_without_a_pki_it_says_so_and_spends_nothing(body: dict[str, str], settings: Any, tmp_path: Any) -> None:
    settings.PKI_DIR = tmp_path
    answer = post(body)
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    assert not Certificate.objects.exists()
