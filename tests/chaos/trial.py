"""One trial: commands are sent, one thing goes wrong while they are on their way, and what died is started again."""

from __future__ import annotations

import contextlib
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum

import psutil

from tests.chaos.checker import Excuse
from tests.chaos.load import KINDS, Clients, Kind, Load
from tests.chaos.site import Death, Site, wait_until
from tests.chaos.triggers import Deed, Shot

_FIRE_TIMEOUT_S = 20.0
_END_TIMEOUT_S = 10.0
_FEW = 3


class NotStruckError(Exception):
    """What was to go wrong did not: the trial has tested nothing."""


class Scope(StrEnum):
    HOST = "host"
    """Concerns one host; trials on several hosts go on at the same time."""
    SITE = "site"
    """Concerns all hosts."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that can go wrong. `strike` sends commands, makes it go wrong, and puts it right again."""

    name: str
    scope: Scope
    strike: Callable[[Trial], None]


class Trial:
    """What `strike` works with. `host` is the one concerned, or any one if all are."""

    def __init__(
        self,
        fault: Fault,
        number: int,
        seed: int,
        clients: Clients,
        hosts: list[str],
        kinds: tuple[Kind, ...] = KINDS,
    ) -> None:
        self.fault = fault
        self.name = f"{number:03}-{fault.name}"
        self.site: Site = clients.site
        self.draw = random.Random(f"{seed}/{self.name}")
        self.hosts = hosts
        self._kinds = kinds
        self.host = self.draw.choice(hosts)
        self.load: Load = clients.load(self.name, self.draw)

    def run(self) -> None:
        """Raises NotStruckError if nothing went wrong."""
        self.fault.strike(self)

    # Commands

    def send(self, *, cancels: float = 0.0) -> None:
        """A mix of commands to every host concerned: all kinds to one, a few to each of many."""
        for host in self.hosts:
            kinds = self._kinds if len(self.hosts) == 1 else self.draw.sample(self._kinds, _FEW)
            self.load.send(host, kinds, cancels=cancels)
        if len(self.hosts) > 1:
            self.load.broadcast(self.hosts)

    def pause(self, most_s: float, least_s: float = 0.0) -> None:
        """For a time that the seed decides."""
        time.sleep(self.draw.uniform(least_s, most_s))

    # Deaths

    @contextmanager
    def excused(self, excuse: Excuse, host: str | None = None) -> Iterator[None]:
        """What dies inside excuses commands that were on their way then."""
        since = time.time()
        try:
            yield
        finally:
            self.site.deaths.append(Death(host or self.host, excuse, since, time.time()))

    def kill(self, name: str) -> None:
        with self._excuse_of(name):
            self.site.process(name).kill()

    def start(self, name: str) -> None:
        process = self.site.process(name)
        if not process.is_alive:
            process.start()

    def kill_and_start(self, name: str) -> None:
        self.kill(name)
        self.pause(0.6)
        self.start(name)

    def stop_and_start(self, name: str) -> None:
        """In order, as its supervisor would."""
        with self._excuse_of(name):
            self.site.process(name).terminate()
        self.start(name)

    def die_at(self, step: str, name: str) -> None:
        """Have the process `name` kill itself at a step while commands come, and start it again."""
        self._arm(step, name, Deed.KILL)
        with self._excuse_of(name):
            self.send()
            self._wait_fired(step, name)
            if not wait_until(lambda: not self.site.process(name).is_alive, _END_TIMEOUT_S):
                raise NotStruckError(f"{name} passed {step} and lives")
        self.pause(0.6)
        self.start(name)

    def hang_at(self, step: str, name: str, most_s: float) -> None:
        """Have the process `name` stop in its tracks at a step, with its sockets open, and go on later."""
        self._arm(step, name, Deed.HANG)
        self.send()
        self._wait_fired(step, name)
        self.pause(most_s, 0.5)
        psutil.Process(self.site.process(name).pid).send_signal(signal.SIGCONT)

    def shim_dies_at(self, step: str) -> None:
        self._arm(step, self.host, Deed.KILL)
        with self.excused(Excuse.SHIM_DIED):
            self.send()
            self._wait_fired(step, self.host)

    def kill_shims(self) -> None:
        """One shim that lives at this moment, or several."""
        with self.excused(Excuse.SHIM_DIED):
            if not wait_until(lambda: bool(self.site.live_shims(self.host)), _FIRE_TIMEOUT_S):
                raise NotStruckError("no shim was alive")
            for shim in self.site.live_shims(self.host):
                with contextlib.suppress(psutil.NoSuchProcess):
                    shim.kill()

    def kill_host(self) -> None:
        """Agent, shims and commands of the host, as a power cut would."""
        with self.excused(Excuse.SHIM_DIED):
            self.site.process(self.host).kill()
            for shim in self.site.live_shims(self.host):
                with contextlib.suppress(psutil.NoSuchProcess):
                    for process in (shim, *shim.children(recursive=True)):
                        process.kill()

    # Where things are

    def gateway_in_use(self) -> str:
        """By which gateway the backend talks to the host now."""
        with self.site.world.database() as database:
            row = database.execute(
                "SELECT g.gateway_id FROM gateways_agent a JOIN gateways_gateway g ON g.id = a.gateway_id"
                " WHERE a.agent_id = %s",
                [self.host],
            ).fetchone()
        if row is None:
            raise NotStruckError(f"{self.host} is at no gateway")
        return str(row[0])

    def _arm(self, step: str, name: str, deed: Deed) -> None:
        # Acknowledged events are forgotten together: there may be but one such commit in a trial.
        skip = 0 if "forget" in step else self.draw.randrange(3)
        self.site.triggers(name).arm(step, Shot(deed, skip=skip))

    def _wait_fired(self, step: str, name: str) -> None:
        triggers = self.site.triggers(name)
        if not wait_until(lambda: triggers.has_fired(step), _FIRE_TIMEOUT_S):
            triggers.disarm(step)
            raise NotStruckError(f"{name} did not pass {step}")

    @contextmanager
    def _excuse_of(self, name: str) -> Iterator[None]:
        if name not in self.site.hosts:
            yield
            return
        with self.excused(Excuse.AGENT_DIED, name):
            yield
