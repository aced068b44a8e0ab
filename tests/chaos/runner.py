"""Runs trials in waves on one site, waits until every command has had its time, and judges.

A wave is one trial that concerns all hosts, or one on each host at the same time, or both at once. Nobody waits for
the commands of a wave before the next one begins: in a real installation too one thing goes wrong while another heals.
"""

from __future__ import annotations

import itertools
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from tests.chaos.checker import GRACE, Excuse, Finding, Promise, Row, Wrong, deadline_of, judge, strangers
from tests.chaos.load import KINDS, Asked, Clients, Kind
from tests.chaos.site import Death, Site, wait_until
from tests.chaos.trial import Fault, NotStruckError, Scope, Trial
from tests.smoke.errors import SmokeError
from tests.world import WorldError

_HEAL_TIMEOUT_S = 45.0
_POLL_S = 0.5
_DOUBLED = 3
"""Of the waves on single hosts every third happens while something goes wrong that concerns all."""
_SEVERITY = (Excuse.NONE, Excuse.AGENT_DIED, Excuse.SHIM_DIED)


@dataclass
class Outcome:
    """What a run has shown."""

    seed: int
    trials: int = 0
    states: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)
    misfires: list[str] = field(default_factory=list)
    """Trials in which nothing went wrong, or that could not be carried out: they are not counted."""
    refused: int = 0
    """Commands that the API never accepted: hosts were out of reach for too long."""
    duration_s: float = 0.0

    @property
    def is_clean(self) -> bool:
        return not self.findings and not self.misfires

    def summary(self) -> dict[str, object]:
        counts = {wrong.value: sum(each.fault is wrong for each in self.findings) for wrong in Wrong}
        return {
            "trials": self.trials,
            **counts,
            "unknown": self.states["unknown"],
            "commands": sum(self.states.values()),
            "states": dict(sorted(self.states.items())),
            "refused": self.refused,
            "misfired": len(self.misfires),
            "seconds": round(self.duration_s),
        }


def say(text: str) -> None:
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


