"""What the backend may set on an agent: it can only restrict, and what is not set is as the host's file has it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from opsmap_agent.configuration import Configuration
from opsmap_agent.rules.remote_settings import SettingsInForce
from opsmap_daemon import logs
from opsmap_protocol.messages import ConfigUpdate, RemoteSettings
from opsmap_protocol.specs import NativeCommand

if TYPE_CHECKING:
    from conftest import OpenHost

AGENT_ID = "srv-1"


class Levels(list[str]):
    """Remembers what the log was set to."""

    def set(self, level: logs.Level) -> None:
        self.append(level)


@pytest.fixture
def levels() -> Levels:
    return Levels()


@pytest.fixture
def settings(agent_configuration: Configuration, levels: Levels) -> SettingsInForce:
    return SettingsInForce(agent_configuration, levels.set)


def test_log_level_changes_and_goes_back(settings: SettingsInForce, levels: Levels) -> None:
    settings.apply(RemoteSettings(log_level="debug"))
    settings.apply(RemoteSettings(log_level="debug", heartbeat_interval_secs=10))
    settings.apply(RemoteSettings())
    assert levels == ["debug", "info"], "set once, and back to the host's own"


@pytest.mark.parametrize("level", ["trace", "", "chatty", "x" * 10_000])
def test_levels_that_the_backend_may_not_set(
    settings: SettingsInForce, levels: Levels, level: str, caplog: pytest.LogCaptureFixture
) -> None:
    settings.apply(RemoteSettings(log_level=level))
    assert levels == []
    assert "which is not one of: debug, info, warn, error" in caplog.text
    assert len(caplog.text) < 1_000


@pytest.mark.parametrize(("asked", "got"), [(10, 10), (0, 5), (-1, 5), (1e9, 60), (None, 30)])
def test_heartbeats_are_neither_a_burden_nor_too_rare(
    settings: SettingsInForce, asked: float | None, got: float
) -> None:
    settings.apply(RemoteSettings(heartbeat_interval_secs=asked))
    assert settings.heartbeat_interval_s == got


@pytest.mark.parametrize(("asked", "got"), [(600, 600), (1, 60), (10**12, 7 * 86_400), (None, 3_600)])
def test_discoveries_likewise(settings: SettingsInForce, asked: int | None, got: float) -> None:
    settings.apply(RemoteSettings(discovery_interval_secs=asked))
    assert settings.discovery_interval_s == got


def test_natives_are_switched_off_in_addition_and_never_on(settings: SettingsInForce) -> None:
    settings.apply(RemoteSettings(disabled_natives=["file_read", *(f"n{number}" for number in range(10_000))]))
    assert "file_read" in settings.disabled_natives
    assert len(settings.disabled_natives) == 200
    assert len(settings.describe()[0]) < 1_000
    settings.apply(RemoteSettings())
    assert settings.disabled_natives == frozenset()
    assert settings.describe() == []


async def test_pause_ends_earlier_when_the_interval_becomes_shorter(settings: SettingsInForce) -> None:
    lengths = iter((60.0, 0.0))
    pausing = asyncio.create_task(settings.pause(lambda: next(lengths)))
    await asyncio.sleep(0)
    assert not pausing.done()
    settings.apply(RemoteSettings(heartbeat_interval_secs=5))
    async with asyncio.timeout(5):
        await pausing


# Through the protocol


def update(settings: RemoteSettings, **fields: Any) -> ConfigUpdate:
    return replace(ConfigUpdate(AGENT_ID, datetime.now(UTC), "r-1", [], settings), **fields)


async def test_settings_hold_over_a_restart_until_they_are_taken_back(open_host: OpenHost) -> None:
    async with open_host() as host:
        await host.gateway.tell(update(RemoteSettings(disabled_natives=["uptime"])))
        refused = await host.gateway.run(NativeCommand("uptime"))
        assert refused["outcome"] == "rejected"
        assert refused["error"] == "native command 'uptime' is switched off by what OpsMap has set on this agent"
        assert (await host.gateway.run(NativeCommand("os_info")))["success"]
        await host.stop()
        host.gateway.forget()
        await host.start_again()
        assert (await host.gateway.run(NativeCommand("uptime")))["outcome"] == "rejected"
        await host.gateway.tell(update(RemoteSettings()))
        assert (await host.gateway.run(NativeCommand("uptime")))["success"]


async def test_switch_of_the_host_stays_off_whatever_the_backend_says(
    open_host: OpenHost, agent_configuration: Configuration
) -> None:
    natives = replace(agent_configuration.native_commands, uptime=False)
    async with open_host(native_commands=natives) as host:
        await host.gateway.tell(update(RemoteSettings(disabled_natives=[])))
        refused = await host.gateway.run(NativeCommand("uptime"))
        assert "switched off in native_commands" in refused["error"]
