"""A gateway that was taken over achieves nothing: it can withhold, and nothing else.

Nothing is executed that the backend did not ask, nothing is believed that the agent did not say, and hosts of other
gateways are not touched.
"""

from __future__ import annotations

import asyncio
import json
import random
import uuid
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from channels.db import database_sync_to_async

from apps.gateways.actions import requests
from apps.gateways.tests.factories import DETACHED, SYNC, SYSTEM
from opsmap_protocol.messages import AgentOffline, AgentOnline
from opsmap_trust.keys import SealingKey
from opsmap_trust.seals import Sealer
from tests.adversary.hostile import Host, HostileGateway, Place, honestly, state_of, until

pytestmark = [pytest.mark.django_db(transaction=True)]

OWN_KEY = SealingKey(bytes(range(32)), "backend")
QUIET_S = 0.5
"""How long a test waits for what must not happen."""


async def still_works(host: Host, gateway: HostileGateway) -> None:
    """Once its gateway is honest again, the host is as it was."""
    gateway.to_agent = gateway.to_backend = honestly
    command = await host.ask("afterwards")
    assert await host.end_of(command) == "succeeded"
    assert host.place.executed()[-1] == "afterwards"


async def test_an_honest_one_carries(acme: Place) -> None:
    async with acme.gateway() as gateway, acme.host(gateway) as host:
        assert await host.end_of(await host.ask("done")) == "succeeded"
        assert await host.end_of(await host.ask("failed", exit_code=3)) == "failed"
    assert acme.executed() == ["done", "failed"]


# Commands


def altered(data: dict[str, Any]) -> list[dict[str, Any]]:
    """The command with something else in it, in every way that would pay."""
    spec = data["command"]
    return [
        {**data, "command": {**spec, "args": ["altered", "0"]}},
        {**data, "command": {**spec, "env": {"LD_PRELOAD": "/tmp/x.so"}}},  # noqa: S108 - it is refused
        {**data, "command": {"type": "execute", "path": "/usr/bin/touch", "args": [spec["path"] + ".altered"]}},
        {**data, "request_id": str(uuid.uuid4())},
        {**data, "not_after": "2099-01-01T00:00:00+00:00"},
        {**data, "issued_at": "2026-01-01T00:00:00+00:00"},
        {**data, "epoch": data["epoch"] + 1},
        {**data, "subject": str(uuid.uuid4())},
        {**data, "timeout_ms": float(data["timeout_ms"])},
        {**data, "since": None},
        {name: value for name, value in data.items() if name != "signature"},
        {name: value for name, value in data.items() if name not in ("signature", "signed_by")},
    ]


async def test_an_altered_command_is_not_run_and_uses_nothing_up(acme: Place) -> None:
    async with acme.gateway() as gateway, acme.host(gateway) as host:
        gateway.to_agent = lambda data, frame: altered(data) if data["type"] == "command" else [frame]
        command = await host.ask("asked")
        await until(lambda: len(gateway.heard("error")) >= 12)
        await asyncio.sleep(QUIET_S)
        assert acme.executed() == []
        assert gateway.heard("command_received") == []
        # The agent has not heard of the request: the true command under the same id is run, once.
        (true_one,) = gateway.sent("command")
        await gateway.tell_agent(true_one)
        assert await host.end_of(command) == "succeeded"
        assert acme.executed() == ["asked"]
        await still_works(host, gateway)


async def test_a_command_of_its_own_is_not_run(acme: Place) -> None:
    async with acme.gateway() as gateway, acme.host(gateway) as host:
        assert await host.end_of(await host.ask("first")) == "succeeded"
        (true_one,) = gateway.sent("command")
        spec = {**true_one["command"], "args": ["forged", "0"]}
        organization = str(acme.organization.pk)
        for key_id in (true_one["signed_by"], "0" * 64):
            sealer = Sealer(OWN_KEY, key_id, organization)
            plain = {name: value for name, value in true_one.items() if name not in ("signature", "signed_by")}
            await gateway.tell_agent(sealer.seal({**plain, "request_id": str(uuid.uuid4()), "command": spec}))
        # What the agent itself has sealed is no seal of the backend, either.
        await gateway.tell_agent({**gateway.heard("events")[-1], "type": "command", "target_agent": host.name})
        await until(lambda: len(gateway.heard("error")) >= 3)
        assert acme.executed() == ["first"]
        await still_works(host, gateway)


