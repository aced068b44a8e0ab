"""A plan in words: what a person reads aloud at night to somebody who types, or to whoever must agree."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from apps.maps.planning.durations import PlanPrediction, find_levels
from apps.maps.planning.graph import Graph, K
from apps.maps.planning.plans import Plan, PlannedStep, StepAction

MAX_TOLD_STEPS = 1000
_MAX_REASONS = 3
_MAX_PATH = 10
_DONE = {StepAction.START: "runs", StepAction.STOP: "has stopped", StepAction.RESTART: "has restarted"}


def plan_as_text(
    plan: Plan[K],
    graph: Graph[K],
    name_of: Callable[[K], str],
    prediction: PlanPrediction[K] | None = None,
    *,
    max_steps: int = MAX_TOLD_STEPS,
) -> str:
    """Numbered lines: what begins at once, what waits, for what, and why. Steps beyond `max_steps` are only counted."""
    if not plan.steps:
        return "There is nothing to do.\n"
    levels = find_levels(plan.steps)
    # Stable: within a level the order of the plan.
    ordered = sorted(plan.steps, key=lambda step: levels[step.key])
    first = [step for step in ordered if levels[step.key] == 1]
    later = ordered[len(first) :]
    lines = [_summary(plan, max(levels.values())), _duration(prediction), ""]
    lines.append("These begin at once, together:" if len(first) > 1 else "This begins at once:")
    lines += [
        f"{number}. {_capitalized(_act(step, name_of))}." for number, step in enumerate(first[:max_steps], start=1)
    ]
    if later and len(first) < max_steps:
        lines += ["", "Each of these begins as soon as what it waits for is done:"]
        for number, step in enumerate(later[: max_steps - len(first)], start=len(first) + 1):
            lines.append(f"{number}. {_capitalized(_act(step, name_of))}, once {_reasons(step, graph, name_of)}.")
    if len(ordered) > max_steps:
        lines.append(f"… and {len(ordered) - max_steps} more steps, which this text leaves out.")
    if prediction is not None and len(prediction.path) > 1:
        lines += ["", f"What takes longest: {_path(prediction, name_of)}."]
    return "\n".join(lines) + "\n"


def duration_in_words(duration_ms: int) -> str:
    """Two units at most: "850 ms", "4 s", "2 min 10 s", "1 h 5 min"."""
    if duration_ms < 1000:
        return f"{duration_ms} ms"
    seconds = round(duration_ms / 1000)
    if seconds < 60:
        return f"{seconds} s"
    minutes, seconds = divmod(seconds, 60)
    if minutes < 60:
        return f"{minutes} min {seconds} s" if seconds else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def _summary(plan: Plan[K], depth: int) -> str:
    components = len(plan.nodes)
    return f"{_count(len(plan.steps), 'step')} on {_count(components, 'component')}, at most {depth} one after another."


def _duration(prediction: PlanPrediction[K] | None) -> str:
    if prediction is None:
        return "How long it takes is not known yet: not every step has a history."
    usual, slow = duration_in_words(prediction.p50_ms), duration_in_words(prediction.p90_ms)
    return f"It takes about {usual}, and nine times in ten less than {slow}."


def _reasons(step: PlannedStep[K], graph: Graph[K], name_of: Callable[[K], str]) -> str:
    befores = sorted(step.after, key=lambda key: (key[0] != step.node, name_of(key[0])))
    told = [
        f"{name_of(node)} {_DONE[action]}{_why(step, node, graph, name_of)}" for node, action in befores[:_MAX_REASONS]
    ]
    if len(befores) > _MAX_REASONS:
        told.append(f"{_count(len(befores) - _MAX_REASONS, 'more step')} ended")
    return _listed(told)


def _why(step: PlannedStep[K], other: K, graph: Graph[K], name_of: Callable[[K], str]) -> str:
    """Why a step waits for one on another component: who needs whom, and through whom."""
    if other == step.node:
        return ""
    upper, lower = (other, step.node) if step.action is StepAction.STOP else (step.node, other)
    way = graph.find_way(upper, lower)
    if way is None:
        return ""
    between = [name_of(node) for node in way[1:-1]]
    through = f" through {', '.join(between[:_MAX_REASONS])}" if between else ""
    return f" ({name_of(upper)} needs {name_of(lower)}{through})"


def _path(prediction: PlanPrediction[K], name_of: Callable[[K], str]) -> str:
    told = [f"{action} {name_of(node)}" for node, action in prediction.path]
    if len(told) > _MAX_PATH:
        left_out = len(told) - _MAX_PATH
        told[_MAX_PATH // 2 : -_MAX_PATH // 2] = [f"{left_out} more"]
    return ", then ".join(told)


def _act(step: PlannedStep[K], name_of: Callable[[K], str]) -> str:
    return f"{step.action} {name_of(step.node)}"


def _capitalized(text: str) -> str:
    return text[:1].upper() + text[1:]


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


def _listed(parts: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(parts[:-1]), parts[-1]]))
