"""A short run with a fixed seed, and the proof that the judge finds what is built in. `make chaos` does all of it."""

from __future__ import annotations

import pytest

from tests.chaos.checker import Wrong
from tests.chaos.faults import catalogue
from tests.chaos.planted import PLANTED, run_planted
from tests.chaos.runner import Runner
from tests.chaos.site import Site

SEED = 20
SHORT = (
    "kill-agent-admit-after-commit",
    "kill-agent-launch-after",
    "kill-agent-end-before-commit",
    "duplicate-agent",
    "kill-ingest-after-commit",
    "kill-gateway-1",
    "lose-commit-link",
    "flush-redis",
)
"""One of each kind that heals quickly."""

pytestmark = pytest.mark.processes


def test_nothing_is_lost_and_nothing_runs_twice() -> None:
    faults = catalogue()
    with Site(seed=SEED, agents=4, delivery_s=15) as site:
        outcome = Runner(site, SEED).run([faults[name] for name in SHORT], len(SHORT))
    assert (outcome.findings, outcome.misfires) == ([], [])
    assert outcome.trials == len(SHORT)
    assert outcome.states["unknown"] == 0
    assert outcome.states["succeeded"] > sum(outcome.states.values()) / 2


@pytest.mark.parametrize(("plant", "names", "wrong"), PLANTED, ids=[plant for plant, _, _ in PLANTED])
def test_the_judge_finds_what_is_built_in(plant: str, names: tuple[str, ...], wrong: Wrong) -> None:
    outcome = run_planted(plant, names, SEED)
    assert any(finding.fault is wrong for finding in outcome.findings)
