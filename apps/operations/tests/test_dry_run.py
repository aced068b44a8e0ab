"""A dry run is really dry: nothing is written, nothing is locked, nothing is sent."""

from __future__ import annotations

import json
from typing import Any

import pytest
from channels_redis.core import RedisChannelLayer
from django.apps import apps
from django.core.serializers.json import DjangoJSONEncoder
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from apps.gateways.tests.factories import claim
from apps.operations.enums import FailurePolicy, IfHeld, OperationKind
from apps.operations.tests.factories import Stage

READS = ("SELECT", "SAVEPOINT", "RELEASE SAVEPOINT")
LOCKS = ("FOR UPDATE", "FOR NO KEY UPDATE", "pg_advisory")


def everything() -> dict[str, list[str]]:
    """Every row of every model."""
    return {
        model._meta.label: sorted(
            json.dumps(row, cls=DjangoJSONEncoder, default=str) for row in model._default_manager.values()
        )
        for model in apps.get_models()
    }


@pytest.mark.parametrize("kind", OperationKind)
@pytest.mark.parametrize("is_held", [False, True])
def test_a_dry_run_writes_locks_and_sends_nothing(
    client: Client,
    stage: Stage,
    kind: OperationKind,
    is_held: bool,
    monkeypatch: pytest.MonkeyPatch,
    django_capture_on_commit_callbacks: Any,
) -> None:
    if is_held:
        stage.start(OperationKind.START, "db")
        claim(stage.gateway)
    stage.set_states({"queue": "failed", "cache": "stopped"}, others="running")
    sent: list[Any] = []

    async def remember(layer: RedisChannelLayer, *message: Any) -> None:
        sent.append(message)

    monkeypatch.setattr(RedisChannelLayer, "send", remember)
    monkeypatch.setattr(RedisChannelLayer, "group_send", remember)
    client.force_login(stage.user)
    before = everything()
    body = {"kind": kind, "dryRun": True, "failurePolicy": FailurePolicy.ROLL_BACK, "ifHeld": IfHeld.QUEUE}
    with django_capture_on_commit_callbacks() as hints, CaptureQueriesContext(connection) as queries:
        response = client.post(f"/api/v1/maps/{stage.map.pk}/operations", body, content_type="application/json")
    assert response.status_code == 200
    plan = response.json()
    assert plan["steps"]
    assert plan["isExecutable"] is not any(step["component"]["name"] == "db" for step in plan["steps"] if is_held)
    assert everything() == before
    statements = [query["sql"].strip() for query in queries]
    assert statements
    assert [sql for sql in statements if not sql.startswith(READS) or any(lock in sql for lock in LOCKS)] == []
    assert (hints, sent) == ([], [])
    assert claim(stage.gateway) == []
