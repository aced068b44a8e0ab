"""A whole agent through a whole gateway, with only the backend scripted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from opsmap_agent.agent import Agent
from opsmap_agent.configuration import Configuration
from opsmap_daemon.backoff import Reconnect
from opsmap_protocol.messages import Challenge, Command, Resume, Trust
from opsmap_protocol.specs import AsyncMode, CommandSpec, ExecuteCommand, ExecutionMode, NativeCommand, SyncMode
from opsmap_trust.seals import check_seal

if TYPE_CHECKING:
    from conftest import OpenZone, Zone

AGENT_ID = "srv-1"


@asynccontextmanager
async def agent_in(zone: Zone, configuration: Configuration) -> AsyncIterator[dict[str, Any]]:
    """An agent that the backend has heard of; gives its `agent_online`."""
    gateway = replace(configuration.gateway, url=zone.url, reconnect=Reconnect(10, 20))
    running = asyncio.create_task(Agent(replace(configuration, gateway=gateway)).run())
    try:
        online = await zone.link.next("agent_online")
        check_seal(online["agent"], zone.pki.agent(AGENT_ID).verifying_key())
        await zone.link.send(Trust(AGENT_ID, [zone.pki.signer().encoded()]))
        await zone.link.send(sealed(zone, Challenge(AGENT_ID, online["agent"]["nonce"], "token-1")))
        presence = await zone.link.next("presence")
        await zone.link.send(sealed(zone, Resume(AGENT_ID, "token-1", presence["incarnation"], 0, datetime.now(UTC))))
        yield online
    finally:
        running.cancel()
        await asyncio.wait([running])


def sealed(zone: Zone, message: Any) -> str:
    return zone.pki.signer().sealer("backend").seal(message)


def command(zone: Zone, spec: CommandSpec, mode: ExecutionMode) -> str:
    now = datetime.now(UTC)
    until = now + timedelta(seconds=30)
    return sealed(zone, Command("r-1", AGENT_ID, spec, mode, timeout_ms=5_000, issued_at=now, not_after=until))


async def bodies(zone: Zone, last: str) -> list[dict[str, Any]]:
    """The bodies of all events up to one of type `last`; the agent's seal must have come through."""
    seen: list[dict[str, Any]] = []
    while not seen or seen[-1]["type"] != last:
        frame = await zone.link.next("events", "command_received", "aggregated_heartbeat")
        if frame["type"] != "aggregated_heartbeat":
            check_seal(frame, zone.pki.agent(AGENT_ID).verifying_key())
        seen.extend(event["body"] for event in frame.get("events", []))
    return seen


async def test_native_command_there_and_back(open_zone: OpenZone, agent_configuration: Configuration) -> None:
    async with open_zone() as zone, agent_in(zone, agent_configuration) as online:
        assert online["agent"]["agent_id"] == AGENT_ID
        await zone.link.send(command(zone, NativeCommand("os_info"), SyncMode(5_000)))
        (result,) = await bodies(zone, "command_result")
        assert result["result"]["hostname"] == online["agent"]["hostname"]


async def test_job_there_and_back(open_zone: OpenZone, agent_configuration: Configuration) -> None:
    async with open_zone() as zone, agent_in(zone, agent_configuration):
        await zone.link.send(command(zone, ExecuteCommand("sh", ["-c", "echo '<b>\"é'"]), AsyncMode()))
        started, status = await bodies(zone, "async_status")
        assert (started["type"], status["status"], status["log_tail"]) == ("async_started", "completed", '<b>"é\n')