def waves(faults: Sequence[Fault], trials: int, hosts: Sequence[str], draw: random.Random) -> Iterator[list[Fault]]:
    """So many trials, every fault as often as any other, in an order that the seed decides."""
    rounds = itertools.islice(itertools.cycle(faults), trials)
    shuffled = list(rounds)
    draw.shuffle(shuffled)
    of_hosts = [fault for fault in shuffled if fault.scope is Scope.HOST]
    of_site = [fault for fault in shuffled if fault.scope is Scope.SITE]
    planned = [of_hosts[at : at + len(hosts)] for at in range(0, len(of_hosts), len(hosts))]
    doubled = planned[: len(planned) // _DOUBLED]
    singles = [*planned[len(doubled) :], *([fault] for fault in of_site[len(doubled) :])]
    both = [[*wave, *of_site[index : index + 1]] for index, wave in enumerate(doubled)]
    mixed = [*singles, *both]
    draw.shuffle(mixed)
    yield from mixed


class Runner:
    """Runs once, on a site that has started."""

    def __init__(
        self,
        site: Site,
        seed: int,
        *,
        deadline_s: float | None = None,
        grace: timedelta = GRACE,
        kinds: tuple[Kind, ...] = KINDS,
    ) -> None:
        self._site = site
        self._seed = seed
        self._clients = Clients(site)
        self._outcome = Outcome(seed)
        self._numbers = itertools.count(1)
        self._began = time.monotonic()
        self._deadline_s = deadline_s
        self._grace = grace
        self._kinds = kinds

    def run(self, faults: Sequence[Fault], trials: int) -> Outcome:
        """All trials, then the verdict. Stops early, without a verdict lost, when the time is up."""
        hosts = self._site.hosts
        with ThreadPoolExecutor(len(hosts) + 1, "trial") as pool:
            for wave in waves(faults, trials, hosts, random.Random(self._seed)):
                if self._deadline_s is not None and time.monotonic() - self._began > self._deadline_s:
                    say(f"the time is up after {self._outcome.trials} trials")
                    break
                self._run_wave(wave, pool)
        self._clients.wait()
        self._judge()
        self._clients.close()
        self._outcome.duration_s = time.monotonic() - self._began
        return self._outcome

    def _run_wave(self, wave: Sequence[Fault], pool: ThreadPoolExecutor) -> None:
        began = time.monotonic()
        hosts = self._site.hosts
        trials = [
            Trial(fault, next(self._numbers), self._seed, self._clients, concerned, self._kinds)
            for index, fault in enumerate(wave)
            for concerned in [hosts if fault.scope is Scope.SITE else hosts[index : index + 1]]
        ]
        for trial, result in [(trial, pool.submit(trial.run)) for trial in trials]:
            try:
                result.result()
                self._outcome.trials += 1
            except (NotStruckError, WorldError, SmokeError, OSError) as error:
                self._outcome.misfires.append(f"{trial.name}: {error}")
                say(f"MISFIRE {trial.name}: {error}")
        self._heal(trials)
        names = " ".join(trial.name for trial in trials)
        say(f"{self._outcome.trials:4} trials, {time.monotonic() - began:4.1f} s: {names}")

    def _heal(self, trials: Sequence[Trial]) -> None:
        """Everything runs, every clock is right, every host is online: what does not heal by itself is a finding."""
        self._site.network.behave()
        for name, process in self._site.world.processes().items():
            if not process.is_alive:
                say(f"{name} had ended; starting it again")
                process.start()
        if not wait_until(self._site.does_database_answer, _HEAL_TIMEOUT_S):
            raise WorldError("PostgreSQL does not recover")
        try:
            self._site.world.wait_online(timeout_s=_HEAL_TIMEOUT_S)
        except WorldError as error:
            names = ", ".join(trial.name for trial in trials)
            self._outcome.misfires.append(f"{names}: does not heal: {error}")
            say(f"DOES NOT HEAL after {names}: {str(error)[:2000]}")

    # The verdict

    def _judge(self) -> None:
        """Waits until every command has an end, or has had its time."""
        asked = self._clients.asked
        told = -1
        while True:
            rows, now = self._site.rows()
            promises = [self._promise(each, rows.get((each.host, each.key))) for each in asked]
            late = [
                deadline_of(promise, row, self._grace)
                for promise in promises
                if (row := rows.get((promise.agent, promise.key))) is not None and _is_undecided(row.state)
            ]
            until = max(late, default=now) + timedelta(seconds=1)
            if not late or until <= now:
                break
            if len(late) != told:
                told = len(late)
                say(f"{told} commands have no end yet; up to {(until - now).total_seconds():.0f} s to wait")
            time.sleep(min(2.0, _POLL_S + (until - now).total_seconds()))
        runs = self._site.runs()
        judgement = judge(promises, rows, runs, now, self._grace)
        self._outcome.states = judgement.states
        self._outcome.findings = list(judgement.findings)
        self._outcome.refused = sum(not each.is_accepted for each in asked)
        for host, key in strangers(promises, runs):
            stranger = Promise(key, host, 0, is_accepted=False, asked_at=now)
            self._outcome.findings.append(Finding(stranger, Wrong.LOST, "it ran, and nobody had asked for it"))

    def _promise(self, asked: Asked, row: Row | None) -> Promise:
        last = time.time()
        # Written by a clock that a trial had set back if it is before the beginning.
        if row is not None and row.finished_at is not None and row.finished_at.timestamp() >= asked.asked_at:
            last = row.finished_at.timestamp()
        deaths = [death for death in self._site.deaths if _concerns(death, asked, last)]
        worst = max((death.excuse for death in deaths), key=_SEVERITY.index, default=Excuse.NONE)
        asked_at = datetime.fromtimestamp(asked.asked_at, UTC)
        return Promise(
            asked.key, asked.host, asked.exit_code, asked.is_accepted, asked_at, asked.is_cancelled, excuse=worst
        )


def _is_undecided(state: str) -> bool:
    return state in {"queued", "sent", "received", "started", "unknown"}


def _concerns(death: Death, asked: Asked, last: float) -> bool:
    """Whether a command was on its way when somebody died."""
    return death.host == asked.host and asked.asked_at <= death.until and death.since <= last
