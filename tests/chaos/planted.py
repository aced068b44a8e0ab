"""The test of the test: with a fault built into the product, the judge must find what it does."""

from __future__ import annotations

from datetime import timedelta

from tests.chaos.checker import Wrong
from tests.chaos.faults import catalogue
from tests.chaos.load import KINDS
from tests.chaos.runner import Outcome, Runner, say
from tests.chaos.site import Site

PLANTED = (
    ("no-dedupe", ("duplicate-agent", "replay-agent"), Wrong.TWICE),
    ("ack-before-commit", ("cut-agent",), Wrong.UNDECIDED),
)
"""What is built in, the trials that must show it, and what the judge must then say."""

_TRIALS = 4
_DELIVERY_S = 3.0
_GRACE = timedelta(seconds=5)
"""Shorter than for the product as it is: these commands are not going to be decided."""


_KINDS = tuple(kind for kind in KINDS if not kind.is_job)
"""A job is also kept from running twice by the claim of its shim, whatever its agent forgets."""


def are_planted_faults_found(seed: int) -> bool:
    found = [_is_found(plant, names, wrong, seed) for plant, names, wrong in PLANTED]
    return all(found)


def run_planted(plant: str, names: tuple[str, ...], seed: int) -> Outcome:
    """A few trials with a fault built in, on a site of its own."""
    faults = catalogue()
    with Site(seed=seed, agents=2, plant=plant, delivery_s=_DELIVERY_S) as site:
        return Runner(site, seed, grace=_GRACE, kinds=_KINDS).run([faults[name] for name in names], _TRIALS)


def _is_found(plant: str, names: tuple[str, ...], wrong: Wrong, seed: int) -> bool:
    outcome = run_planted(plant, names, seed)
    count = sum(finding.fault is wrong for finding in outcome.findings)
    say(f"planted {plant}: {count} commands {wrong.value}" if count else f"planted {plant} was NOT FOUND")
    return count > 0
