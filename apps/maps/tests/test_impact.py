"""What a failure reaches, by which way, and which failure explains which trouble; against a second opinion."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings

from apps.maps.planning.graph import Edge, Graph
from apps.maps.planning.impact import find_causes, find_impact
from apps.maps.planning.plans import Condition
from apps.maps.tests.graphs import Case, cases

UP, DOWN, IMPAIRED, FAILED = Condition.UP, Condition.DOWN, Condition.IMPAIRED, Condition.FAILED
examples = settings(max_examples=100, deadline=None)


def _graph(*edges: str) -> Graph[str]:
    """From texts such as "a>b" (a needs b) and "a~b" (for order only)."""
    return Graph("abcdefg", [Edge(edge[0], edge[2], edge[1] == ">") for edge in edges])


@examples
@given(cases())
def test_impact_is_everything_above_and_need_everything_below(case: Case) -> None:
    impact = find_impact(case.graph, case.chosen)
    strong = case.needs(is_strong_only=True)

    assert set(impact.would_fail) == case.chosen | {upper for upper, lower in strong if lower in case.chosen}
    assert set(impact.needed) == case.chosen | {lower for upper, lower in strong if upper in case.chosen}
    reached = set(impact.would_fail)
    assert set(impact.ordered) == {
        edge.source
        for edge in case.edges
        if not edge.is_strong and edge.target in reached and edge.source not in reached
    }


@examples
@given(cases())
def test_each_way_is_a_shortest_chain_of_strong_dependencies(case: Case) -> None:
    spread = find_impact(case.graph, case.chosen).would_fail
    direct = {(edge.source, edge.target) for edge in case.edges if edge.is_strong}
    distances = dict.fromkeys(case.chosen, 0)
    for round_number in range(1, len(case.conditions)):
        for upper, lower in direct:
            if distances.get(lower) == round_number - 1:
                distances.setdefault(upper, round_number)

    lengths = []
    for node in spread:
        path = spread.path_to(node)
        assert path[0] == spread.root_of(node)
        assert path[0] in case.chosen
        assert path[-1] == node
        assert all((upper, lower) in direct for lower, upper in pairwise(path))
        assert len(path) - 1 == distances[node]
        lengths.append(len(path))
    assert lengths == sorted(lengths), "nearest first"
    assert sum(spread.sizes().values()) == len(spread) == len(set(spread))


@examples
@given(cases())
def test_every_trouble_is_a_root_or_explained_by_one_that_may_explain_it(case: Case) -> None:
    causes = find_causes(case.graph, case.conditions)
    strong = case.needs(is_strong_only=True)
    troubled = {node for node, condition in case.conditions.items() if condition in {FAILED, IMPAIRED}}
    roots, explained = set(causes.roots), set(causes.explained(case.conditions))

    assert roots | explained == troubled
    assert not roots & explained
    for root in roots:
        below = {lower for upper, lower in strong if upper == root and lower in troubled}
        assert all(case.conditions[root] is FAILED and case.conditions[node] is IMPAIRED for node in below)
    for node in explained:
        root = causes.affected.path_to(node)[0]
        assert root in roots
        assert (node, root) in strong


def test_one_dead_database_is_one_cause_and_not_five() -> None:
    graph = _graph("b>a", "c>a", "d>b", "e>d", "g~a")
    causes = find_causes(graph, {"a": FAILED, "b": FAILED, "d": IMPAIRED, "e": FAILED})

    assert causes.roots == ("a",)
    assert causes.explained({"a": FAILED, "b": FAILED, "d": IMPAIRED, "e": FAILED}) == ["b", "d", "e"]
    assert causes.affected.path_to("e") == ["a", "b", "d", "e"]
    assert "g" not in causes.affected, "order only"


def test_what_still_answers_explains_no_failure_above_it() -> None:
    assert set(find_causes(_graph("b>a"), {"a": IMPAIRED, "b": FAILED}).roots) == {"a", "b"}


def test_two_causes_are_told_apart_and_what_both_reach_counts_for_the_nearer() -> None:
    graph = _graph("c>a", "d>c", "d>b", "e>d")
    causes = find_causes(graph, {"a": FAILED, "b": FAILED})

    assert causes.roots == ("a", "b")
    assert causes.affected.sizes() == {"a": 2, "b": 3}
    assert causes.affected.root_of("e") == "b"


def test_nothing_chosen_and_nothing_wrong_reach_nothing() -> None:
    impact = find_impact(_graph("b>a"), [])
    assert (len(impact.would_fail), len(impact.needed), impact.ordered) == (0, 0, ())
    assert find_causes(_graph("b>a"), {"a": DOWN, "b": UP}).roots == ()


def test_way_to_what_is_not_reached_is_an_error() -> None:
    spread = find_impact(_graph("b>a"), ["a"]).would_fail
    with pytest.raises(KeyError):
        spread.path_to("c")
