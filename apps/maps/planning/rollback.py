"""Undoing what a plan has done so far."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from apps.maps.planning.graph import Edge, Graph, K
from apps.maps.planning.plans import Plan, PlannedStep, StepAction

INVERSES = {StepAction.START: StepAction.STOP, StepAction.STOP: StepAction.START}


def plan_rollback(steps: Sequence[PlannedStep[K]], succeeded: Collection[tuple[K, StepAction]]) -> Plan[K]:
    """The inverse of every step that succeeded, in reverse order.

    - What was stopped and started again is as it was: nothing of it is undone. Nor is a restart in one command.
    - A step that failed, or of which nobody knows how it ended, has no inverse: it may have done half of its work.
      If it was the start of something that this plan stopped before, that is started once more.
    - The order holds also across steps that have no inverse: if c waited for b and b for a, a's inverse waits for c's.
    """
    done = set(succeeded)
    undone = [
        step.key
        for step in steps
        if step.key in done and step.action in INVERSES and (step.node, INVERSES[step.action]) not in done
    ]
    keys = [step.key for step in steps]
    known = set(keys)
    waits = Graph(keys, (Edge(step.key, before) for step in steps for before in step.after if before in known))
    return Plan(
        tuple(
            PlannedStep(node, INVERSES[action], frozenset((other, INVERSES[was]) for other, was in befores))
            for (node, action), befores in waits.stop_order(undone).items()
        ),
        frozenset(node for node, _ in undone),
    )
