"""How long to wait between attempts."""

from __future__ import annotations

from itertools import islice

import pytest

from opsmap_daemon.backoff import Reconnect


def test_delays_grow_to_the_maximum() -> None:
    reconnect = Reconnect(initial_delay_ms=1_000, max_delay_ms=5_000, multiplier=2.0)
    assert list(islice(reconnect.delays(lambda: 1.0), 5)) == [1.0, 2.0, 4.0, 5.0, 5.0]


def test_jitter_takes_up_to_half_away() -> None:
    reconnect = Reconnect(initial_delay_ms=1_000, max_delay_ms=5_000, multiplier=2.0)
    assert list(islice(reconnect.delays(lambda: 0.0), 3)) == [0.5, 1.0, 2.0]


def test_two_daemons_differ() -> None:
    reconnect = Reconnect()
    assert list(islice(reconnect.delays(), 5)) != list(islice(reconnect.delays(), 5))


def test_maximum_below_the_beginning_is_refused() -> None:
    with pytest.raises(ValueError, match="max_delay_ms is smaller"):
        Reconnect(initial_delay_ms=10, max_delay_ms=9)
