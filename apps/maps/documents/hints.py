"""The word a person probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Collection

_MAX_LENGTH = 80
_MAX_CANDIDATES = 500
"""Comparing is quadratic in the length of words: a Map of 50,000 components must not be compared with each typo."""


def nearest(word: str, known: Collection[str]) -> str | None:
    """The known word most like this one, or None if none is: `health_check` is like `healthcheck`."""
    if len(word) > _MAX_LENGTH:
        return None
    folded = _folded(word)
    for candidate in known:
        if _folded(candidate) == folded:
            return candidate
    if len(known) > _MAX_CANDIDATES:
        return None
    return next(iter(difflib.get_close_matches(word, known, n=1, cutoff=0.6)), None)


def with_hint(expected: str, word: str, known: Collection[str]) -> str:
    """`one of host, type (perhaps 'host')`."""
    found = nearest(word, known)
    return f"{expected} (perhaps {found!r})" if found else expected


def _folded(word: str) -> str:
    return word.lower().replace("_", "").replace("-", "")