async def test_a_key_of_its_own_does_not_become_the_backends(acme: Place) -> None:
    """Neither its TLS certificate, nor the agent's, nor one that it makes itself."""
    async with acme.gateway() as gateway, acme.host(gateway) as host:
        (trust,) = gateway.sent("trust")
        certificate = gateway.from_agent[0]["certificate"]
        for certificates in ([certificate], [certificate[:-8] + "AAAAAAA="], ["garbage"], [certificate] * 1_000, []):
            await gateway.tell_agent({**trust, "certificates": certificates})
        await until(lambda: len(gateway.heard("error")) >= 5)
        await still_works(host, gateway)


async def test_a_replayed_command_is_not_run_again(acme: Place) -> None:
    async with acme.gateway() as gateway, acme.host(gateway) as host:
        gateway.to_agent = lambda data, frame: [frame] * 20 if data["type"] == "command" else [frame]
        assert await host.end_of(await host.ask("once")) == "succeeded"
        for _ in range(20):
            await gateway.tell_agent(gateway.sent("command")[0])
        await still_works(host, gateway)
        assert Counter(acme.executed()) == {"once": 1, "afterwards": 1}


async def test_an_older_command_about_the_same_subject_is_not_run_after_a_newer_one(acme: Place) -> None:
    async with acme.gateway() as gateway, acme.host(gateway) as host:
        held: list[str] = []

        def hold(data: dict[str, Any], frame: str) -> list[Any]:
            if data["type"] == "command" and data["epoch"] == 1:
                held.append(frame)
                return []
            return [frame]

        gateway.to_agent = hold
        subject = uuid.uuid4()
        older = await host.ask("older", subject=subject, epoch=1)
        newer = await host.ask("newer", subject=subject, epoch=2)
        assert await host.end_of(newer) == "succeeded"
        await until(lambda: held)
        await gateway.tell_agent(held[0])
        assert await host.end_of(older) == "rejected"
        assert acme.executed() == ["newer"]


async def test_a_command_that_was_withheld_is_not_run_late(acme: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "DELIVERY_TIME", timedelta(seconds=1))
    async with acme.gateway() as gateway, acme.host(gateway) as host:
        gateway.to_agent = lambda data, frame: [] if data["type"] == "command" else [frame]
        command = await host.ask("late")
        await until(lambda: gateway.sent("command"))
        await asyncio.sleep(1.2)
        await gateway.tell_agent(gateway.sent("command")[0])
        assert await host.end_of(command) == "expired"
        assert acme.executed() == []


async def test_a_command_for_another_agent_is_not_run(acme: Place) -> None:
    async with acme.gateway() as gateway, acme.host(gateway) as host:
        assert await host.end_of(await host.ask("first")) == "succeeded"
        recorded = gateway.sent("command")[0]
        async with acme.gateway("gw-2") as second, acme.host(second, name="srv-2") as other:
            await second.tell_agent(recorded)
            await second.tell_agent({**recorded, "target_agent": "srv-2"})
            await until(lambda: len(second.heard("error")) >= 2)
            assert acme.executed() == ["first"]
            await still_works(other, second)


async def test_a_command_for_another_organization_is_not_run(acme: Place, umbrella: Place) -> None:
    """One key seals for all organizations, and two of them may well have a `srv-1`.

    Whoever takes over a gateway here and is a customer there could have the backend seal whatever he likes.
    """
    async with umbrella.gateway() as there, umbrella.host(there) as elsewhere:
        there.to_agent = lambda data, frame: [] if data["type"] in ("command", "config_update") else [frame]
        spec = {"type": "script", "path": str(acme.folder / "mark.sh"), "args": ["foreign", "0"]}
        await elsewhere.ask("-", spec=spec)
        await until(lambda: there.sent("command") and there.sent("config_update"))
        recorded = there.sent("command")[0]
        assert recorded["target_agent"] == "srv-1"
        async with acme.gateway() as gateway, acme.host(gateway) as host:
            for kind in ("command", "config_update", "challenge", "resume"):
                before = len(gateway.heard("error"))
                await gateway.tell_agent(there.sent(kind)[0])
                await until(lambda before=before: len(gateway.heard("error")) > before)
            assert acme.executed() == []
            await still_works(host, gateway)


# Everything else that the backend says


def forgeries(host: Host, gateway: HostileGateway, message: dict[str, Any]) -> list[Any]:
    """What the backend did not say: without a seal, and with one of another key, under its own and the true name."""
    organization, true_id = str(host.place.organization.pk), gateway.sent("challenge")[0]["signed_by"]
    return [message, *(Sealer(OWN_KEY, key_id, organization).seal(message) for key_id in ("0" * 64, true_id))]


