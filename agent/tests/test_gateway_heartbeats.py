"""Gathering heartbeats, and counting what is lost."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from opsmap_gateway.counters import Counters, Loss
from opsmap_gateway.heartbeats import Heartbeats
from opsmap_protocol.messages import Heartbeat


class Backend:
    def __init__(self, is_there: bool = True) -> None:
        self.is_there = is_there
        self.messages: list[dict[str, Any]] = []

    async def take(self, frame: str) -> bool:
        if self.is_there:
            self.messages.append(json.loads(frame))
        return self.is_there


def heartbeat(name: str, uptime_secs: int = 1) -> Heartbeat:
    return Heartbeat(name, uptime_secs, load=[0.0], memory_percent=1.0, active_commands=0)


def heartbeats_to(backend: Backend, counters: Counters, sleeps: list[float] | None = None) -> Heartbeats:
    async def sleep(seconds: float) -> None:
        assert sleeps is not None
        sleeps.append(seconds)
        await asyncio.sleep(0)

    return Heartbeats(
        gateway_id="gw-1",
        interval_s=10,
        forward=backend.take,
        counters=counters,
        now=lambda: datetime(2026, 3, 1, tzinfo=UTC),
        sleep=sleep,
    )


async def test_one_message_an_interval_with_the_newest_of_each() -> None:
    backend, sleeps = Backend(), list[float]()
    heartbeats = heartbeats_to(backend, Counters(), sleeps)
    heartbeats.add(heartbeat("srv-1", 1))
    heartbeats.add(heartbeat("srv-2", 5))
    heartbeats.add(heartbeat("srv-1", 2))
    running = asyncio.create_task(heartbeats.run())
    for _ in range(10):
        await asyncio.sleep(0)
    running.cancel()
    assert len(sleeps) > 2
    assert set(sleeps) == {10}
    assert len(backend.messages) == 1, "an interval without heartbeats is passed over"
    assert [(each["agent_id"], each["uptime_secs"]) for each in backend.messages[0]["agents"]] == [
        ("srv-1", 2),
        ("srv-2", 5),
    ]


async def test_heartbeats_are_dropped_and_counted_while_the_backend_is_away() -> None:
    backend, counters = Backend(is_there=False), Counters()
    heartbeats = heartbeats_to(backend, counters)
    heartbeats.add(heartbeat("srv-1"))
    heartbeats.add(heartbeat("srv-2"))
    await heartbeats.flush()
    assert counters.total(Loss.HEARTBEAT_DROPPED) == 2
    backend.is_there = True
    await heartbeats.flush()
    await heartbeats.flush()
    (message,) = backend.messages
    assert (message["agents"], message["losses"]) == ([], {"heartbeat_dropped": 2})


async def test_losses_go_with_the_heartbeats() -> None:
    backend, counters = Backend(), Counters()
    heartbeats = heartbeats_to(backend, counters)
    counters.count(Loss.AGENT_AWAY, 3)
    heartbeats.add(heartbeat("srv-1"))
    await heartbeats.flush()
    assert [message["losses"] for message in backend.messages] == [{"agent_away": 3}]


async def test_very_many_agents_are_told_in_several_messages() -> None:
    backend = Backend()
    heartbeats = heartbeats_to(backend, Counters())
    for number in range(501):
        heartbeats.add(heartbeat(f"srv-{number}"))
    await heartbeats.flush()
    assert [len(message["agents"]) for message in backend.messages] == [500, 1]


async def test_losses_are_logged_when_there_are_new_ones(caplog: pytest.LogCaptureFixture) -> None:
    counters = Counters()
    minutes = 0

    async def sleep(seconds: float) -> None:
        nonlocal minutes
        assert seconds == 60
        minutes += 1
        if minutes == 2:
            counters.count(Loss.AGENT_AWAY, 3)
        if minutes == 5:
            counters.count(Loss.AGENT_AWAY)
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await counters.run(sleep)
    assert [record.getMessage() for record in caplog.records] == [
        "not passed on since the last report: agent_away 3 (of 3)",
        "not passed on since the last report: agent_away 1 (of 4)",
    ]
