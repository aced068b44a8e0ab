"""A gateway carries each golden frame where it belongs, byte for byte, or takes it for itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from opsmap_protocol.messages import SEALED_BY_AGENT, SEALED_BY_BACKEND
from testing_frames import GOLDEN

OpenZone = Callable[..., AbstractAsyncContextManager[Any]]

AGENT = "srv-data-01"
PASSED_UP = [*sorted(SEALED_BY_AGENT - {"register", "discovery_result"}), "error"]
PASSED_DOWN = [*sorted(SEALED_BY_BACKEND), "trust"]


@pytest.mark.parametrize("kind", PASSED_UP)
async def test_what_an_agent_says_reaches_the_backend_unchanged(open_zone: OpenZone, kind: str) -> None:
    async with open_zone() as zone, zone.agent(AGENT) as agent:
        for example in GOLDEN[kind]:
            frame = json.dumps(example, indent=1)
            await agent.send(frame)
            assert await zone.link.next_frame() == frame


@pytest.mark.parametrize("kind", PASSED_DOWN)
async def test_what_the_backend_says_reaches_the_agent_unchanged(open_zone: OpenZone, kind: str) -> None:
    async with open_zone() as zone, zone.agent(AGENT) as agent:
        for example in GOLDEN[kind]:
            frame = json.dumps(example, indent=1)
            await zone.link.send(frame)
            assert await agent.next_frame() == frame


async def test_a_broadcast_becomes_the_commands_that_it_is_made_of(open_zone: OpenZone) -> None:
    (golden,) = GOLDEN["broadcast_command"]
    hostnames = {"srv-data-01": "srv-data-01.acme.example", "srv-app-01": "srv-app-01.acme.example"}
    facts = {name: {"hostname": hostname, "labels": {"role": "database"}} for name, hostname in hostnames.items()}
    async with (
        open_zone() as zone,
        zone.agent("srv-data-01", **facts["srv-data-01"]) as first,
        zone.agent("srv-app-01", **facts["srv-app-01"]) as second,
    ):
        await zone.link.send(json.dumps(golden))
        for wire, target in zip((first, second), golden["targets"], strict=True):
            identity = {"target_agent": target["target_agent"], "request_id": target["request_id"]}
            assert await wire.next("command") == {**golden["shared"], **identity, **target["fields"]}


async def test_what_a_gateway_says_has_the_golden_members(open_zone: OpenZone) -> None:
    async with open_zone() as zone:
        async with zone.dial(zone.pki.agent(AGENT)) as wire:
            await wire.send(zone.registration(AGENT))
            assert set(await wire.next("registered")) == set(GOLDEN["registered"][0])
            online = await zone.link.next("agent_online")
            assert set(online) == set(GOLDEN["agent_online"][0])
            assert set(online["agent"]) == set(GOLDEN["agent_online"][0]["agent"])
            await zone.link.send(json.dumps({**GOLDEN["command"][0], "target_agent": "srv-none"}))
            assert set(await zone.link.next("command_refused")) == set(GOLDEN["command_refused"][0])
        assert set(await zone.link.next("agent_offline")) == set(GOLDEN["agent_offline"][0])