@pytest.mark.parametrize(
    "kind",
    ["challenge", "resume", "events_ack", "config_update", "check_job_status", "probe_commands"],
)
async def test_nothing_else_of_the_backend_can_be_forged(acme: Place, kind: str) -> None:
    async with acme.gateway() as gateway, acme.host(gateway) as host:
        incarnation, token = gateway.heard("presence")[0]["incarnation"], gateway.heard("presence")[0]["token"]
        probe = {"type": "command", "command": str(acme.folder / "mark.sh"), "args": ["health"]}
        forged: dict[str, Any] = {
            "challenge": {"nonce": gateway.from_agent[0]["nonce"], "token": "f" * 32},
            "resume": {
                "token": token,
                "incarnation": incarnation,
                "acked_seq": 10_000,
                "in_use_since": "2098-01-01T00:00:00Z",
            },
            "events_ack": {"incarnation": incarnation, "seq": 10_000},
            "config_update": {
                "issued_at": "2098-01-01T00:00:00Z",
                "revision": "r",
                "health_checks": [{"check_id": "c", "probe": probe, "interval_ms": 100}],
            },
            "check_job_status": {"job_ids": ["j"]},
            "probe_commands": {"request_ids": [str(uuid.uuid4())]},
        }[kind]
        before = len(gateway.from_agent)
        for frame in forgeries(host, gateway, {"type": kind, "target_agent": host.name, **forged}):
            await gateway.tell_agent(frame)
        await until(lambda: len(gateway.heard("error")) >= 3)
        await asyncio.sleep(QUIET_S)
        said = {frame["type"] for frame in gateway.from_agent[before:]}
        assert said <= {"error", "heartbeat"}
        assert acme.executed() == []
        await still_works(host, gateway)


@pytest.mark.parametrize("execution", [SYNC, DETACHED], ids=["sync", "job"])
async def test_what_runs_cannot_be_cancelled(acme: Place, execution: dict[str, Any]) -> None:
    go = acme.folder / "go"
    waits = {"type": "execute", "path": "sh", "args": ["-c", f"while [ ! -e {go} ]; do sleep 0.02; done"]}
    async with acme.gateway() as gateway, acme.host(gateway) as host:
        command = await host.ask("-", spec=waits, execution=execution)
        await until(lambda: gateway.heard("command_received"))
        for kill in (False, True):
            cancel = {"type": "cancel_command", "target_agent": host.name, "request_id": str(command.pk), "kill": kill}
            for frame in forgeries(host, gateway, cancel):
                await gateway.tell_agent(frame)
        await until(lambda: len(gateway.heard("error")) >= 6)
        await asyncio.sleep(QUIET_S)
        go.touch()
        assert await host.end_of(command) == "succeeded"


async def test_what_runs_is_cancelled_by_the_backend(acme: Place) -> None:
    """What the forged ones of the test before would do."""
    waits = {"type": "execute", "path": "sleep", "args": ["60"]}
    async with acme.gateway() as gateway, acme.host(gateway) as host:
        command = await host.ask("-", spec=waits, execution=DETACHED)
        await until(lambda: gateway.heard("command_received"))
        await database_sync_to_async(requests.cancel_command)(command=command, actor=SYSTEM)
        assert await host.end_of(command) == "cancelled"


async def test_a_challenge_of_an_earlier_session_diverts_nothing(acme: Place) -> None:
    """A replay of it and its `resume` would have the agent tell its events to nobody."""
    async with acme.gateway() as gateway, acme.host(gateway) as host:
        await until(lambda: gateway.sent("resume"))
        assert gateway.agent is not None
        await gateway.agent.close()
        await until(lambda: len(gateway.heard("presence")) == 2)
        await until(lambda: len(gateway.sent("resume")) == 2)
        for kind in ("challenge", "resume"):
            await gateway.tell_agent(gateway.sent(kind)[0])
        await until(lambda: len(gateway.heard("error")) >= 2)
        assert len(gateway.heard("presence")) == 2
        await still_works(host, gateway)


