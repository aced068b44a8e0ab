"""Operations that have ended, with the durations that predictions rest on, and changes of states."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta

from apps.maps.enums import ComponentState as S
from apps.maps.models import Component, Map
from apps.maps.planning.durations import schedule
from apps.maps.planning.graph import Edge, Graph
from apps.maps.planning.plans import Plan, StepAction, plan_restart
from apps.operations.actions.durations import record_durations
from apps.operations.demonstration.landscape import Landscape
from apps.operations.enums import Cause, OperationKind, OperationState, StepState
from apps.operations.models import Operation, StateChange, Step, StepOrder
from apps.orgs.models import User

BATCH = 2_000
_SPREAD = 0.25
"""Of the logarithm of durations."""
_HOURS_BETWEEN = 30
_REASONS = ("New version", "Monthly patches", "Memory leak", "Certificate renewed", "Configuration changed")


def write_history(
    draw: random.Random,
    map: Map,
    owner: User,
    landscape: Landscape,
    components: Sequence[Component],
    *,
    runs: int,
    now: datetime,
) -> None:
    """`runs` restarts, each of a whole domain, one domain after the other, the last one some hours ago."""
    graph = Graph(range(len(components)), (Edge(*link) for link in landscape.dependencies))
    members: dict[int, list[int]] = {}
    for place, draft in enumerate(landscape.components):
        members.setdefault(draft.domain, []).append(place)
    # How each differs from its kind, always alike.
    pace = [math.exp(draw.gauss(0, 0.4)) for _ in components]
    for run in range(runs if members else 0):
        chosen = members[run % len(members)]
        plan = plan_restart(graph, {}, chosen)
        durations_ms = {}
        for place, action in (step.key for step in plan.steps):
            kind = landscape.components[place].kind
            usual_ms = (kind.start_ms if action is StepAction.START else kind.stop_ms) * pace[place]
            durations_ms[place, action] = round(usual_ms * math.exp(draw.gauss(0, _SPREAD)))
        began_at = now - timedelta(hours=_HOURS_BETWEEN * (runs - run) - 24, minutes=draw.randrange(60))
        _write_run(map, owner, components, plan, durations_ms, began_at, draw.choice(_REASONS))


def _write_run(
    map: Map,
    owner: User,
    components: Sequence[Component],
    plan: Plan[int],
    durations_ms: Mapping[tuple[int, StepAction], int],
    began_at: datetime,
    reason: str,
) -> None:
    timed = schedule(plan.steps, durations_ms)
    ended_at = began_at + timedelta(milliseconds=max(step.ends_ms for step in timed.values()))
    names = sorted(components[place].name for place in plan.roots)
    operation = Operation.objects.create(
        organization_id=map.organization_id,
        map=map,
        kind=OperationKind.RESTART,
        target=", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else ""),
        reason=reason,
        state=OperationState.SUCCEEDED,
        requested_by=owner,
        finished_at=ended_at,
        version=map.version,
    )
    Operation.objects.filter(pk=operation.pk).update(created_at=began_at)
    steps = {}
    for position, planned in enumerate(plan.steps):
        place, action = planned.key
        steps[planned.key] = Step(
            operation_id=operation.pk,
            component_id=components[place].pk,
            component_name=components[place].name,
            action=action,
            position=position,
            state=StepState.SUCCEEDED,
            started_at=began_at + timedelta(milliseconds=timed[planned.key].begins_ms),
            finished_at=began_at + timedelta(milliseconds=timed[planned.key].ends_ms),
        )
    Step.objects.bulk_create(steps.values(), batch_size=BATCH)
    StepOrder.objects.bulk_create(
        (
            StepOrder(step_id=steps[step.key].pk, before_id=steps[before].pk)
            for step in plan.steps
            for before in step.after
        ),
        batch_size=BATCH,
    )
    record_durations([step.pk for step in steps.values()])
    _write_state_changes(steps.values())


def _write_state_changes(steps: Iterable[Step]) -> None:
    """What the steps did to their components."""
    changes = []
    for step in steps:
        assert step.component_id is not None
        assert step.started_at is not None
        assert step.finished_at is not None
        sent, done = _CHANGES[StepAction(step.action)]
        for (previous, state), at in ((sent, step.started_at), (done, step.finished_at)):
            changes.append(
                StateChange(component_id=step.component_id, previous=previous, state=state, cause=Cause.JOB, at=at)
            )
    wanted = [change.at for change in changes]
    StateChange.objects.bulk_create(changes, batch_size=BATCH)
    # The database row says when it was written, whatever it was given.
    for change, at in zip(changes, wanted, strict=True):
        change.at = at
    StateChange.objects.bulk_update(changes, ["at"], batch_size=BATCH)


_CHANGES = {
    StepAction.STOP: ((S.RUNNING, S.STOPPING), (S.STOPPING, S.STOPPED)),
    StepAction.START: ((S.STOPPED, S.STARTING), (S.STARTING, S.RUNNING)),
}
