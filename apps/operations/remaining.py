"""How much longer a running operation takes, as of the last step that began or ended.

As of then and not of now, so that it is the same for whoever asks, by whatever way, until something happens: a browser
counts down from `remainingAt`.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from apps.maps.planning.durations import PlanPrediction, predict_plan
from apps.maps.planning.plans import PlannedStep, StepAction
from apps.maps.planning.prediction import Prediction
from apps.operations.enums import OperationState, StepState
from apps.operations.models import Operation, Step
from apps.operations.selectors import get_predictions

_OPEN = frozenset({StepState.WAITING, StepState.RUNNING})
_Key = tuple[uuid.UUID, StepAction]


def describe_remaining(operation: Operation, steps: Sequence[Step]) -> dict[str, Any]:
    """Remaining times in milliseconds: the usual one, and the one that is not exceeded nine times in ten.

    Null if the operation does not run, or if a step that is left has never been done before. One query if it runs.
    """
    at, left = None, None
    if operation.state == OperationState.RUNNING and any(step.state in _OPEN for step in steps):
        moments = [moment for step in steps for moment in (step.started_at, step.finished_at) if moment is not None]
        at = max(moments, default=operation.created_at)
        left = _predict_left(steps, at, operation.max_parallel)
    return {
        "remainingMs": left.p50_ms if left else None,
        "remainingP90Ms": left.p90_ms if left else None,
        "remainingAt": at if left else None,
    }


def _predict_left(steps: Sequence[Step], at: datetime, max_parallel: int | None) -> PlanPrediction[uuid.UUID] | None:
    # Steps stand for themselves here: rolling back, the same component has several of one action.
    actions = {step.pk: StepAction(step.action) for step in steps}
    planned = {step.pk: _planned(step, actions) for step in steps}
    waiting = [step for step in steps if step.state in _OPEN]
    known = get_predictions(step.component_id for step in waiting if step.component_id is not None)
    predictions: dict[_Key, Prediction] = {}
    for step in waiting:
        action = actions[step.pk]
        if step.component_id is not None and (found := known.get((step.component_id, action))):
            predictions[step.pk, action] = found
    return predict_plan(
        list(planned.values()),
        predictions,
        max_parallel=max_parallel,
        ended={planned[step.pk].key for step in steps if step.state not in _OPEN},
        elapsed_ms={
            planned[step.pk].key: (at - step.started_at) // timedelta(milliseconds=1)
            for step in waiting
            if step.state == StepState.RUNNING and step.started_at is not None
        },
    )


def _planned(step: Step, actions: Mapping[uuid.UUID, StepAction]) -> PlannedStep[uuid.UUID]:
    after = frozenset((order.before_id, actions[order.before_id]) for order in step.orders_before.all())
    return PlannedStep(step.pk, actions[step.pk], after)
