"""Plans as people read them: in words, and as a diagram."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import given, settings

from apps.maps.planning.diagrams import MAX_ARROWS, MAX_CHARACTERS, plan_as_mermaid
from apps.maps.planning.durations import PlanPrediction
from apps.maps.planning.graph import Edge, Graph
from apps.maps.planning.plans import Condition, Plan, PlannedStep, StepAction, plan_repair, plan_restart, plan_start
from apps.maps.planning.wording import duration_in_words, plan_as_text
from apps.maps.tests.graphs import Case, cases, reachable

START, STOP = StepAction.START, StepAction.STOP
TRADING = Graph(
    ["db", "cache", "api", "web"],
    [Edge("api", "db"), Edge("api", "cache", is_strong=False), Edge("web", "api")],
)


def test_repair_told_at_night() -> None:
    plan = plan_repair(TRADING, {"db": Condition.FAILED})
    path = tuple((node, action) for action, node in [(STOP, "web"), (STOP, "api"), (STOP, "db"), (START, "db")])
    assert plan_as_text(plan, TRADING, str, PlanPrediction(path, 130_000, 185_000)) == (
        "6 steps on 3 components, at most 6 one after another.\n"
        "It takes about 2 min 10 s, and nine times in ten less than 3 min 5 s.\n"
        "\n"
        "This begins at once:\n"
        "1. Stop web.\n"
        "\n"
        "Each of these begins as soon as what it waits for is done:\n"
        "2. Stop api, once web has stopped (web needs api).\n"
        "3. Stop db, once api has stopped (api needs db).\n"
        "4. Start db, once db has stopped.\n"
        "5. Start api, once api has stopped and db runs (api needs db).\n"
        "6. Start web, once web has stopped and api runs (web needs api).\n"
        "\n"
        "What takes longest: stop web, then stop api, then stop db, then start db.\n"
    )


def test_what_lies_between_and_is_left_alone_is_named() -> None:
    plan = plan_start(TRADING, {"db": Condition.DOWN, "web": Condition.DOWN}, {"db", "web"})
    text = plan_as_text(plan, TRADING, str)
    assert "2. Start web, once db runs (web needs db through api)." in text
    assert "How long it takes is not known yet" in text


def test_many_reasons_and_many_steps_are_counted_and_not_told() -> None:
    names = [f"n{number}" for number in range(10)]
    graph = Graph(["top", *names], [Edge("top", name) for name in names])
    plan = plan_start(graph, dict.fromkeys(graph.nodes, Condition.DOWN), graph.nodes)

    last = plan_as_text(plan, graph, str).splitlines()[-1]
    assert last.startswith("11. Start top, once n0 runs (top needs n0), n1 runs (top needs n1), n2 runs")
    assert last.endswith(" and 7 more steps ended.")
    assert plan_as_text(plan, graph, str, max_steps=4).endswith(
        "4. Start n3.\n… and 7 more steps, which this text leaves out.\n"
    )


def test_nothing_to_do_is_said() -> None:
    assert plan_as_text(Plan(()), TRADING, str) == "There is nothing to do.\n"


@pytest.mark.parametrize(
    ("duration_ms", "words"),
    [
        (0, "0 ms"),
        (999, "999 ms"),
        (1000, "1 s"),
        (59_400, "59 s"),
        (59_600, "1 min"),
        (130_000, "2 min 10 s"),
        (3_600_000, "1 h"),
        (3_905_000, "1 h 5 min"),
    ],
)
def test_durations_have_two_units_at_most(duration_ms: int, words: str) -> None:
    assert duration_in_words(duration_ms) == words


@settings(max_examples=60, deadline=None)
@given(cases())
def test_every_step_is_told_once_after_those_it_waits_for(case: Case) -> None:
    plan = plan_restart(case.graph, case.conditions, set(case.conditions))
    told = [line.split(",")[0].rstrip(".") for line in plan_as_text(plan, case.graph, str).splitlines()]
    numbered = [re.sub(r"^\d+\. ", "", line).lower() for line in told if re.match(r"\d+\. ", line)]

    place = {line: number for number, line in enumerate(numbered)}
    assert len(place) == len(numbered) == len(plan.steps)
    for step in plan.steps:
        for node, action in step.after:
            assert place[f"{action} {node}"] < place[f"{step.action} {step.node}"]


ARROW = re.compile(r"^  s(\d+) --> s(\d+)$", re.MULTILINE)


@settings(max_examples=60, deadline=None)
@given(cases())
def test_arrows_say_the_whole_order_and_no_more_than_needed(case: Case) -> None:
    plan = plan_restart(case.graph, case.conditions, set(case.conditions))
    place = {step.key: number for number, step in enumerate(plan.steps)}
    drawn = {(int(later), int(before)) for before, later in ARROW.findall(plan_as_mermaid(plan.steps, str))}
    whole = reachable({(place[step.key], place[before]) for step in plan.steps for before in step.after})

    assert reachable(drawn) == whole
    for pair in drawn:
        assert reachable(drawn - {pair}) != whole, "an arrow that others imply"


def test_names_cannot_break_out_of_their_boxes() -> None:
    evil = 'a"]:::stop\n  click s0 "javascript:alert(1)" %% `x` <b>é;'
    text = plan_as_mermaid([PlannedStep("x", START)], lambda _: evil)
    [box] = [line for line in text.splitlines() if line.startswith("  s0")]

    inside = re.fullmatch(r'  s0\["start (.*)"\]:::start', box)
    assert inside is not None
    assert not re.search(r'["<>`%\[\]:\n]', inside[1])
    assert re.sub(r"#(\d+);", lambda match: chr(int(match[1])), inside[1]) == evil


def test_large_diagrams_stay_within_what_mermaid_draws_and_say_what_is_cut() -> None:
    names = [f"component-with-a-rather-long-name-{number:04}" for number in range(2000)]
    wide = Graph(names, [])
    dense = Graph(names[:500], [Edge(a, b) for i, a in enumerate(names[:500]) for b in names[max(0, i - 3) : i]])
    many = Graph(names[:300], [Edge(a, b) for a in names[150:300] for b in names[:150]])
    for graph in (wide, dense, many):
        plan = plan_start(graph, dict.fromkeys(graph.nodes, Condition.DOWN), graph.nodes)
        text = plan_as_mermaid(plan.steps, str, critical=[plan.steps[0].key, plan.steps[-1].key])
        shown = len(re.findall(r"^  s\d+\[", text, re.MULTILINE))
        cut = re.search(r"… and (\d+) of (\d+) steps", text)
        assert len(text) < 50_000
        assert len(ARROW.findall(text)) <= MAX_ARROWS < 500
        assert MAX_CHARACTERS < 50_000
        if shown < len(plan.steps):
            assert cut is not None
            assert (int(cut[1]), int(cut[2])) == (len(plan.steps) - shown, len(plan.steps))
        else:
            assert cut is None
        # Nothing is drawn of a step that is not there.
        assert max(int(number) for number in re.findall(r"\bs(\d+)\b", text)) == shown - 1


def test_a_chain_of_400_steps_is_drawn_whole() -> None:
    names = [f"n{number}" for number in range(400)]
    chain = Graph(names, [Edge(upper, lower) for lower, upper in pairwise(names)])
    plan = plan_start(chain, dict.fromkeys(names, Condition.DOWN), names)
    assert "… and" not in plan_as_mermaid(plan.steps, str)
