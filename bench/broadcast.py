"""How long it takes to accept a broadcast: the request, its permission, a row for each agent, and the audit event.

Nobody carries the commands out: no gateway is connected. `create_<n>_ms` is the median over the ASGI application, from
the request to the 202; `read_ms` a page of 200 results with the counts of all states; `cancel_ms` the end of them all.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "opsmap.settings")

import opsmap.asgi  # noqa: F401 - sets Django up, which what follows needs

# isort: split

from django.core.management import call_command
from django.test import Client
from django.utils import timezone

from apps.audit.actor import Actor
from apps.gateways.actions.sessions import register_gateway
from apps.gateways.models import Agent
from apps.orgs.actions import create_organization, create_user, issue_token
from bench.measuring import milliseconds, report

SIZES = (200, 1000, 10_000)
ROUNDS = 5
BODY = {"command": {"type": "native", "name": "uptime", "params": {}}}


def main() -> None:
    call_command("migrate", verbosity=0)
    client = _make_fleet(max(SIZES))
    figures: dict[str, float] = {}
    for size in SIZES:
        last: dict[str, Any] = {}

        def create(size: int = size, last: dict[str, Any] = last) -> None:
            last |= _ask(client.post, "/api/v1/broadcasts", 202, BODY | {"filter": {"labels": {f"of{size}": "1"}}})

        figures[f"create_{size}_ms"] = _median_ms(create)
        assert last["total"] == size
    address = f"/api/v1/broadcasts/{last['id']}"
    figures["read_ms"] = _median_ms(lambda: _ask(client.get, address, 200, {"limit": 200}))
    figures["cancel_ms"] = round(milliseconds(lambda: _ask(client.post, f"{address}/cancel", 202, {})), 1)
    report(figures)


def _make_fleet(size: int) -> Client:
    """An organization with so many agents, each labelled with the sizes it is part of; a client of its owner."""
    actor = Actor.system("bench")
    owner = create_user(email="bench@example.com", password=secrets.token_urlsafe(), name="Bench", actor=actor)
    organization = create_organization(name="Bench", slug="bench", owner=owner, actor=actor)
    gateway = register_gateway(
        organization_id=organization.pk, gateway_id="gw-1", certificate_sha256="ab" * 32, actor=actor
    )
    Agent.objects.bulk_create(
        [
            Agent(
                organization=organization,
                gateway=gateway,
                agent_id=f"srv-{number:05}",
                hostname=f"srv-{number:05}.example",
                labels={f"of{size}": "1" for size in SIZES if number < size},
                session_id=f"session-{number}",
                connected_at=timezone.now(),
            )
            for number in range(size)
        ],
        batch_size=1000,
    )
    _, token = issue_token(user=owner, name="bench", actor=actor)
    return Client(SERVER_NAME="localhost", headers={"Authorization": f"Bearer {token}"})


def _ask(call: Callable[..., Any], address: str, status: int, body: dict[str, Any]) -> Any:
    is_read = "limit" in body
    answer = call(address, body) if is_read else call(address, json.dumps(body), content_type="application/json")
    assert answer.status_code == status, answer.content
    return answer.json()


def _median_ms(call: Callable[[], None]) -> float:
    return round(median(milliseconds(call) for _ in range(ROUNDS)), 1)


if __name__ == "__main__":
    main()
