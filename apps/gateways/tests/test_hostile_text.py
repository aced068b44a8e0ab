"""What a host says of itself is data: in the API it is JSON, and nowhere anything else."""

from __future__ import annotations

import json

import pytest
from django.test import Client

from apps.gateways.models import Gateway
from apps.gateways.tests.factories import make_agent
from conftest import Cast

pytestmark = pytest.mark.django_db

HOSTILE = '<script>alert(1)</script>"\x1b[2J\x1b]0;owned\x07\r\n\u202e'


def test_names_of_hosts_arrive_inert_in_the_api(cast: Cast, gateway: Gateway, client: Client) -> None:
    make_agent(gateway, hostname=HOSTILE, labels={"role": HOSTILE})
    client.force_login(cast.owner)
    answer = client.get("/api/v1/agents")
    assert answer.status_code == 200
    assert answer["Content-Type"] == "application/json"
    assert answer["X-Content-Type-Options"] == "nosniff"
    text = answer.content.decode()
    # JSON escapes what would act in a terminal; what would act in a page is no page.
    assert not any(control in text for control in "\x1b\x07\r")
    found = [agent for agent in _objects(json.loads(text)) if agent.get("hostname") == HOSTILE]
    assert len(found) == 1


def _objects(value: object) -> list[dict[str, object]]:
    if isinstance(value, dict):
        return [value, *(each for item in value.values() for each in _objects(item))]
    return [each for item in value for each in _objects(item)] if isinstance(value, list) else []
