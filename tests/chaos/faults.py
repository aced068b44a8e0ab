"""Everything that can go wrong, by name. Each is struck at many moments: the seed decides when, and for how long."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Callable, Iterator

import psutil
import redis

from deploy.embedded.services import REDIS_URL
from tests.chaos import shim
from tests.chaos.hooks import Step
from tests.chaos.meddler import Meddler
from tests.chaos.network import Link
from tests.chaos.site import wait_until
from tests.chaos.steps import AGENT_JOURNAL_STEPS, STEPS
from tests.chaos.trial import Fault, NotStruckError, Scope, Trial

_HOUR_S = 3600.0
_HANGS = ("claim-after", "ingest-after-commit", "gateway-command-before", "agent-admit-after-commit")
_ATTEMPTS = 3
_FULL_DISK_BYTES = 4096
"""Nothing of the journal fits below this, and every record of a job does."""

_COMMITTING = (b"COMMIT", b"UPDATE gateways_command c", b"command.requested")
"""What makes something durable: the end of a transaction, and two statements on their own, the claim and the request.

The request is prepared: what is seen of it is a value, the action of its audit event.
"""

Strike = Callable[[Trial], None]


def catalogue() -> dict[str, Fault]:
    faults = [*_deaths_at_steps(), *_deaths_at_any_time(), *_network(), *_hosts(), *_clocks()]
    by_name = {fault.name: fault for fault in faults}
    assert len(by_name) == len(faults), "two faults have one name"
    return by_name


# Deaths


def _deaths_at_steps() -> Iterator[Fault]:
    for step in (*STEPS, *AGENT_JOURNAL_STEPS):
        scope = Scope.HOST if step.role == "agent" else Scope.SITE
        yield Fault(f"kill-{step.name}", scope, _dies_at(step))
        if step.name in _HANGS:
            yield Fault(f"hang-{step.name}", scope, _hangs_at(step))
    for name in shim.STEPS:
        yield Fault(f"kill-{name}", Scope.HOST, lambda trial, name=name: trial.shim_dies_at(name))


def _process_of(step: Step, trial: Trial) -> str:
    match step.role:
        case "agent":
            return trial.host
        case "gateway":
            return trial.gateway_in_use()
    return step.role


def _dies_at(step: Step) -> Strike:
    return _until_struck(lambda trial: trial.die_at(step.name, _process_of(step, trial)))


def _hangs_at(step: Step) -> Strike:
    return _until_struck(lambda trial: trial.hang_at(step.name, _process_of(step, trial), most_s=8.0))


def _until_struck(strike: Strike) -> Strike:
    """Commands may take another way than they did when the process was chosen: agents change their gateway."""

    def strike_until_it_hits(trial: Trial) -> None:
        for _ in range(_ATTEMPTS - 1):
            with contextlib.suppress(NotStruckError):
                return strike(trial)
        return strike(trial)

    return strike_until_it_hits


def _deaths_at_any_time() -> Iterator[Fault]:
    for name in ("web", "link", "worker", "beat", "gateway-1", "gateway-2", "postgres", "valkey"):
        yield Fault(f"kill-{name}", Scope.SITE, _killed_while_busy(name))
    for name in ("link", "web", "gateway-1", "gateway-2"):
        yield Fault(f"stop-{name}", Scope.SITE, _stopped_while_busy(name))
    yield Fault("kill-both-gateways", Scope.SITE, _both_gateways)
    yield Fault("kill-database-connection", Scope.SITE, _one_postgres_backend)
    yield Fault("flush-redis", Scope.SITE, _flush_redis)
    yield Fault("kill-agent", Scope.HOST, lambda trial: _while_busy(trial, lambda: trial.kill_and_start(trial.host)))
    yield Fault("stop-agent", Scope.HOST, lambda trial: _while_busy(trial, lambda: trial.stop_and_start(trial.host)))
    yield Fault("kill-agent-twice", Scope.HOST, _agent_twice)
    yield Fault("kill-agent-cancelling", Scope.HOST, _agent_cancelling)
    yield Fault("kill-shims", Scope.HOST, lambda trial: _while_busy(trial, trial.kill_shims))
    yield Fault("kill-host", Scope.HOST, _host)


def _while_busy(trial: Trial, act: Callable[[], None], *, cancels: float = 0.0) -> None:
    trial.send(cancels=cancels)
    trial.pause(0.5)
    act()


def _killed_while_busy(name: str) -> Strike:
    return lambda trial: _while_busy(trial, lambda: trial.kill_and_start(name))


def _stopped_while_busy(name: str) -> Strike:
    return lambda trial: _while_busy(trial, lambda: trial.stop_and_start(name))


def _both_gateways(trial: Trial) -> None:
    trial.send()
    trial.pause(0.4)
    trial.kill("gateway-1")
    trial.kill("gateway-2")
    trial.pause(0.6)
    trial.start("gateway-1")
    trial.start("gateway-2")


def _one_postgres_backend(trial: Trial) -> None:
    """PostgreSQL then ends all its connections and recovers."""
    trial.send()
    trial.pause(0.3)
    backends = [
        child
        for child in psutil.Process(trial.site.world.postgres.pid).children()
        if "opsmap opsmap" in " ".join(child.cmdline())
    ]
    if not backends:
        raise NotStruckError("no process of PostgreSQL serves a client")
    trial.draw.choice(backends).kill()


def _flush_redis(trial: Trial) -> None:
    trial.send()
    with redis.Redis.from_url(trial.site.world.environment[REDIS_URL]) as client:
        for _ in range(3):
            trial.pause(0.15)
            client.flushall()


def _agent_twice(trial: Trial) -> None:
    """The second time it dies while it still recovers from the first."""
    trial.send()
    trial.pause(0.4)
    trial.kill(trial.host)
    trial.site.process(trial.host).start(wait=False)
    trial.pause(1.2, 0.3)
    trial.kill_and_start(trial.host)


def _agent_cancelling(trial: Trial) -> None:
    _while_busy(trial, lambda: trial.kill_and_start(trial.host), cancels=0.6)


def _host(trial: Trial) -> None:
    trial.send()
    trial.pause(0.5)
    trial.kill_host()
    trial.pause(0.6)
    trial.start(trial.host)


# The network


def _network() -> Iterator[Fault]:
    places = (("agent", Scope.HOST, _links_of_host), ("link", Scope.SITE, _links_of_link_server))
    for place, scope, links_of in places:
        yield Fault(f"cut-{place}", scope, _disturbing(links_of, _cut))
        yield Fault(f"freeze-{place}", scope, _disturbing(links_of, _freeze))
        yield Fault(f"delay-{place}", scope, _disturbing(links_of, _delay))
        yield Fault(f"duplicate-{place}", scope, _disturbing(links_of, _meddling("duplicates", 0.5)))
        yield Fault(f"reorder-{place}", scope, _disturbing(links_of, _meddling("reorders", 0.4)))
        yield Fault(f"replay-{place}", scope, _disturbing(links_of, _meddling("replays", 0.5)))
        yield Fault(f"forge-{place}", scope, _disturbing(links_of, _meddling("forgeries", 0.9)))
    for process in ("web", "link", "worker"):
        yield Fault(f"lose-commit-{process}", Scope.SITE, _loses_commit(process))
    yield Fault("freeze-database", Scope.SITE, _freeze_database)


def _links_of_host(trial: Trial) -> list[Link]:
    return trial.site.network.links_of(trial.host)


def _links_of_link_server(trial: Trial) -> list[Link]:
    return trial.site.network.links_of("link")


def _disturbing(links_of: Callable[[Trial], list[Link]], disturb: Callable[[Trial, list[Link]], None]) -> Strike:
    return lambda trial: disturb(trial, links_of(trial))


def _cut(trial: Trial, links: list[Link]) -> None:
    trial.send()
    for _ in range(3):
        trial.pause(0.3)
        trial.site.network.do(lambda: [link.relay.cut() for link in links])


def _freeze(trial: Trial, links: list[Link]) -> None:
    """Half open. In the end the connections break, or what waited arrives late."""
    trial.send()
    trial.pause(0.3)
    trial.site.network.do(lambda: [link.relay.freeze() for link in links])
    trial.pause(7.0, 0.5)
    if trial.draw.random() < 0.5:
        trial.site.network.do(lambda: [link.relay.cut() for link in links])
    trial.site.network.do(lambda: [link.relay.thaw() for link in links])


def _delay(trial: Trial, links: list[Link]) -> None:
    trial.site.network.do(lambda: [setattr(link.relay, "delay_s", trial.draw.uniform(0.05, 0.4)) for link in links])
    trial.send()
    trial.pause(2.0, 1.0)
    trial.site.network.do(lambda: [link.behave() for link in links])


def _meddling(what: str, share: float) -> Callable[[Trial, list[Link]], None]:
    return lambda trial, links: _meddle(trial, links, what, share)


def _meddle(trial: Trial, links: list[Link], what: str, share: float) -> None:
    meddlers = [link.meddler for link in links if link.meddler is not None]
    before = _deeds(meddlers)
    trial.site.network.do(lambda: [setattr(meddler, what, share) for meddler in meddlers])
    if trial.draw.random() < 0.5:
        # Then it also meddles with the beginning of new sessions.
        trial.site.network.do(lambda: [link.relay.cut() for link in links])
    trial.send()
    trial.pause(2.5, 1.5)
    # A link that was cut takes a moment until it carries anything to meddle with.
    has_meddled = wait_until(lambda: _deeds(meddlers) > before, 15.0)
    trial.site.network.do(lambda: [link.behave() for link in links])
    if not has_meddled:
        raise NotStruckError("no frame was meddled with")


def _deeds(meddlers: list[Meddler]) -> int:
    return sum(meddler.deeds for meddler in meddlers)


def _loses_commit(process: str) -> Strike:
    """The worker is a safety net: it commits only now and then, so its next commit is the one, and it is waited for."""
    skips, most_s = (1, 6.0) if process == "worker" else (6, 3.0)

    def strike(trial: Trial) -> None:
        relay = trial.site.network.databases[process]
        before = relay.lost_answers
        for _ in range(3):
            count = relay.lost_answers
            trial.site.network.do(lambda: relay.lose_answer_to(*_COMMITTING, skip=trial.draw.randrange(skips)))
            trial.send()
            wait_until(lambda count=count: relay.lost_answers > count, most_s)
        if relay.lost_answers == before:
            raise NotStruckError(f"{process} committed nothing")

    return strike


def _freeze_database(trial: Trial) -> None:
    relays = [trial.site.network.databases[name] for name in ("web", "link")]
    trial.send()
    trial.pause(0.3)
    trial.site.network.do(lambda: [relay.freeze() for relay in relays])
    trial.pause(4.0, 0.5)
    trial.site.network.do(lambda: [relay.thaw() for relay in relays])


# Hosts and clocks


def _hosts() -> Iterator[Fault]:
    yield Fault("journal-disk-full", Scope.HOST, _disk_full)


def _disk_full(trial: Trial) -> None:
    agent = psutil.Process(trial.site.process(trial.host).pid)
    trial.send()
    trial.pause(0.3)
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    agent.rlimit(psutil.RLIMIT_FSIZE, (_FULL_DISK_BYTES, resource.RLIM_INFINITY))
    try:
        trial.send()
        trial.pause(3.0, 0.5)
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            agent.rlimit(psutil.RLIMIT_FSIZE, unlimited)


def _clocks() -> Iterator[Fault]:
    for name, seconds in (("ahead", _HOUR_S), ("back", -_HOUR_S), ("little-ahead", 40.0), ("little-back", -40.0)):
        yield Fault(f"clock-agent-{name}", Scope.HOST, _wrong_clock(None, seconds))
    for name, seconds in (("ahead", _HOUR_S), ("back", -_HOUR_S)):
        yield Fault(f"clock-link-{name}", Scope.SITE, _wrong_clock("link", seconds))
        # Long enough for the safety nets to look at the time.
        yield Fault(f"clock-worker-{name}", Scope.SITE, _wrong_clock("worker", seconds, most_s=8.0))
    # Not ahead: the command would then have an hour to be decided, and so would the trial.
    yield Fault("clock-web-back", Scope.SITE, _wrong_clock("web", -_HOUR_S))


def _wrong_clock(process: str | None, seconds: float, *, most_s: float = 2.5) -> Strike:
    def strike(trial: Trial) -> None:
        clock = trial.site.clock(process or trial.host)
        trial.send()
        trial.pause(0.3)
        clock.set(seconds)
        trial.send()
        trial.pause(most_s, 0.5)
        clock.set(0.0)

    return strike
