"""The past of a component, page by page, with how long each state lasted."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.test import Client
from django.utils import timezone

from apps.operations.history import describe_history
from apps.operations.models import StateChange
from apps.operations.tests.factories import Stage


def make_past(stage: Stage, name: str, *states: str) -> Any:
    """A change every ten minutes, the last one ten minutes ago. Returns now."""
    now = timezone.now()
    previous = "unknown"
    for index, state in enumerate(states):
        change = StateChange.objects.create(
            component=stage.component(name), previous=previous, state=state, cause="check", reason=f"reason {index}"
        )
        StateChange.objects.filter(pk=change.pk).update(at=now - timedelta(minutes=10 * (len(states) - index)))
        previous = state
    return now


def test_each_state_lasts_until_the_next(stage: Stage) -> None:
    now = make_past(stage, "db", "running", "failed", "running")
    make_past(stage, "web", "stopped")
    told = describe_history(stage.component("db"), limit=10, now=now)
    assert [(item["previous"], item["state"], item["reason"]) for item in told["results"]] == [
        ("failed", "running", "reason 2"),
        ("running", "failed", "reason 1"),
        ("unknown", "running", "reason 0"),
    ]
    assert [item["durationMs"] for item in told["results"]] == [600_000] * 3
    assert told["next"] is None


def test_pages_fit_together(stage: Stage, django_assert_num_queries: Any) -> None:
    now = make_past(stage, "db", *["running", "failed"] * 5)
    whole = describe_history(stage.component("db"), limit=100, now=now)["results"]
    component, pages, before = stage.component("db"), [], None
    for size in (4, 4, 2):
        with django_assert_num_queries(1 if before is None else 2):
            page = describe_history(component, limit=4, before=before, now=now)
        assert len(page["results"]) == size
        pages += page["results"]
        before = page["next"]
    assert before is None
    assert pages == whole, "also the durations across pages"


def test_over_rest(client: Client, stage: Stage) -> None:
    make_past(stage, "db", "running", "failed", "running")
    client.force_login(stage.user)
    address = f"/api/v1/components/{stage.component('db').pk}/history"
    first = client.get(address, {"limit": 2}).json()
    assert [item["state"] for item in first["results"]] == ["running", "failed"]
    rest = client.get(address, {"limit": 2, "before": first["next"]}).json()
    assert [item["state"] for item in rest["results"]] == ["running"]
    for wrong in ({"limit": 0}, {"limit": 501}, {"before": "x"}, {"before": 2**63}):
        assert client.get(address, wrong).status_code == 400, wrong