async def test_a_gateway_may_announce_an_agent_again(acme: Place) -> None:
    """As one does that has lost the backend for a while: same `register`, another challenge, and no way back."""
    async with acme.gateway() as gateway, acme.host(gateway) as host:
        await until(lambda: gateway.sent("resume"))
        gateway.session_id = session_id = f"s-{uuid.uuid4()}"
        await gateway.tell_backend(AgentOnline("gw-1", session_id, gateway.from_agent[0]))
        await until(lambda: len(gateway.heard("presence")) == 2)
        first, second = gateway.sent("challenge")
        assert first["nonce"] == second["nonce"] == gateway.from_agent[0]["nonce"]
        assert first["token"] != second["token"]
        await until(lambda: len(gateway.sent("resume")) == 2)
        for kind in ("challenge", "resume"):
            await gateway.tell_agent(gateway.sent(kind)[0])
        await until(lambda: len(gateway.heard("error")) >= 2)
        assert len(gateway.heard("presence")) == 2
        await still_works(host, gateway)


async def test_a_forged_acknowledgement_loses_nothing(acme: Place) -> None:
    async with acme.gateway() as gateway, acme.host(gateway) as host:

        def swallow(data: dict[str, Any], frame: str) -> list[Any]:
            """Keep the agent's events, and tell it that they have arrived."""
            if data["type"] != "events":
                return [frame]
            ack = {"incarnation": data["incarnation"], "seq": data["events"][-1]["seq"]}
            forged = {"type": "events_ack", "target_agent": host.name, **ack}
            asyncio.get_running_loop().create_task(gateway.tell_agent(forged))
            return []

        gateway.to_backend = swallow
        command = await host.ask("told")
        await until(lambda: gateway.heard("error"))
        assert await state_of(command) in ("sent", "received")
        gateway.to_backend = honestly
        assert gateway.agent is not None
        await gateway.agent.close()
        assert await host.end_of(command) == "succeeded"
        assert acme.executed() == ["told"]


# What agents say


def as_success(data: dict[str, Any]) -> dict[str, Any]:
    events = [{**each, "body": {**each["body"], "success": True, "outcome": "succeeded"}} for each in data["events"]]
    return {**data, "events": events}


def without_seal(data: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in as_success(data).items() if name not in ("signed_by", "signature")}


def with_own_seal(data: dict[str, Any]) -> str:
    return Sealer(SealingKey(bytes(32), "agent"), data["signed_by"]).seal(without_seal(data))


@pytest.mark.parametrize("forge", [as_success, without_seal, with_own_seal])
async def test_a_result_that_the_agent_did_not_report_is_not_believed(
    acme: Place, forge: Callable[[dict[str, Any]], Any]
) -> None:
    async with acme.gateway() as gateway, acme.host(gateway) as host:
        gateway.to_backend = lambda data, frame: [forge(data)] if data["type"] == "events" else [frame]
        command = await host.ask("failed", exit_code=3)
        await until(lambda: gateway.heard("events"))
        await asyncio.sleep(QUIET_S)
        assert await state_of(command) in ("sent", "received")
        await gateway.tell_backend(gateway.heard("events")[-1])
        assert await host.end_of(command) == "failed"


async def test_old_results_are_none_of_new_commands(acme: Place) -> None:
    async with acme.gateway() as gateway, acme.host(gateway) as host:
        assert await host.end_of(await host.ask("first")) == "succeeded"
        recorded = [frame for frame in gateway.from_agent if frame["type"] in ("events", "command_received")]
        gateway.to_agent = lambda data, frame: [] if data["type"] == "command" else [frame]
        command = await host.ask("second")
        await until(lambda: len(gateway.sent("command")) == 2)
        for frame in recorded * 5:
            await gateway.tell_backend(frame)
            await gateway.tell_backend(json.dumps(frame).replace(frame.get("request_id", "-"), str(command.pk)))
        await asyncio.sleep(QUIET_S)
        assert await state_of(command) == "sent"
        assert acme.executed() == ["first"]


async def test_an_agent_that_has_gone_cannot_be_kept_alive(acme: Place) -> None:
    """Replayed words of its session do not answer a new challenge."""
    async with acme.gateway() as gateway:
        async with acme.host(gateway) as host:
            register, presence = gateway.from_agent[0], gateway.heard("presence")[0]
        await until_offline(host)
        for _ in range(3):
            await gateway.tell_backend(AgentOnline("gw-1", "s-replayed", register))
            await gateway.tell_backend(presence)
            await gateway.tell_backend({**presence, "token": gateway.sent("challenge")[-1]["token"]})
        await asyncio.sleep(QUIET_S)
        assert not await host.is_online()


async def until_offline(host: Host) -> None:
    async with asyncio.timeout(10):
        while await host.is_online():  # noqa: ASYNC110 - the database tells nobody
            await asyncio.sleep(0.01)


