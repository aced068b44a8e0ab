"""One frame of the backend, many agents."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from opsmap_gateway.broadcast import is_meant
from opsmap_gateway.configuration import Routing
from opsmap_gateway.counters import Loss
from opsmap_protocol.messages import AgentFilter, BroadcastCommand, BroadcastTarget, Command, OsInfo, Register
from opsmap_protocol.specs import NativeCommand, SyncMode
from opsmap_trust.keys import SealingKey, VerifyingKey
from opsmap_trust.seals import Sealer, check_seal
from testing_pki import ORGANIZATION

if TYPE_CHECKING:
    from conftest import OpenZone

KEY = SealingKey(b"k" * 32, "backend")
SEALER = Sealer(KEY, "key-1", ORGANIZATION)
EVERYBODY = AgentFilter()


def sealed(agent_id: str, epoch: int) -> dict[str, Any]:
    """What the backend seals for one agent."""
    return SEALER.seal_object(
        Command(
            request_id=f"r-{agent_id}",
            target_agent=agent_id,
            command=NativeCommand("uptime", {"note": "é <b>", "share": 0.1}),
            execution_mode=SyncMode(),
            timeout_ms=5_000,
            issued_at=datetime(2026, 1, 1, tzinfo=UTC),
            not_after=datetime(2030, 1, 1, tzinfo=UTC),
            epoch=epoch,
        )
    )


def broadcast(*agents: str, among: AgentFilter = EVERYBODY, **shared_too: Any) -> BroadcastCommand:
    """As the backend writes it: what all commands have in common, and the rest of each."""
    commands = [sealed(agent_id, epoch) for epoch, agent_id in enumerate(agents, start=1)]
    own = {"target_agent", "request_id", "epoch", "signature"}
    targets = [
        BroadcastTarget(each["target_agent"], each["request_id"], {key: each[key] for key in ("epoch", "signature")})
        for each in commands
    ]
    shared = {key: value for key, value in commands[0].items() if key not in own}
    return BroadcastCommand(request_id="b-1", filter=among, shared=shared | shared_too, targets=targets)


async def test_each_agent_gets_what_the_backend_sealed_for_it(open_zone: OpenZone) -> None:
    async with open_zone() as zone, zone.agent("srv-1") as one, zone.agent("srv-2") as two:
        await zone.link.send(broadcast("srv-1", "srv-2"))
        for wire, agent_id, epoch in ((one, "srv-1", 1), (two, "srv-2", 2)):
            got = await wire.next("command")
            assert got == sealed(agent_id, epoch)
            check_seal(got, VerifyingKey(KEY.public_bytes, "backend", ORGANIZATION))
        assert zone.gateway.delivery.commands == {"forwarded": 2}


async def test_absent_and_changed_agents_are_answered_for(open_zone: OpenZone) -> None:
    among = AgentFilter(labels={"tier": "data"})
    async with open_zone() as zone, zone.agent("srv-1") as one, zone.agent("srv-2", labels={"tier": "web"}) as two:
        await zone.link.send(broadcast("srv-1", "srv-2", "srv-9", among=among))
        assert (await one.next("command"))["request_id"] == "r-srv-1"
        refused = [await zone.link.next("command_refused") for _ in range(2)]
        assert [(each["request_id"], each["code"]) for each in refused] == [
            ("r-srv-2", "filter_mismatch"),
            ("r-srv-9", "agent_offline"),
        ]
        # Nothing has reached it before this.
        await zone.link.send('{"type":"challenge","target_agent":"srv-2","token":"t"}')
        await two.next("challenge")


async def test_limits_hold_for_broadcasts_too(open_zone: OpenZone) -> None:
    async with open_zone(routing=Routing(command_queue_size=3)) as zone, zone.agent("srv-1") as one:
        # More than the socket takes at once, so that some have to wait.
        large = broadcast(*["srv-1"] * 20, padding="x" * 1_000_000)
        one.socket.transport.pause_reading()
        for start in range(0, 20, 3):
            part = large.targets[start : start + 3]
            await zone.link.send(BroadcastCommand("b-1", EVERYBODY, large.shared, part))
        refused = await zone.link.next("command_refused")
        assert refused["code"] == "queue_full"
        assert zone.gateway.registry.get("srv-1") is not None
        one.socket.transport.abort()


@pytest.mark.parametrize("shared_too", [{"type": "resume"}, {"type": None}, {"type": "trust"}])
async def test_only_commands_are_broadcast(open_zone: OpenZone, shared_too: dict[str, Any]) -> None:
    async with open_zone() as zone, zone.agent("srv-1"):
        await zone.link.send(broadcast("srv-1", **shared_too))
        assert (await zone.link.next("error"))["code"] == "malformed_message"
        assert zone.gateway.counters.total(Loss.BAD_FRAME_FROM_BACKEND) == 1
        assert zone.gateway.delivery.commands == {}


async def test_a_target_cannot_change_type_or_addressee(open_zone: OpenZone) -> None:
    async with open_zone() as zone, zone.agent("srv-1") as one:
        message = broadcast("srv-1")
        (target,) = message.targets
        tricky = BroadcastTarget("srv-1", "r-1", {**target.fields, "target_agent": "srv-2", "request_id": "r-2"})
        await zone.link.send(BroadcastCommand("b-1", EVERYBODY, message.shared, [tricky]))
        got = await one.next("command")
        assert (got["target_agent"], got["request_id"]) == ("srv-1", "r-1")
        retyped = BroadcastTarget("srv-1", "r-1", {"type": "resume"})
        await zone.link.send(BroadcastCommand("b-1", EVERYBODY, message.shared, [retyped]))
        assert (await zone.link.next("error"))["code"] == "malformed_message"


def agent(**said: Any) -> Register:
    fields = {
        "agent_id": "srv-1",
        "hostname": "db-1.example",
        "os": OsInfo("linux", "12", "6.1", "x86_64"),
        "labels": {"tier": "data", "site": "paris"},
        "capabilities": [],
        "version": "0.1.0",
        "certificate": "",
        "nonce": "",
    }
    return Register(**fields | said)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("among", "expected"),
    [
        (AgentFilter(), True),
        (AgentFilter(labels={"tier": "data"}), True),
        (AgentFilter(labels={"tier": "data", "site": "lyon"}), False),
        (AgentFilter(labels={"tier": "data", "rack": "7"}), False),
        (AgentFilter(hostname_pattern="db-*"), True),
        (AgentFilter(hostname_pattern="db-?.example"), True),
        (AgentFilter(hostname_pattern="DB-*"), False),
        (AgentFilter(hostname_pattern="db-1"), False),
        (AgentFilter(agent_ids=["srv-1", "srv-2"]), True),
        (AgentFilter(agent_ids=["srv-2"]), False),
        (AgentFilter(agent_ids=[]), False),
        (AgentFilter({"tier": "data"}, "db-*", ["srv-1"]), True),
        (AgentFilter({"tier": "data"}, "web-*", ["srv-1"]), False),
    ],
)
def test_filter(among: AgentFilter, expected: bool) -> None:
    assert is_meant(agent(), among) is expected


def test_broadcast_survives_the_wire() -> None:
    """The seal is over numbers and texts as they were understood, not as they were written."""
    plain = json.loads(json.dumps(sealed("srv-1", 1), indent=3))
    check_seal(plain, VerifyingKey(KEY.public_bytes, "backend", ORGANIZATION))
