"""How often somebody has tried, by address: a few times a minute, and no more."""

from __future__ import annotations

import ipaddress
import time
from collections import Counter
from collections.abc import Callable

_WINDOW_S = 60.0
_IPV6_PREFIX = 64
"""So much of an address is one customer of a provider."""


class Attempts:
    """Counts in windows of a minute.

    Args:
        per_address: attempts of one address, or of one /64 network, in a window.
        in_all: attempts of all together; bounds the memory too.
        clock: seconds that only grow, for tests.
    """

    def __init__(
        self, *, per_address: int = 20, in_all: int = 600, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._per_address = per_address
        self._in_all = in_all
        self._clock = clock
        self._counts: Counter[str] = Counter()
        self._ends_at = clock() + _WINDOW_S

    def count(self, address: str) -> bool:
        """Whether one more is allowed."""
        now = self._clock()
        if now >= self._ends_at:
            self._counts.clear()
            self._ends_at = now + _WINDOW_S
        source = _source(address)
        if self._counts[source] >= self._per_address or self._counts.total() >= self._in_all:
            return False
        self._counts[source] += 1
        return True


def _source(address: str) -> str:
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is None:
        return str(ipaddress.ip_network((found, _IPV6_PREFIX), strict=False))
    return str(found)
