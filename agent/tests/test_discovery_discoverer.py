"""When the host is looked at and what is told: with scripted looks and a scripted session."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosedError

from opsmap_agent.commands.tally import Tally
from opsmap_agent.configuration import Configuration, Discovery
from opsmap_agent.discovery import discoverer as module
from opsmap_agent.discovery.discoverer import Discoverer
from opsmap_agent.discovery.findings import Finding, Found
from opsmap_agent.discovery.memory import Told, load_told, save_told
from opsmap_agent.discovery.reports import Digests, KindReport, compare
from opsmap_agent.journal.journal import Journal
from opsmap_agent.rules.remote_settings import SettingsInForce
from opsmap_agent.sessions.switchboard import Switchboard
from opsmap_protocol.enums import DiscoveryKind
from opsmap_protocol.messages import Discover, DiscoveryResult, RemoteSettings

PORTS, PODS = DiscoveryKind.PORTS, DiscoveryKind.PODS
ON_DEMAND = Discovery(on_startup=False)


class ScriptedSession:
    """The session in use: collects what is sent, or is broken."""

    def __init__(self, news: asyncio.Condition) -> None:
        self.news = news
        self.sent: list[DiscoveryResult] = []
        self.is_broken = False

    async def send_large(self, message: DiscoveryResult) -> None:
        if self.is_broken:
            raise ConnectionClosedError(None, None)
        self.sent.append(message)
        async with self.news:
            self.news.notify_all()


@dataclass
class World:
    """A host whose ports a test decides, and its discoverer."""

    journal: Journal
    switchboard: Switchboard
    session: ScriptedSession
    settings: SettingsInForce
    discoverer: Discoverer
    ports: list[int] = field(default_factory=lambda: [1, 2])
    fault: str | None = None
    looks: list[tuple[set[DiscoveryKind], bool]] = field(default_factory=list)
    """Which kinds, and whether everything was wanted."""
    is_slow: asyncio.Event | None = None
    count: int = 0

    async def survey(self, kinds: Sequence[DiscoveryKind], told: Mapping[str, Digests]) -> list[KindReport]:
        self.count += 1
        self.looks.append((set(kinds), not told))
        async with self.session.news:
            self.session.news.notify_all()
        if self.is_slow is not None:
            await self.is_slow.wait()
        found = {PORTS: Found([{"key": str(each), "port": each} for each in self.ports], self.fault)}
        return [compare(kind, found.get(kind, Found([])), told.get(kind, {})) for kind in kinds]

    def ask(self, discovery_id: str, *types: str, is_full: bool = False) -> None:
        assert self.discoverer.ask(Discover("srv-1", discovery_id, list(types), is_full)) is None

    async def sent(self, count: int) -> DiscoveryResult:
        """The message of that number, once it is sent."""
        await self.until(lambda: len(self.session.sent) >= count)
        return self.session.sent[count - 1]

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until a look has begun or a message was sent, such that it is so."""
        async with asyncio.timeout(20), self.session.news:
            await self.session.news.wait_for(condition)

    async def settled(self) -> None:
        """Long enough for what must not happen."""
        await asyncio.sleep(0.1)

    async def asked(self, discovery_id: str, *types: str, is_full: bool = False) -> DiscoveryResult:
        self.ask(discovery_id, *types, is_full=is_full)
        return await self.sent(len(self.session.sent) + 1)

    def go_offline(self) -> None:
        self.switchboard.in_use = None

    def come_online(self) -> None:
        self.switchboard.in_use = self.session  # type: ignore[assignment]
        self.discoverer.session_came_into_use()


@pytest.fixture
def open_world(tmp_path: Path, agent_configuration: Configuration) -> Callable[..., Any]:
    (tmp_path / "buffer").mkdir(exist_ok=True)

    @asynccontextmanager
    async def open_(
        settings: Discovery = ON_DEMAND, rest_s: float = 0.0, may_wait: bool = True
    ) -> AsyncIterator[World]:
        journal = await Journal.open(tmp_path / "buffer")
        switchboard, session = Switchboard(), ScriptedSession(asyncio.Condition())
        in_force = SettingsInForce(replace(agent_configuration, discovery=settings))

        async def look(kinds: Sequence[DiscoveryKind], told: Mapping[str, Digests]) -> list[KindReport]:
            return await world.survey(kinds, told)

        discoverer = Discoverer(
            agent_id="srv-1",
            settings=settings,
            journal=journal,
            switchboard=switchboard,
            remote=in_force,
            tally=Tally(),
            may_wait=may_wait,
            survey=look,
            draw=lambda: 0.0,
            rest_s=rest_s,
        )
        world = World(journal, switchboard, session, in_force, discoverer)
        world.come_online()
        running = asyncio.create_task(discoverer.run())
        try:
            yield world
        finally:
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running
            await journal.close()

    return open_


