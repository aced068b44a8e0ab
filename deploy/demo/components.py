"""The table of the demonstration: what runs, what it needs, and how long it loads before it answers.

The documents under `documents/` repeat the dependencies, as a person would write them; a test holds the two
together.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


class Kind(Enum):
    POSTGRESQL = "postgresql"
    VALKEY = "valkey"
    SERVICE = "service"


class Component(NamedTuple):
    """One process of the demonstration. `needs` are strong dependencies, `uses` weak ones."""

    name: str
    kind: Kind
    warm_up_s: float = 0.0
    needs: tuple[str, ...] = ()
    uses: tuple[str, ...] = ()


_TABLE = (
    Component("postgresql", Kind.POSTGRESQL),
    Component("redis-cache", Kind.VALKEY),
    Component("order-queue", Kind.VALKEY),
    Component("reference-data", Kind.SERVICE, 1.5, needs=("postgresql",)),
    Component("market-data", Kind.SERVICE, 2.0, needs=("redis-cache",)),
    Component("pricing", Kind.SERVICE, 1.5, needs=("market-data",), uses=("reference-data",)),
    Component("risk-engine", Kind.SERVICE, 2.5, needs=("pricing", "reference-data")),
    Component("order-book", Kind.SERVICE, 1.5, needs=("order-queue", "postgresql")),
    Component("matching-engine", Kind.SERVICE, 2.0, needs=("order-book", "risk-engine")),
    Component("settlement", Kind.SERVICE, 3.0, needs=("order-queue", "postgresql")),
    Component("reporting", Kind.SERVICE, 4.0, needs=("postgresql",), uses=("settlement",)),
    Component("trading-api", Kind.SERVICE, 1.5, needs=("matching-engine", "redis-cache")),
    Component("web-frontend", Kind.SERVICE, 1.0, needs=("trading-api",)),
    Component("ops-dashboard", Kind.SERVICE, 1.0, needs=("market-data",), uses=("reporting", "trading-api")),
)

COMPONENTS: dict[str, Component] = {component.name: component for component in _TABLE}
