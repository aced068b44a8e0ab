"""Durations: recorded with the step that settles, the same when made anew, and told while an operation runs."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.core.management import call_command
from django.db import transaction
from django.utils import timezone

from apps.gateways.tests.factories import failing_audit
from apps.maps.planning.plans import StepAction
from apps.operations.enums import OperationKind
from apps.operations.models import ActionDuration, Operation, Step
from apps.operations.payloads import describe_operation
from apps.operations.selectors import get_predictions, with_steps
from apps.operations.tests.factories import Stage

START, STOP = OperationKind.START, OperationKind.STOP


def took(operation: Operation, step: str, seconds: float) -> None:
    """The step has been running for so long."""
    action, _, name = step.partition(" ")
    began = timezone.now() - timedelta(seconds=seconds)
    Step.objects.filter(operation=operation, action=action, component_name=name).update(started_at=began)


def run(stage: Stage, kind: OperationKind, name: str, seconds: float) -> None:
    operation = stage.start(kind, name)
    took(operation, f"{kind} {name}", seconds)
    stage.succeed(operation, f"{kind} {name}")


def rows() -> list[tuple[Any, ...]]:
    return list(
        ActionDuration.objects.order_by("component__name", "action").values_list(
            "component__name", "action", "runs", "p50_ms", "p90_ms"
        )
    )


def shown(operation: Operation) -> dict[str, Any]:
    return describe_operation(with_steps(Operation.objects.filter(pk=operation.pk)).get())


def test_a_step_that_succeeds_is_a_run_of_its_component_and_action(stage: Stage) -> None:
    run(stage, START, "db", 2)
    run(stage, STOP, "db", 1)
    run(stage, START, "db", 4)
    db = stage.component("db").pk
    predicted = get_predictions([db])
    assert set(predicted) == {(db, StepAction.START), (db, StepAction.STOP)}
    assert predicted[db, StepAction.START].runs == 2
    assert 2000 <= predicted[db, StepAction.START].p50_ms <= 4100
    assert predicted[db, StepAction.STOP].p50_ms == pytest.approx(1000, abs=200)


def test_what_failed_says_nothing_of_how_long_it_takes(stage: Stage) -> None:
    operation = stage.start(START, "db")
    stage.fail(operation, "start db")
    assert rows() == []


def test_a_run_is_not_kept_if_the_step_is_not(stage: Stage) -> None:
    operation = stage.start(START, "db")
    with failing_audit(), pytest.raises(Exception, match="no_more_events"), transaction.atomic():
        stage.succeed(operation, "start db")
    assert rows() == []
    assert stage.steps(operation) == {"start db": "running"}


def test_made_anew_from_the_steps_they_are_the_same(stage: Stage) -> None:
    for seconds in (2, 3, 2.5, 30, 2):
        run(stage, START, "db", seconds)
        run(stage, STOP, "db", seconds / 2)
    stage.set_states({"cache": "stopped"})
    run(stage, START, "cache", 1)
    recorded = rows()
    assert len(recorded) == 3
    ActionDuration.objects.filter(action="stop").delete()
    ActionDuration.objects.update(p50_ms=0, runs=[[1, None]])
    call_command("rebuild_durations")
    assert rows() == recorded


def test_the_remaining_time_follows_the_steps(stage: Stage) -> None:
    for name, seconds in (("db", 4), ("cache", 2), ("queue", 1), ("web", 3)):
        run(stage, START, name, seconds)
    stage.set_states(others="stopped")
    operation = stage.start(START)
    first = shown(operation)
    assert first["remainingMs"] == pytest.approx(4000 + 2000 + 3000, rel=0.1)
    assert first["remainingP90Ms"] > first["remainingMs"]
    assert shown(operation) == first, "as of the last event: the same for whoever asks, whenever"

    stage.succeed(operation, "start db")
    second = shown(operation)
    assert second["remainingMs"] == pytest.approx(2000 + 3000, rel=0.1)
    assert second["remainingAt"] > first["remainingAt"]

    took(operation, "start cache", 1.5)
    stage.succeed(operation, "start queue")
    assert shown(operation)["remainingMs"] < second["remainingMs"], "what has been done of a step that runs counts"

    stage.succeed(operation, "start cache", "start web")
    ended = shown(operation)
    assert (ended["state"], ended["remainingMs"], ended["remainingAt"]) == ("succeeded", None, None)


def test_without_a_history_of_every_step_that_is_left_there_is_no_remaining_time(stage: Stage) -> None:
    run(stage, START, "db", 4)
    stage.set_states(others="stopped")
    operation = stage.start(START, "cache")
    assert {key: shown(operation)[key] for key in ("remainingMs", "remainingP90Ms", "remainingAt")} == {
        "remainingMs": None,
        "remainingP90Ms": None,
        "remainingAt": None,
    }
    stage.succeed(operation, "start db")
    assert shown(operation)["remainingMs"] is None, "cache was never started before"