def ports_of(findings: Mapping[str, list[Finding]]) -> list[int]:
    return [each["port"] for each in findings.get("ports", [])]


async def test_first_everything_then_what_has_changed(open_world: Any) -> None:
    async with open_world() as world:
        first = await world.asked("d-1")
        assert (first.base_id, ports_of(first.findings)) == (None, [1, 2])
        world.ports = [2, 3]
        second = await world.asked("d-2")
        assert (second.base_id, ports_of(second.findings), second.removed) == ("d-1", [3], {"ports": ["1"]})


async def test_who_asks_is_answered_also_if_nothing_has_changed(open_world: Any) -> None:
    async with open_world() as world:
        await world.asked("d-1")
        again = await world.asked("d-2")
        assert (again.discovery_id, again.base_id, again.findings, again.removed) == ("d-2", "d-1", {}, {})


async def test_by_itself_it_tells_only_what_has_changed(open_world: Any) -> None:
    async with open_world(Discovery(on_startup=True, periodic_interval_secs=1)) as world:
        await world.sent(1)
        await world.until(lambda: world.count >= 2)
        world.ports = [9]
        changed = await world.sent(2)
        assert (ports_of(changed.findings), changed.removed) == ([9], {"ports": ["1", "2"]})


async def test_a_fault_that_comes_or_goes_is_news(open_world: Any) -> None:
    async with open_world(Discovery(on_startup=True, periodic_interval_secs=1)) as world:
        await world.sent(1)
        world.fault = "permission denied"
        assert (await world.sent(2)).faults == {"ports": "permission denied"}
        world.fault = None
        assert (await world.sent(3)).faults == {}


async def test_on_demand_for_everything_nothing_is_presumed(open_world: Any) -> None:
    async with open_world() as world:
        await world.asked("d-1")
        full = await world.asked("d-2", "pods", is_full=True)
        assert (full.base_id, ports_of(full.findings)) == (None, [1, 2])
        assert world.looks[-1] == (set(DiscoveryKind), True)


async def test_some_kinds_only(open_world: Any) -> None:
    async with open_world() as world:
        await world.asked("d-1")
        world.ports = []
        other = await world.asked("d-2", "pods")
        assert (other.removed, world.looks[-1]) == ({}, ({PODS}, False))
        assert (await world.asked("d-3", "ports", "something new")).removed == {"ports": ["1", "2"]}


async def test_a_restart_goes_on_where_it_was(open_world: Any) -> None:
    async with open_world() as world:
        await world.asked("d-1")
    async with open_world() as world:
        again = await world.asked("d-2")
        assert (again.base_id, again.findings) == ("d-1", {})


async def test_without_its_memory_it_tells_everything(open_world: Any) -> None:
    for nonsense in ('{"digests": 7, "unknown": 1}', "no json", '{"at": "yesterday"}'):
        async with open_world() as world:
            await world.journal.save_setting("discovery", nonsense)
            assert (await world.asked("d-1")).base_id is None


async def test_once_a_day_everything_is_told_again(open_world: Any) -> None:
    async with open_world() as world:
        await world.asked("d-1")
        told = await load_told(world.journal)
        old = (datetime.now(UTC) - timedelta(hours=25)).isoformat()
        await save_told(world.journal, replace(told, full_at=old))
        assert (await world.asked("d-2")).base_id is None


async def test_times_only_grow_also_if_the_clock_was_set_back(open_world: Any) -> None:
    async with open_world() as world:
        await world.asked("d-1")
        told = await load_told(world.journal)
        ahead = datetime.now(UTC) + timedelta(hours=1)
        await save_told(world.journal, replace(told, at=ahead.isoformat()))
        assert (await world.asked("d-2")).discovered_at > ahead


# Away


