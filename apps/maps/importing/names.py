"""Names that a Map can have, from whatever something is called elsewhere."""

from __future__ import annotations

import re
import unicodedata

_MAX_LENGTH = 120
_NOT_ALLOWED = re.compile(r"[^a-z0-9._-]+")


def component_name(text: str) -> str:
    """The nearest name of a component (see `documents.schema.parts.NAME`): `Café Web` is `cafe-web`. Never empty."""
    plain = unicodedata.normalize("NFKD", text[:500]).encode("ascii", "ignore").decode().lower()
    return _NOT_ALLOWED.sub("-", plain).strip("-._")[:_MAX_LENGTH].strip("-._") or "component"


class Names:
    """Gives each thing a name of its own, always the same for the same key."""

    def __init__(self) -> None:
        self._by_key: dict[str, str] = {}
        self._taken: set[str] = set()
        self._next: dict[str, int] = {}

    def name_for(self, key: str, wish: str | None = None) -> str:
        if key not in self._by_key:
            self._by_key[key] = self._free(component_name(wish or key))
        return self._by_key[key]

    def _free(self, wish: str) -> str:
        name = wish
        while name in self._taken:
            # Ten thousand things of one name must not each try all the numbers before.
            number = self._next.get(wish, 2)
            self._next[wish] = number + 1
            name = f"{wish[: _MAX_LENGTH - len(str(number)) - 1]}-{number}"
        self._taken.add(name)
        return name
