"""Patterns that documents may ask values to match: regular expressions without those that can take for ever.

A pattern comes from whoever may edit a Map, and the value from whoever runs an action. Python's matcher tries every way
to share a text between repetitions, so their number is what costs: few are allowed, and none within another.
"""

from __future__ import annotations

import re
from functools import lru_cache

MAX_REPETITIONS = 3
MAX_MATCHED_CHARACTERS = 256
"""The longest value that is matched. Three repetitions over it are some millions of steps, a tenth of a second."""

_ATOM = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|.", re.DOTALL)
_REPEAT = re.compile(r"[*+?]|\{\d*,?\d*\}")
_SPECIAL_GROUP = re.compile(r"\(\?(?!:)")
_BACK_REFERENCE = re.compile(r"\\[1-9]")


def pattern_fault(pattern: str) -> str | None:
    """Why this pattern is not taken, or None."""
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        return f"{error}"
    variable = 0
    after_group = False
    position = 0
    while position < len(pattern):
        repeat = _REPEAT.match(pattern, position) if position else None
        if repeat:
            if after_group:
                return "a group that is repeated"
            variable += "," in repeat[0] or repeat[0] in {"*", "+"}
            position, after_group = repeat.end(), False
            # A second sign only says how the first one is tried: lazily, or without going back.
            position += pattern[position : position + 1] in {"?", "+"}
            continue
        atom = _ATOM.match(pattern, position)
        assert atom is not None
        if _SPECIAL_GROUP.match(pattern, position) or _BACK_REFERENCE.match(atom[0]):
            return "a look around, a back reference or a flag"
        after_group = atom[0] == ")"
        position = atom.end()
    return f"{variable} repetitions" if variable > MAX_REPETITIONS else None


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


def matches(pattern: str, value: str) -> bool:
    """Whether the whole value is as the pattern says. The pattern has no fault."""
    return len(value) <= MAX_MATCHED_CHARACTERS and _compiled(pattern).fullmatch(value) is not None