async def test_away_the_newest_waits_and_builds_on_what_was_sent(open_world: Any) -> None:
    async with open_world() as world:
        await world.asked("d-1")
        world.go_offline()
        for number, ports in enumerate(([2, 3], [3, 4]), 2):
            world.ports = ports
            world.ask(f"d-{number}")
            await world.until(lambda number=number: world.count == number)
        # The rest of a look is of the event loop and the journal.
        async with asyncio.timeout(20):
            while world.discoverer.waiting is None or world.discoverer.waiting.discovery_id != "d-3":
                await world.journal.load_setting("discovery")
        assert len(world.session.sent) == 1
        world.come_online()
        waited = await world.sent(2)
        assert (waited.base_id, ports_of(waited.findings)) == ("d-1", [3, 4])
        assert waited.removed == {"ports": ["1", "2"]}


async def test_what_may_not_wait_is_not_looked_at_before_somebody_hears(open_world: Any) -> None:
    async with open_world(may_wait=False) as world:
        world.go_offline()
        world.ask("d-1")
        await world.settled()
        assert world.count == 0
        world.come_online()
        assert (await world.sent(1)).discovery_id == "d-1"


async def test_a_session_that_breaks_while_sending_loses_nothing(open_world: Any) -> None:
    async with open_world() as world:
        world.session.is_broken = True
        world.ask("d-1")
        await world.until(lambda: world.count == 1)
        await world.settled()
        world.session.is_broken = False
        world.come_online()
        assert ports_of((await world.sent(1)).findings) == [1, 2]
        assert (await world.asked("d-2")).base_id == "d-1"


async def test_what_waits_is_not_replaced_by_less(open_world: Any) -> None:
    async with open_world() as world:
        world.go_offline()
        world.ask("d-1")
        await world.until(lambda: world.count == 1)
        await world.settled()
        world.ask("d-2", "pods")
        await world.until(lambda: world.count == 2)
        world.come_online()
        waited = await world.sent(1)
        assert (waited.discovery_id, waited.base_id, ports_of(waited.findings)) == ("d-2", None, [1, 2])


# One at a time


async def test_questions_during_a_look_become_one(open_world: Any) -> None:
    async with open_world() as world:
        world.is_slow = asyncio.Event()
        world.ask("d-1")
        await world.until(lambda: world.count == 1)
        for number in range(2, 1000):
            world.ask(f"d-{number}", "ports")
        world.ask("d-1000", "pods")
        world.is_slow.set()
        assert (await world.sent(1)).discovery_id == "d-1"
        assert (await world.sent(2)).discovery_id == "d-1000"
        assert world.looks[1][0] == {PORTS, PODS}
        await world.settled()
        assert world.count == 2


async def test_between_two_looks_it_rests(open_world: Any) -> None:
    async with open_world(rest_s=60.0) as world:
        await world.asked("d-1")
        world.ask("d-2")
        await world.settled()
        assert world.count == 1


async def test_a_host_that_cannot_be_looked_at_is_looked_at_again(
    open_world: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_world() as world:
        look = world.survey

        async def fail(*arguments: Any) -> list[KindReport]:
            raise OSError(11, "no more processes")

        world.survey = fail
        world.ask("d-1")
        async with asyncio.timeout(20):
            while "this host cannot be looked at" not in caplog.text:
                await world.journal.load_setting("discovery")
        world.survey = look
        assert (await world.asked("d-2")).base_id is None


async def test_ids_without_bounds_are_refused(open_world: Any) -> None:
    async with open_world() as world:
        assert world.discoverer.ask(Discover("srv-1", "x" * 65, [])) == "a discovery has an id of 1 to 64 characters"
        assert world.discoverer.ask(Discover("srv-1", "", [])) is not None


async def test_the_backend_may_set_the_interval(open_world: Any) -> None:
    async with open_world(Discovery(on_startup=True, periodic_interval_secs=3600)) as world:
        await world.sent(1)
        assert module._JITTER == 0.1
        world.settings.apply(RemoteSettings(discovery_interval_secs=60))
        assert world.discoverer._interval_s(1.1) == pytest.approx(66)


def test_a_partial_look_keeps_what_is_known_of_other_kinds() -> None:
    told = Told("d-1", digests={"pods": {"a": "1"}}, faults={"pods": "cut", "ports": "old"})
    after = told.with_reports([KindReport(PORTS, digests={"b": "2"})], "d-2", datetime.now(UTC), is_full=False)
    assert (after.digests, after.faults) == ({"pods": {"a": "1"}, "ports": {"b": "2"}}, {"pods": "cut"})
