"""An agent reads and writes what every implementation does: the golden examples of the protocol."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from opsmap_protocol.codec import build, to_plain
from opsmap_protocol.messages import Command, ConfigUpdate
from opsmap_protocol.specs import NativeCommand
from testing_frames import GOLDEN

OpenHost = Callable[..., AbstractAsyncContextManager[Any]]


def required_members(kind: str) -> set[str]:
    return {name for name in GOLDEN[kind][0] if name != "open_requests"} | {"signed_by", "signature"}


async def test_what_an_agent_says_has_the_golden_members(open_host: OpenHost) -> None:
    async with open_host() as host:
        gateway = host.gateway
        assert set(gateway.registration) == required_members("register")
        assert set(gateway.presence) - {"open_requests"} == required_members("presence")
        result = await gateway.run(NativeCommand("uptime"))
        golden = next(each["body"] for each in GOLDEN["events"][0]["events"] if each["body"]["type"] == result["type"])
        assert set(result) <= set(golden)
        await gateway.until(lambda: bool(gateway.heartbeats))
        assert set(gateway.heartbeats[0]) == set(GOLDEN["heartbeat"][0])


async def test_an_agent_understands_each_golden_command(open_host: OpenHost) -> None:
    """As it is written: late, so none is run, and each is answered by its end."""
    async with open_host() as host:
        for example in GOLDEN["command"]:
            plain = {**example, "target_agent": "srv-1"}
            assert to_plain(build(Command, plain)) == plain
            await host.gateway.wire.send(host.gateway.sealer.seal(plain))
            body = await host.gateway.body("command_result", example["request_id"])
            assert body["outcome"] in ("expired", "rejected"), body


async def test_an_agent_understands_the_golden_configuration_and_questions(open_host: OpenHost) -> None:
    async with open_host() as host:
        update = {**GOLDEN["config_update"][0], "target_agent": "srv-1"}
        assert to_plain(build(ConfigUpdate, update)) == update
        await host.gateway.wire.send(host.gateway.sealer.seal(update))
        checks = {check["check_id"] for check in update["health_checks"]}
        told = lambda: {event["body"].get("check_id") for event in host.gateway.events}  # noqa: E731 - one word
        await host.gateway.until(lambda: bool(checks & told()))
        for kind, answer in (("probe_commands", "probe_result"), ("check_job_status", "job_statuses")):
            question = {**GOLDEN[kind][0], "target_agent": "srv-1"}
            await host.gateway.wire.send(host.gateway.sealer.seal(question))
            await host.gateway.until(lambda answer=answer: any(each["type"] == answer for each in host.gateway.replies))
            reply = next(each for each in host.gateway.replies if each["type"] == answer)
            assert set(reply) == required_members(answer) | (set(reply) & {"open_requests"}), json.dumps(reply)
