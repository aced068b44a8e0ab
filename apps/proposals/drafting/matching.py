"""Which component of a Map is the one that was found on its host."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from apps.proposals.drafting.host import DraftComponent

_WORD = re.compile(r"[A-Za-z0-9_.@:\\-]+")
_MAX_DEPTH = 12


@dataclass(frozen=True)
class Listed:
    """A component as it stands on a Map."""

    id: uuid.UUID
    technology: str
    spec: dict[str, Any]

    @cached_property
    def _values(self) -> list[Any]:
        parts = [self.spec.get(name) for name in ("commands", "healthcheck")]
        return list(_scalars(parts))

    @cached_property
    def words(self) -> frozenset[str]:
        """The words of its commands and checks, such as names of units and containers."""
        return frozenset(word for value in self._values if isinstance(value, str) for word in _WORD.findall(value))

    @cached_property
    def ports(self) -> frozenset[int]:
        """Ports that its checks ask, also those within addresses."""
        numbers = {value for value in self._values if isinstance(value, int) and not isinstance(value, bool)}
        urls = [value for value in self._values if isinstance(value, str) and "://" in value]
        in_urls = {int(port) for url in urls for port in re.findall(r"://[^/\s:]+:(\d{1,5})", url)}
        return frozenset(numbers | in_urls)


def match_components(found: Sequence[DraftComponent], listed: Iterable[Listed]) -> dict[str, Listed]:
    """By the keys of what was found, the component that it is. Each component is one thing at most.

    The surest first: by what both are controlled, then the same technology at the same port, then a technology that is
    there once here and once on the Map.
    """
    free = {each.id: each for each in listed}
    matched: dict[str, Listed] = {}

    def take(draft: DraftComponent, fitting: list[Listed]) -> None:
        if len(fitting) == 1 and draft.key not in matched:
            matched[draft.key] = fitting[0]
            del free[fitting[0].id]

    for draft in found:
        take(draft, [each for each in free.values() if _has_same_control(draft, each)])
    for draft in found:
        at_port = [each for each in free.values() if each.ports.intersection(draft.ports)]
        take(draft, [each for each in at_port if each.technology == draft.technology or not draft.technology])
    for draft in found:
        alike = [each for each in found if each.technology == draft.technology and each.key not in matched]
        if draft.technology and len(alike) == 1:
            take(draft, [each for each in free.values() if each.technology == draft.technology])
    return matched


def _has_same_control(draft: DraftComponent, listed: Listed) -> bool:
    if draft.container is not None:
        return draft.container[1] in listed.words
    unit = draft.unit
    return bool(unit) and (unit in listed.words or unit.removesuffix(".service") in listed.words)


def _scalars(value: Any, depth: int = 0) -> Iterable[Any]:
    if depth > _MAX_DEPTH:
        return
    if isinstance(value, dict):
        for item in value.values():
            yield from _scalars(item, depth + 1)
    elif isinstance(value, list):
        for item in value:
            yield from _scalars(item, depth + 1)
    else:
        yield value
