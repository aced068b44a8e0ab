"""Recording how long succeeded steps took, and predictions made of it ahead of time: plans only read them."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable, Iterator
from itertools import groupby

from django.db import connection, transaction
from django.db.models import F, QuerySet

from apps.maps.planning.prediction import History, Run
from apps.operations.enums import StepState
from apps.operations.models import ActionDuration, Step

_Took = tuple[uuid.UUID, str, int]
"""Component, action, and duration in milliseconds."""

_BATCH = 1_000


def record_durations(step_ids: Collection[uuid.UUID]) -> None:
    """Those of these steps that succeeded count from now on. Their Map is locked by the caller."""
    took = list(_took(Step.objects.filter(pk__in=step_ids)))
    if not took:
        return
    known = ActionDuration.objects.filter(component_id__in={component_id for component_id, _, _ in took})
    histories = {(row.component_id, row.action): history_of(row) for row in known}
    for component_id, action, duration_ms in took:
        histories[component_id, action] = histories.get((component_id, action), History()).after(duration_ms)
    _store((key, histories[key]) for key in dict.fromkeys((component_id, action) for component_id, action, _ in took))


@transaction.atomic
def rebuild_durations() -> int:
    """Make every duration anew from the steps there are. Returns how many actions of components have a history.

    Steps that are settled meanwhile wait until it is done.
    """
    with connection.cursor() as cursor:
        cursor.execute(f"LOCK TABLE {ActionDuration._meta.db_table} IN SHARE ROW EXCLUSIVE MODE")
    ActionDuration.objects.all().delete()
    count = 0
    rebuilt = []
    for key, steps in groupby(_took(Step.objects.all()), key=lambda took: took[:2]):
        history = History()
        for _, _, duration_ms in steps:
            history = history.after(duration_ms)
        rebuilt.append((key, history))
        count += 1
        if len(rebuilt) == _BATCH:
            _store(rebuilt)
            rebuilt = []
    _store(rebuilt)
    return count


def history_of(row: ActionDuration) -> History:
    return History([Run(duration_ms, error) for duration_ms, error in row.runs])


def _took(steps: QuerySet[Step]) -> Iterator[_Took]:
    """The durations of those that succeeded, of each action of each component in the order in which they ended."""
    ended = steps.filter(
        state=StepState.SUCCEEDED, component__isnull=False, started_at__isnull=False, finished_at__isnull=False
    )
    rows = (
        ended.annotate(took=F("finished_at") - F("started_at"))
        .order_by("component_id", "action", "finished_at", "pk")
        .values_list("component_id", "action", "took")
    )
    for component_id, action, took in rows.iterator(chunk_size=_BATCH):
        yield component_id, action, max(0, round(took.total_seconds() * 1000))


def _store(histories: Iterable[tuple[tuple[uuid.UUID, str], History]]) -> None:
    rows = []
    for (component_id, action), history in histories:
        prediction = history.predict()
        assert prediction is not None, "a history that has a run predicts"
        rows.append(
            ActionDuration(
                component_id=component_id,
                action=action,
                runs=[[run.duration_ms, run.error] for run in history.runs],
                p50_ms=prediction.p50_ms,
                p90_ms=prediction.p90_ms,
            )
        )
    ActionDuration.objects.bulk_create(
        rows,
        update_conflicts=True,
        unique_fields=["component", "action"],
        update_fields=["runs", "p50_ms", "p90_ms"],
        batch_size=_BATCH,
    )
