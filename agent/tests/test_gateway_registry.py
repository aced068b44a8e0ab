"""Who is connected, who was, and the file that remembers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from opsmap_gateway.agent_session import AgentSession
from opsmap_gateway.outbox import Outbox
from opsmap_gateway.registry import Registry
from opsmap_protocol.messages import OsInfo, Register
from opsmap_protocol.session import GATEWAY_OF_AGENT, Session

START = datetime(2026, 3, 1, 3, 0, tzinfo=UTC)


class Clock:
    """Time that stands still until told, and sleepers that wake when it passes them."""

    def __init__(self) -> None:
        self.time = START
        self._sleepers: list[tuple[datetime, asyncio.Future[None]]] = []

    def now(self) -> datetime:
        return self.time

    async def sleep(self, seconds: float) -> None:
        wakes: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sleepers.append((self.time + timedelta(seconds=seconds), wakes))
        await wakes

    async def pass_(self, seconds: float) -> None:
        await asyncio.sleep(0.001)
        self.time += timedelta(seconds=seconds)
        due = [sleeper for sleeper in self._sleepers if sleeper[0] <= self.time]
        self._sleepers = [sleeper for sleeper in self._sleepers if sleeper not in due]
        for _, wakes in due:
            if not wakes.done():
                wakes.set_result(None)
        await asyncio.sleep(0.001)


def session(name: str) -> AgentSession:
    """A session that is never run."""
    register = Register(
        agent_id=name,
        hostname=f"{name}.example",
        os=OsInfo("linux", "12", "6.1", "x86_64"),
        labels={},
        capabilities=[],
        version="0.1.0",
        certificate="",
        nonce="",
    )
    return AgentSession(
        socket=cast(Any, None),
        session_id=f"session of {name}",
        protocol=Session(GATEWAY_OF_AGENT),
        register=register,
        registration={},
        outbox=Outbox(max_frames=1, max_bytes=1),
        send_timeout_s=1,
    )


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def registry_of(clock: Clock) -> Callable[[Path | None], Registry]:
    def make(file: Path | None) -> Registry:
        return Registry(file=file, agent_timeout_s=90, cleanup_interval_s=300, now=clock.now, sleep=clock.sleep)

    return make


MakeRegistry = Callable[[Path | None], Registry]


async def test_newest_session_counts(registry_of: MakeRegistry) -> None:
    registry = registry_of(None)
    former, newest = session("srv-1"), session("srv-1")
    assert registry.add(former) is None
    assert registry.add(newest) is former
    assert registry.get("srv-1") is newest
    assert not registry.remove(former)
    assert registry.sessions() == [newest]
    assert registry.remove(newest)
    assert len(registry) == 0


async def test_memory_survives_a_restart(registry_of: MakeRegistry, tmp_path: Path) -> None:
    file = tmp_path / "state" / "registry.json"
    before = registry_of(file)
    before.add(session("srv-1"))
    before.add(session("srv-2"))
    before.save()
    after = registry_of(file)
    after.load()
    assert after.missing() == ["srv-1", "srv-2"]
    after.add(session("srv-2"))
    assert after.missing() == ["srv-1"]
    assert [entry.name for entry in file.parent.iterdir()] == ["registry.json"]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"format":1}',
        '{"format":1,"agents":[]}',
        '{"format":1,"agents":{"srv-1":{}}}',
        '{"format":1,"agents":{"srv-1":{"hostname":"h","last_seen":"yesterday"}}}',
        '{"format":1,"agents":{"srv-1":{"hostname":"h","last_seen":7}}}',
    ],
)
async def test_broken_file_is_reported_and_left_out(
    registry_of: MakeRegistry, tmp_path: Path, caplog: pytest.LogCaptureFixture, content: str
) -> None:
    file = tmp_path / "registry.json"
    file.write_text(content)
    registry = registry_of(file)
    registry.load()
    assert registry.missing() == []
    assert "cannot be used" in caplog.text


async def test_unwritable_file_is_reported_and_harmless(
    registry_of: MakeRegistry, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    registry = registry_of(tmp_path / "file" / "registry.json")
    registry.add(session("srv-1"))
    registry.save()
    assert "cannot be written" in caplog.text


async def test_changes_are_written_together(registry_of: MakeRegistry, clock: Clock, tmp_path: Path) -> None:
    file = tmp_path / "registry.json"
    registry = registry_of(file)
    running = asyncio.create_task(registry.run())
    registry.add(session("srv-1"))
    registry.add(session("srv-2"))
    await clock.pass_(0.5)
    assert not file.exists()
    await clock.pass_(0.5)
    assert sorted(json.loads(file.read_text())["agents"]) == ["srv-1", "srv-2"]
    running.cancel()


async def test_agents_that_stay_away_are_reported_and_then_forgotten(
    registry_of: MakeRegistry, clock: Clock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "registry.json"
    last_seen = (START - timedelta(seconds=1)).isoformat()
    known = {name: {"hostname": name, "last_seen": last_seen} for name in ("srv-1", "srv-2")}
    file.write_text(json.dumps({"format": 1, "agents": known}))
    registry = registry_of(file)
    registry.load()
    running = asyncio.create_task(registry.run())
    await clock.pass_(89)
    registry.add(session("srv-1"))
    assert caplog.text == ""
    await clock.pass_(1)
    assert "1 agents known from before have not come back: srv-2" in caplog.text
    await clock.pass_(210)
    await clock.pass_(1)
    assert list(json.loads(file.read_text())["agents"]) == ["srv-1"]
    running.cancel()


async def test_agent_that_left_lately_is_kept(registry_of: MakeRegistry, clock: Clock) -> None:
    registry = registry_of(None)
    gone = session("srv-1")
    registry.add(gone)
    registry.remove(gone)
    clock.time += timedelta(seconds=90)
    registry.forget_missing()
    assert registry.missing() == ["srv-1"]
    clock.time += timedelta(seconds=1)
    registry.forget_missing()
    assert registry.missing() == []
