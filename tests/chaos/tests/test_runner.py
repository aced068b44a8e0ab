"""Which trials there are is decided by the seed alone, and every fault has its turn."""

from __future__ import annotations

import random
from collections import Counter

from tests.chaos.faults import catalogue
from tests.chaos.runner import waves
from tests.chaos.trial import Scope

HOSTS = ["host-001", "host-002", "host-003", "host-004"]


def plan(seed: int, trials: int = 320) -> list[list[str]]:
    faults = list(catalogue().values())
    return [[fault.name for fault in wave] for wave in waves(faults, trials, HOSTS, random.Random(seed))]


def test_every_fault_has_its_turn() -> None:
    counts = Counter(name for wave in plan(1) for name in wave)
    assert sum(counts.values()) == 320
    assert set(counts) == set(catalogue())
    assert max(counts.values()) - min(counts.values()) <= 1


def test_a_wave_fits_the_hosts_and_has_one_fault_at_most_that_concerns_all() -> None:
    faults = catalogue()
    has_both = False
    for wave in plan(1):
        scopes = Counter(faults[name].scope for name in wave)
        assert scopes[Scope.HOST] <= len(HOSTS)
        assert scopes[Scope.SITE] <= 1
        has_both |= len(scopes) == 2
    assert has_both


def test_the_seed_decides() -> None:
    assert plan(7) == plan(7)
    assert plan(7) != plan(8)
