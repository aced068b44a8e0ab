"""What was run before, over REST."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from django.test import Client

from apps.gateways.enums import CommandState
from apps.gateways.models import Agent, Command, Gateway
from apps.gateways.tests.factories import make_gateway, queue
from apps.gateways.tests.fleets import make_fleet
from conftest import Cast


@pytest.fixture
def agents(gateway: Gateway) -> list[Agent]:
    return make_fleet(gateway, "srv-a", "srv-b")


@pytest.fixture
def viewer(client: Client, cast: Cast) -> Client:
    client.force_login(cast.viewer)
    return client


def ids(answer: Any) -> list[str]:
    return [line["id"] for line in answer.json()["results"]]


def make_past(agent: Agent, count: int) -> list[str]:
    """Commands that have ended, newest first."""
    commands = [queue(agent) for _ in range(count)]
    Command.objects.filter(pk__in=[command.pk for command in commands]).update(state=CommandState.SUCCEEDED)
    return sorted((str(command.pk) for command in commands), reverse=True)


def test_the_history_is_newest_first_and_whole_over_its_pages(viewer: Client, agents: list[Agent]) -> None:
    expected = make_past(agents[0], 7)
    found: list[str] = []
    before: dict[str, str] = {}
    while True:
        answer = viewer.get("/api/v1/commands", {"limit": 3} | before)
        found += ids(answer)
        if answer.json()["next"] is None:
            break
        before = {"before": answer.json()["next"]}
    assert found == expected


def test_a_page_that_ends_the_history_exactly_has_no_next(viewer: Client, agents: list[Agent]) -> None:
    make_past(agents[0], 3)
    assert viewer.get("/api/v1/commands?limit=3").json()["next"] is None


def test_the_history_is_narrowed_by_what_is_asked(viewer: Client, agents: list[Agent]) -> None:
    subject = uuid.uuid4()
    here, there, about = queue(agents[0]), queue(agents[1]), queue(agents[1], subject=subject)
    Command.objects.filter(pk=here.pk).update(state=CommandState.FAILED)
    Command.objects.filter(pk=there.pk).update(state=CommandState.UNKNOWN)
    cases: list[tuple[Any, list[Command]]] = [
        ({"agent": agents[0].pk}, [here]),
        ({"subject": subject}, [about]),
        ({"state": "failed"}, [here]),
        ({"state": ["failed", "unknown"]}, [there, here]),
        ({"agent": agents[1].pk, "state": "failed"}, []),
        ({"broadcast": uuid.uuid4()}, []),
    ]
    for query, expected in cases:
        assert sorted(ids(viewer.get("/api/v1/commands", query))) == sorted(str(item.pk) for item in expected), query
    assert ids(viewer.get(f"/api/v1/agents/{agents[0].pk}/commands")) == [str(here.pk)]


@pytest.mark.parametrize("query", ["limit=0", "limit=201", "before=x", "agent=srv-a", "state=done", "limit=²"])
def test_a_question_with_faults_is_refused(viewer: Client, query: str) -> None:
    assert viewer.get(f"/api/v1/commands?{query}").status_code == 400


def test_nothing_of_another_organization_is_in_it(client: Client, cast: Cast, agents: list[Agent]) -> None:
    [foreign] = make_fleet(make_gateway(cast.umbrella, "gw-umbrella"), "srv-umbrella")
    mine, theirs = queue(agents[0]), queue(foreign)
    client.force_login(cast.viewer)
    assert ids(client.get("/api/v1/commands")) == [str(mine.pk)]
    assert ids(client.get("/api/v1/commands", {"agent": foreign.pk})) == []
    assert client.get(f"/api/v1/agents/{foreign.pk}/commands").status_code == 404
    # A foreign id is a place in time like any other: it opens nothing.
    assert ids(client.get("/api/v1/commands", {"before": theirs.pk})) == [str(mine.pk)]


@pytest.mark.parametrize("count", [2, 40])
def test_a_page_takes_as_many_queries_however_long_it_is(
    viewer: Client, agents: list[Agent], count: int, django_assert_num_queries: Any
) -> None:
    make_past(agents[0], count)
    # The session, the person, the page with its agents.
    with django_assert_num_queries(3):
        assert len(ids(viewer.get("/api/v1/commands?limit=200"))) == count


def test_a_line_leaves_out_what_is_long(viewer: Client, agents: list[Agent]) -> None:
    queue(agents[0])
    [line] = viewer.get("/api/v1/commands").json()["results"]
    assert line["agent"] == {
        "id": str(agents[0].pk),
        "agentId": "srv-a",
        "hostname": "srv-a.example",
        "isOnline": True,
    }
    assert not {"result", "logTail", "output"} & line.keys()
