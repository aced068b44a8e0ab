"""Made-up installations: the same for the same seed, and what the documents of a person would have made."""

from __future__ import annotations

import random
from collections import Counter
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.audit.actor import Actor
from apps.gateways.models import Agent
from apps.maps.documents.loading import load_map
from apps.maps.documents.reading import SourceFile
from apps.maps.models import Component, Dependency, Map
from apps.maps.planning.graph import Edge, Graph, find_cycle
from apps.maps.selectors import get_graph
from apps.operations.demonstration.installation import Size, generate_installation
from apps.operations.demonstration.landscape import TIERS, draw_landscape
from apps.operations.enums import OperationKind, OperationState
from apps.operations.models import Operation, StateChange, Step
from apps.operations.plans import make_plan
from apps.orgs.models import Organization
from conftest import Cast

ACTOR = Actor.system("test")
SMALL = Size(organizations=2, maps=1, components=50, dependencies=150, runs=2)


def _random(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311 - nothing secret


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 400), st.integers(0, 1500), st.integers(0, 10))
def test_any_landscape_is_sound(components: int, dependencies: int, seed: int) -> None:
    landscape = draw_landscape(_random(seed), components, dependencies)
    names = [component.name for component in landscape.components]

    assert len(names) == len(set(names)) == components
    assert len(landscape.dependencies) <= dependencies
    assert len({(source, target) for source, target, _ in landscape.dependencies}) == len(landscape.dependencies)
    for source, target, _ in landscape.dependencies:
        assert landscape.components[source].tier > landscape.components[target].tier
    assert landscape == draw_landscape(_random(seed), components, dependencies)


def test_landscape_is_as_large_as_asked_and_nobody_floats() -> None:
    landscape = draw_landscape(_random(1), 2000, 6000)
    assert len(landscape.dependencies) == 6000
    sources = {source for source, _, _ in landscape.dependencies}
    assert all(place in sources or part.tier == 0 for place, part in enumerate(landscape.components))
    assert set(Counter(part.tier for part in landscape.components)) == set(range(len(TIERS)))
    weak = sum(not is_strong for _, _, is_strong in landscape.dependencies)
    assert 0.05 < weak / 6000 < 0.15
    graph = Graph(range(2000), (Edge(*link) for link in landscape.dependencies))
    assert find_cycle({node: [target for target, _ in graph.needs_of(node)] for node in graph.nodes}) is None


@pytest.fixture
def maps(cast: Cast) -> list[Map]:
    return generate_installation(size=SMALL, seed=7, owner=cast.owner, actor=ACTOR)


def _structure(map: Map) -> tuple[Any, Any]:
    fields = ("name", "type", "host", "group__name", "labels", "technology", "spec")
    components = list(Component.objects.filter(map=map).order_by("name").values_list(*fields))
    links = Dependency.objects.filter(map=map).values_list("component__name", "needs__name", "kind")
    return components, sorted(links)


@pytest.mark.django_db
def test_what_is_written_is_what_its_documents_say(maps: list[Map]) -> None:
    for map in maps:
        parsed, faults = load_map([SourceFile(item["path"], item["content"]) for item in map.documents])
        assert faults == []
        assert parsed is not None
        components, links = _structure(map)
        assert sorted((item.name, item.labels) for item in parsed.components) == [
            (row[0], row[4]) for row in components
        ]
        specs = {item.name: item.spec for item in parsed.components}
        for name, *_, spec in components:
            assert specs[name] == spec
        assert links == sorted(
            (item.name, link.needs, link.kind) for item in parsed.components for link in item.dependencies
        )


@pytest.mark.django_db
def test_same_seed_gives_the_same_and_another_one_something_else(cast: Cast, maps: list[Map]) -> None:
    before = _structure(maps[0])
    states = list(maps[0].components.order_by("name").values_list("state", flat=True))
    Organization.objects.filter(pk__in=[map.organization_id for map in maps]).delete()
    again, *_ = generate_installation(size=SMALL, seed=7, owner=cast.owner, actor=ACTOR)
    other, *_ = generate_installation(size=SMALL, seed=8, owner=cast.owner, actor=ACTOR)

    assert _structure(again) == before
    assert list(again.components.order_by("name").values_list("state", flat=True)) == states
    assert _structure(other) != before


@pytest.mark.django_db
def test_each_organization_is_whole_and_apart(cast: Cast, maps: list[Map]) -> None:
    assert len({map.organization_id for map in maps}) == 2
    for map in maps:
        hosts = set(map.components.values_list("host", flat=True))
        agents = Agent.objects.filter(organization_id=map.organization_id)
        assert hosts == set(agents.values_list("hostname", flat=True))
        assert {str(pk) for pk in get_graph(map).nodes} == {
            str(pk) for pk in map.components.values_list("pk", flat=True)
        }
        assert cast.owner.has_perm("map:edit", map)
        assert not cast.outsider.has_perm("map:view", map)


@pytest.mark.django_db
def test_history_is_over_and_in_order_and_predictions_rest_on_it(cast: Cast, maps: list[Map]) -> None:
    map = maps[0]
    operations = Operation.objects.filter(map=map)
    assert set(operations.values_list("state", flat=True)) == {OperationState.SUCCEEDED}
    assert operations.count() == SMALL.runs
    for operation in operations:
        assert operation.finished_at is not None
        assert operation.created_at < operation.finished_at < timezone.now()
        for step in Step.objects.filter(operation=operation).prefetch_related("orders_before__before"):
            assert step.started_at is not None
            assert all(order.before.finished_at <= step.started_at for order in step.orders_before.all())
    changes = StateChange.objects.filter(component__map=map).order_by("id").values_list("at", flat=True)
    assert set(changes) <= {at for times in Step.objects.values_list("started_at", "finished_at") for at in times}

    map.components.update(state="running")
    plan = make_plan(map=map, user=cast.owner, kind=OperationKind.RESTART, chosen=[], scope=None)
    predicted = [step.prediction for step in plan.steps if step.prediction is not None]
    assert len(predicted) == len(plan.steps) == 2 * SMALL.components
    assert plan.prediction is not None


@pytest.mark.django_db
def test_command_writes_once_and_says_where(cast: Cast) -> None:
    out = StringIO()
    arguments = {"owner": cast.owner.email.upper(), "components": 30, "runs": 1, "seed": 3, "stdout": out}
    call_command("generate_installation", **arguments)
    map = Map.objects.get(organization__slug="generated-3-1")
    assert "1 Maps with 30 components" in out.getvalue()
    assert f"/maps/generated-3-1/production/{map.slug}/" in out.getvalue()
    assert Dependency.objects.filter(map=map).count() == 90
    with pytest.raises(CommandError, match="'generated-3-1' is there already"):
        call_command("generate_installation", **arguments)


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"owner": "nobody@acme.example"}, "nobody with the email 'nobody@acme.example'"),
        ({"components": 0}, "--components is at least 1"),
        ({"runs": -1}, "--runs is not below 0"),
        ({"components": 500_000, "maps": 2}, "1000000 components are more than 500000"),
    ],
)
def test_command_refuses_what_makes_no_sense(cast: Cast, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(CommandError, match=message):
        call_command("generate_installation", **({"owner": cast.owner.email} | changes))
    assert Map.objects.count() == 0
