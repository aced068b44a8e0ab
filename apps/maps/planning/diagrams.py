"""A plan as a Mermaid diagram, for pages, tickets and wikis that draw it.

Mermaid refuses a text of more than 50,000 characters or 500 arrows (`maxTextSize` and `maxEdges` of its configuration),
and draws an error in its place. So arrows that others imply are left out, and of what is still too much the last steps:
one box says how many.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

from apps.maps.planning.graph import K
from apps.maps.planning.plans import PlannedStep, StepAction

MAX_CHARACTERS = 45_000
MAX_ARROWS = 450
"""Some way below Mermaid's own limits: what embeds the diagram adds something."""

_MAX_NAME = 80
_PLAIN = re.compile(r"[^\w .,/@+()-]", re.ASCII)
_COLOURS = {
    StepAction.START: "fill:#dcfce7,stroke:#15803d,color:#14532d",
    StepAction.STOP: "fill:#fee2e2,stroke:#b91c1c,color:#7f1d1d",
    StepAction.RESTART: "fill:#fef3c7,stroke:#b45309,color:#78350f",
}


def plan_as_mermaid(
    steps: Sequence[PlannedStep[K]],
    name_of: Callable[[K], str],
    *,
    critical: Collection[tuple[K, StepAction]] = (),
) -> str:
    """A flowchart from what begins first to what ends last; `critical` steps have a thick border."""
    boxes: list[str] = []
    arrows: list[str] = []
    length = 0
    number = {step.key: index for index, step in enumerate(steps)}
    for index, (step, direct) in enumerate(zip(steps, _direct(steps, number), strict=True)):
        box = f'  s{index}["{step.action} {_escaped(name_of(step.node))}"]:::{step.action}'
        incoming = [f"  s{before} --> s{index}" for before in direct]
        length += sum(len(line) + 1 for line in (box, *incoming))
        if length > MAX_CHARACTERS or len(arrows) + len(incoming) > MAX_ARROWS:
            break
        boxes.append(box)
        arrows += incoming
    shown = len(boxes)
    lines = ["flowchart LR", *boxes, *arrows, *_left_out(steps, shown)]
    lines += [f"  classDef {action} {colour}" for action, colour in _COLOURS.items()]
    thick = [number[key] for key in critical if number.get(key, shown) < shown]
    if thick:
        lines += [
            f"  class {','.join(f's{index}' for index in thick)} critical",
            "  classDef critical stroke-width:4px",
        ]
    return "\n".join(lines) + "\n"


def _left_out(steps: Sequence[PlannedStep[K]], shown: int) -> Iterable[str]:
    if shown < len(steps):
        yield f'  more["… and {len(steps) - shown} of {len(steps)} steps that this diagram has no room for"]'


def _direct(steps: Sequence[PlannedStep[K]], number: dict[tuple[K, StepAction], int]) -> Iterator[list[int]]:
    """For each step those it waits for, less those that another of these waits for anyway."""
    # What each step waits for directly or not, one bit for each.
    waits: list[int] = []
    for step in steps:
        befores = sorted(number[key] for key in step.after if key in number)
        implied = 0
        for before in befores:
            implied |= waits[before]
        yield [before for before in befores if not implied >> before & 1]
        for before in befores:
            implied |= 1 << before
        waits.append(implied)


def _escaped(name: str) -> str:
    """As text between double quotes: anything that Mermaid could take for its own becomes a character code."""
    short = name if len(name) <= _MAX_NAME else name[: _MAX_NAME - 1] + "…"
    return _PLAIN.sub(lambda match: f"#{ord(match[0])};", short)
