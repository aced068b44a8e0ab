"""Impact over REST: what would fail, what is needed, what explains what, and who may act."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from apps.maps.selectors import forget_graphs
from apps.operations import impact
from apps.operations.impact import describe_impact
from apps.operations.tests.factories import Stage, document, make_map, make_stage
from conftest import Cast

pytestmark = pytest.mark.django_db


@pytest.fixture
def owner(client: Client, cast: Cast) -> Client:
    client.force_login(cast.owner)
    return client


@pytest.fixture
def long_stage(cast: Cast) -> Stage:
    """db ← cache ← api ← web, report uses api for order only, and alone stands beside."""
    shape = {"db": [], "cache": ["db"], "api": ["cache"], "web": ["api"]}
    shape |= {"report": [{"component": "api", "kind": "weak"}], "alone": []}
    stage = make_stage(cast, shape)
    stage.set_states()
    return stage


def names(items: list[dict[str, Any]]) -> list[str]:
    return [item["name"] for item in items]


def test_impact_of_a_component_says_who_would_fail_and_why(owner: Client, long_stage: Stage) -> None:
    answer = owner.get(f"/api/v1/components/{long_stage.component('cache').pk}/impact").json()

    [itself] = answer["components"]
    assert (itself["name"], itself["affectedCount"], itself["explains"]) == ("cache", 2, [])
    assert answer["wouldFail"]["count"] == 2
    assert [(item["name"], item["distance"], item["path"]) for item in answer["wouldFail"]["items"]] == [
        ("api", 1, ["cache", "api"]),
        ("web", 2, ["cache", "api", "web"]),
    ]
    assert [(item["name"], item["path"]) for item in answer["needs"]["items"]] == [("db", ["cache", "db"])]
    assert names(answer["ordered"]["items"]) == ["report"]
    assert {item["state"] for item in answer["wouldFail"]["items"]} == {"running"}


def test_impact_of_several_components_of_a_map(owner: Client, long_stage: Stage) -> None:
    chosen = ", ".join(str(pk) for pk in long_stage.ids("alone", "api", "alone"))
    answer = owner.get(f"/api/v1/maps/{long_stage.map.pk}/impact", {"components": chosen}).json()

    assert names(answer["components"]) == ["alone", "api"]
    assert [item["affectedCount"] for item in answer["components"]] == [0, 1]
    assert names(answer["wouldFail"]["items"]) == ["web"]
    assert names(answer["needs"]["items"]) == ["cache", "db"]


def test_impact_of_none_is_the_cause_of_what_is_wrong(owner: Client, long_stage: Stage) -> None:
    long_stage.set_states({"db": "failed", "cache": "failed", "web": "degraded", "alone": "degraded"})
    answer = owner.get(f"/api/v1/maps/{long_stage.map.pk}/impact").json()

    explains = {item["name"]: names(item["explains"]) for item in answer["components"]}
    assert {name: sorted(found) for name, found in explains.items()} == {"alone": [], "db": ["cache", "web"]}
    assert answer["componentCount"] == 2
    assert names(answer["wouldFail"]["items"]) == ["cache", "api", "web"]


def test_impact_of_a_map_where_nothing_is_wrong_is_empty(owner: Client, long_stage: Stage) -> None:
    answer = owner.get(f"/api/v1/maps/{long_stage.map.pk}/impact").json()
    assert (answer["components"], answer["wouldFail"]) == ([], {"count": 0, "items": []})


def test_it_says_who_may_act(cast: Cast, client: Client, long_stage: Stage) -> None:
    client.force_login(cast.viewer)
    may_act = client.get(f"/api/v1/maps/{long_stage.map.pk}/impact").json()["mayAct"]
    assert may_act["you"] == {"start": False, "stop": False, "restart": False}
    assert {person["email"] for person in may_act["people"]} == {cast.owner.email, cast.operator.email}

    cast.operator.is_active = False
    cast.operator.save()
    may_act = describe_impact(long_stage.fresh(), cast.owner)["mayAct"]
    assert may_act["you"] == {"start": True, "stop": True, "restart": True}
    assert [person["email"] for person in may_act["people"]] == [cast.owner.email]


@pytest.mark.parametrize(
    ("components", "status"),
    [("nonsense", 400), (",", 400), (",".join(str(uuid.uuid4()) for _ in range(101)), 400), (str(uuid.uuid4()), 404)],
)
def test_components_that_are_none_are_refused(owner: Client, stage: Stage, components: str, status: int) -> None:
    answer = owner.get(f"/api/v1/maps/{stage.map.pk}/impact", {"components": components})
    assert answer.status_code == status


def test_component_of_another_map_is_none_of_this(owner: Client, cast: Cast, stage: Stage) -> None:
    other = make_map(cast.production, cast.owner, [document("invoices")], "Billing")
    foreign = other.components.get().pk
    assert owner.get(f"/api/v1/maps/{stage.map.pk}/impact", {"components": str(foreign)}).status_code == 404


def test_what_is_shown_is_bounded_and_the_count_is_not(cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(impact, "MAX_SHOWN", 3)
    stage = make_stage(cast, {"db": [], **{f"n{number}": ["db"] for number in range(8)}})
    stage.set_states({f"n{number}": "degraded" for number in range(8)} | {"db": "failed"})
    answer = describe_impact(stage.fresh(), cast.owner)

    assert (answer["wouldFail"]["count"], len(answer["wouldFail"]["items"])) == (8, 3)
    [cause] = answer["components"]
    assert (cause["explainsCount"], len(cause["explains"])) == (8, 3)


def test_queries_are_as_many_for_a_large_map_as_for_a_small_one(cast: Cast) -> None:
    counts = []
    for size in (2, 40):
        shape = {"n0": [], **{f"n{number}": [f"n{number - 1}"] for number in range(1, size)}}
        map = make_map(
            cast.production, cast.owner, [document(name, needs) for name, needs in shape.items()], f"Map {size}"
        )
        map.components.update(state="failed")
        forget_graphs()
        with CaptureQueriesContext(connection) as asked:
            describe_impact(map, cast.owner)
        counts.append(len(asked))
    assert counts[0] == counts[1] <= 5