async def test_agents_of_other_gateways_are_not_affected(acme: Place, umbrella: Place) -> None:
    """It claims them, says that they are gone, speaks for them, refuses their commands."""
    async with (
        acme.gateway("gw-1") as honest,
        acme.host(honest) as host,
        umbrella.gateway("gw-1") as there,
        umbrella.host(there) as elsewhere,
        acme.gateway("gw-evil") as evil,
    ):
        for gateway, name in ((honest, "gw-1"), (honest, "gw-evil"), (there, "gw-evil")):
            register, presence = gateway.from_agent[0], gateway.heard("presence")[0]
            await evil.tell_backend(AgentOnline(name, gateway.session_id, register))
            await evil.tell_backend(presence)
            await evil.tell_backend(AgentOffline(name, "srv-1", gateway.session_id, "stolen"))
            for frame in gateway.from_agent:
                await evil.tell_backend(frame)
        first, second = await asyncio.gather(host.ask("here"), elsewhere.ask("there"))
        for command in (first, second):
            refusal = {"gateway_id": "gw-evil", "target_agent": "srv-1", "code": "queue_full", "reason": "mine"}
            await evil.tell_backend({"type": "command_refused", "request_id": str(command.pk), **refusal})
        assert await host.end_of(first) == "succeeded"
        assert await elsewhere.end_of(second) == "succeeded"
        assert await host.is_online()
        assert await elsewhere.is_online()
        assert [frame["target_agent"] for frame in evil.sent("command")] == []
    assert (acme.executed(), umbrella.executed()) == (["here"], ["there"])


async def test_a_host_with_two_gateways_is_served_by_the_honest_one(acme: Place) -> None:
    """The hostile one says that the agent is gone from it: from here on it has nothing to withhold."""
    async with acme.gateway("gw-1") as honest, acme.gateway("gw-evil") as evil, acme.host(honest, evil) as host:
        await until(lambda: honest.heard("presence") and evil.heard("presence"))
        evil.to_agent = lambda data, frame: altered(data) if data["type"] == "command" else [frame]
        await evil.tell_backend(AgentOffline("gw-evil", "srv-1", evil.session_id, "as it says"))
        await asyncio.sleep(QUIET_S)
        assert await host.end_of(await host.ask("served")) == "succeeded"
        assert acme.executed() == ["served"]


# Everything at once


class Chaos:
    """Drops, doubles, holds back, reorders, alters and replays whatever passes, both ways."""

    def __init__(self, gateway: HostileGateway, seed: int) -> None:
        self.gateway = gateway
        self.chance = random.Random(seed)  # noqa: S311 - the same each time
        self.seen: list[Any] = []
        self.held: list[Any] = []

    def __call__(self, data: dict[str, Any], frame: str) -> list[Any]:
        self.seen.append(frame)
        out: list[Any] = []
        match self.chance.randrange(8):
            case 0:
                self.held.append(frame)
            case 1:
                out = [frame, frame]
            case 2:
                out = [self.altered(data), frame]
            case 3:
                out = [frame, self.chance.choice(self.seen)]
            case 4:
                out = [*self.held, frame]
                self.held.clear()
            case _:
                out = [frame]
        self.chance.shuffle(out)
        return out

    def altered(self, data: dict[str, Any]) -> dict[str, Any]:
        name = self.chance.choice([each for each in data if each != "type"])
        other = json.loads(self.chance.choice(self.seen))
        return {**data, name: other.get(name, "x")}


@pytest.mark.parametrize("seed", [1, 2])
async def test_whatever_it_does_commands_run_at_most_once_and_are_believed_only_if_they_did(
    acme: Place, seed: int
) -> None:
    async with acme.gateway() as gateway, acme.host(gateway) as host:
        gateway.to_agent, gateway.to_backend = Chaos(gateway, seed), Chaos(gateway, -seed)
        asked = {f"m{number}": await host.ask(f"m{number}", exit_code=number % 3) for number in range(30)}
        await asyncio.sleep(2)
        gateway.to_agent = gateway.to_backend = honestly
        if gateway.agent is not None:
            await gateway.agent.close()
        for mark, command in asked.items():
            state = await host.end_of(command, 30)
            times = acme.executed().count(mark)
            assert times <= 1, mark
            number = int(mark[1:])
            expected = "succeeded" if number % 3 == 0 else "failed"
            assert (state == expected) == (times == 1), (mark, state, times)
        assert set(acme.executed()) <= set(asked)
