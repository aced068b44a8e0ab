"""What the agent obeys: only what the backend has sealed for it, now; whatever a gateway alters, forges or repeats."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import opsmap_agent
from opsmap_agent.agent import Agent
from opsmap_agent.identity.trust import BackendKeys, TrustError
from opsmap_agent.journal.journal import Journal
from opsmap_daemon.configuration import ConfigurationError
from opsmap_protocol.checks import FileProbe, HealthCheck
from opsmap_protocol.codec import encode
from opsmap_protocol.identity import BACKEND_SIGNER_URI
from opsmap_protocol.messages import (
    CancelCommand,
    Challenge,
    CheckJobStatus,
    Command,
    ConfigUpdate,
    Discover,
    EventsAck,
    ProbeCommands,
    Resume,
    Trust,
)
from opsmap_protocol.specs import ExecuteCommand, NativeCommand, SyncMode
from opsmap_trust.seals import SealError
from testing_pki import ORGANIZATION, OTHER_ORGANIZATION, Leaf, Pki

if TYPE_CHECKING:
    from conftest import Host, OpenHost

AGENT_ID = "srv-1"


def touch(path: Path, **fields: Any) -> Command:
    """A command that leaves a trace if it is run."""
    now = datetime.now(UTC)
    command = Command(
        "r-1", AGENT_ID, ExecuteCommand("touch", [str(path)]), SyncMode(5_000), 5_000, now, now + timedelta(seconds=60)
    )
    return replace(command, **fields)


def issued(pki: Pki, uri: str, valid_for: timedelta) -> Leaf:
    """Another certificate for sealing, below the Backend CA."""
    return pki._write_leaf(pki.backend_ca, uri, datetime.now(UTC) + valid_for, seals=True)


async def is_alive(host: Host) -> bool:
    """Whether the agent goes on to do what it should, after all that came before."""
    result = await host.gateway.run(NativeCommand("uptime"))
    return bool(result["success"])


async def journal_of(host: Host) -> list[str]:
    """The requests in the journal of an agent that has stopped."""
    await host.stop()
    journal = await Journal.open(host.configuration.buffer.path)
    try:
        rows = await journal._committer.submit(lambda db: db.execute("SELECT request_id FROM commands").fetchall())
    finally:
        await journal.close()
    return [row[0] for row in rows]


Forge = Callable[["Host", Command], str]


def altered(host: Host, command: Command, **fields: Any) -> str:
    sealed = host.gateway.sealer.seal_object(command)
    return json.dumps(sealed | fields)


def of_the_signature_alone(host: Host, command: Command) -> str:
    sealed = host.gateway.sealer.seal_object(command)
    other = host.gateway.sealer.seal_object(replace(command, request_id="r-2"))
    return json.dumps(sealed | {"signature": other["signature"]})


@pytest.mark.parametrize(
    "forge",
    [
        pytest.param(lambda host, command: encode(command), id="no seal"),
        pytest.param(lambda host, command: altered(host, command, signature="AAAA"), id="no signature"),
        pytest.param(lambda host, command: altered(host, command, signature=7), id="not even a text"),
        pytest.param(lambda host, command: altered(host, command, request_id="r-2"), id="another id"),
        pytest.param(lambda host, command: altered(host, command, epoch=9), id="another epoch"),
        pytest.param(lambda host, command: altered(host, command, subject="kafka"), id="a member more"),
        pytest.param(
            lambda host, command: altered(host, command, not_after="2099-01-01T00:00:00+00:00"), id="another time"
        ),
        pytest.param(of_the_signature_alone, id="the signature of another"),
        pytest.param(
            lambda host, command: host.pki.agent(AGENT_ID).sealer("agent").seal(command), id="sealed by the agent"
        ),
        pytest.param(
            lambda host, command: host.pki.agent("srv-2").sealer("backend").seal(command), id="sealed by another agent"
        ),
        pytest.param(
            lambda host, command: host.pki.signer().sealer("backend", OTHER_ORGANIZATION).seal(command),
            id="sealed for another organization",
        ),
        pytest.param(
            lambda host, command: host.gateway.sealer.seal(replace(command, target_agent="srv-2")),
            id="for another agent",
        ),
    ],
)
async def test_forged_command_does_nothing_at_all(open_host: OpenHost, tmp_path: Path, forge: Forge) -> None:
    async with open_host() as host:
        await host.gateway.wire.send(forge(host, touch(tmp_path / "ran")))
        await host.gateway.until(lambda: bool(host.gateway.replies))
        error = host.gateway.replies[0]
        assert (error["type"], error["code"]) == ("error", "not_acceptable")
        assert await is_alive(host)
        assert {"r-1", "r-2"}.isdisjoint(await journal_of(host))
    assert not (tmp_path / "ran").exists()


async def test_forger_cannot_use_up_a_request_id(open_host: OpenHost, tmp_path: Path) -> None:
    async with open_host() as host:
        command = touch(tmp_path / "ran")
        await host.gateway.wire.send(encode(replace(command, command=NativeCommand("uptime"))))
        await host.gateway.wire.send(altered(host, command, timeout_ms="soon"))
        await host.gateway.tell(command)
        assert (await host.gateway.body("command_result", "r-1"))["success"]
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "message",
    [
        CancelCommand(AGENT_ID, "r-1"),
        EventsAck(AGENT_ID, "own", 1_000),
        Resume(AGENT_ID, "own", "own", 1_000, datetime.now(UTC)),
        Challenge(AGENT_ID, "own", "a token of the gateway's"),
        ConfigUpdate(AGENT_ID, datetime.now(UTC), "x", [HealthCheck("c-1", FileProbe("/"))]),
        CheckJobStatus(AGENT_ID, ["job_r-1"]),
        ProbeCommands(AGENT_ID, ["r-1"]),
        Discover(AGENT_ID, "d-1", []),
    ],
    ids=lambda message: message.type,
)
async def test_forged_word_of_the_backend_is_refused(open_host: OpenHost, message: Any) -> None:
    async with open_host() as host:
        slow = await host.gateway.command(ExecuteCommand("sleep", ["0.5"]), request_id="r-1")
        own = {name: host.gateway.presence[name] for name in ("incarnation", "token")}
        own["nonce"] = host.gateway.registration["nonce"]
        fields = {name: value for name, value in own.items() if getattr(message, name, "") == "own"}
        await host.gateway.wire.send(encode(replace(message, **fields)))
        await host.gateway.until(lambda: bool(host.gateway.replies))
        assert [reply["code"] for reply in host.gateway.replies] == ["not_acceptable"]
        assert (await host.gateway.body("command_result", slow))["outcome"] == "succeeded"
        assert [event["body"]["type"] for event in host.gateway.events] == ["command_result"]
        # The token and the place in the journal are what they were.
        host.gateway.forget()
        await host.gateway.resume(0)
        await host.gateway.body("command_result", slow)


async def test_challenge_of_another_session_is_refused(open_host: OpenHost) -> None:
    """Of an earlier one, in whatever life of the agent; it would divert the events together with its resume."""
    async with open_host() as host:
        gateway = host.gateway
        incarnation = gateway.presence["incarnation"]
        old = [Challenge(AGENT_ID, gateway.registration["nonce"], gateway.token)]
        old.append(Resume(AGENT_ID, gateway.token, incarnation, 0, datetime.now(UTC)))
        unused = Challenge(AGENT_ID, gateway.registration["nonce"], "never delivered")
        await host.stop()
        await host.start_again(acked_seq=None)
        for message in (*old, unused, Challenge(AGENT_ID, "", "t"), replace(unused, nonce="f" * 32)):
            await gateway.tell(message)
        await gateway.until(lambda: len(gateway.replies) == 5)
        reasons = [reply["reason"] for reply in gateway.replies]
        assert reasons.pop(1) == "this resume is of another session"
        assert reasons == ["this challenge is of another session"] * 4
        await gateway.command(NativeCommand("uptime"), request_id="r-1")
        await gateway.until(lambda: gateway.received == ["r-1"])
        await asyncio.sleep(0.05)
        assert gateway.events == []
        await gateway.resume(0)
        await gateway.body("command_result", "r-1")


async def test_each_session_has_a_nonce_of_its_own(open_host: OpenHost) -> None:
    nonces = set()
    async with open_host() as host:
        for _ in range(3):
            nonces.add(host.gateway.registration["nonce"])
            await host.gateway.wire.socket.close()
            await host.gateway.welcome()
    assert {len(nonce) for nonce in nonces} == {32}
    assert len(nonces) == 3


async def test_earlier_challenge_of_the_same_session_does_not_come_back(open_host: OpenHost) -> None:
    """Its gateway has come back to the backend: the newer challenge counts, however often the older one is repeated."""
    async with open_host() as host:
        gateway = host.gateway
        old = Challenge(AGENT_ID, gateway.registration["nonce"], gateway.token)
        presence = await gateway.challenge()
        await gateway.resume(0)
        for again in (old, replace(old, token=gateway.token)):
            await gateway.tell(again)
        await gateway.until(lambda: len(gateway.replies) == 2)
        assert {reply["reason"] for reply in gateway.replies} == {"this challenge has been answered before"}
        assert gateway.presence is presence
        assert await is_alive(host)


@pytest.mark.parametrize("token", ["", "t" * 129, None])
async def test_token_that_is_none_is_refused(open_host: OpenHost, token: Any) -> None:
    async with open_host() as host:
        await host.gateway.tell(Challenge(AGENT_ID, host.gateway.registration["nonce"], token))
        await host.gateway.until(lambda: bool(host.gateway.replies))
        assert host.gateway.replies[0]["reason"] == "a token has 1 to 128 characters"
        assert await is_alive(host)


async def test_number_of_challenges_in_a_session_is_bounded(
    open_host: OpenHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("opsmap_agent.sessions.session._MAX_CHALLENGES", 3)
    async with open_host() as host:
        first = host.gateway.registration["nonce"]
        for _ in range(2):
            await host.gateway.challenge()
        await host.gateway.tell(Challenge(AGENT_ID, first, "one too many"))
        await host.gateway.wire.close_code()
        await host.gateway.welcome()
        assert host.gateway.registration["nonce"] != first
        assert await is_alive(host)


async def test_resume_of_another_session_is_refused(open_host: OpenHost) -> None:
    async with open_host() as host:
        incarnation = host.gateway.presence["incarnation"]
        resume = Resume(AGENT_ID, host.gateway.token, incarnation, 0, datetime.now(UTC))
        old = host.gateway.sealer.seal(resume)
        await host.gateway.run(NativeCommand("uptime"))
        host.gateway.forget()
        await host.gateway.challenge()
        await host.gateway.wire.send(old)
        await host.gateway.until(lambda: bool(host.gateway.replies))
        assert host.gateway.replies[0]["reason"] == "this resume is of another session"
        await asyncio.sleep(0.05)
        assert host.gateway.events == []
        await host.gateway.resume(0)
        await host.gateway.until(lambda: len(host.gateway.events) == 1)


async def test_nothing_is_obeyed_before_the_challenge(open_host: OpenHost, tmp_path: Path) -> None:
    async with open_host() as host:
        await host.gateway.wire.socket.close()
        await host.gateway.register()
        await host.gateway.wire.send(Trust(AGENT_ID, [host.gateway.signer.encoded()]))
        await host.gateway.tell(touch(tmp_path / "ran"))
        await host.gateway.until(lambda: bool(host.gateway.replies))
        assert host.gateway.replies[0]["reason"] == "command before the backend has begun this session"
        await host.gateway.challenge()
        await host.gateway.resume(0)
        assert await is_alive(host)
    assert not (tmp_path / "ran").exists()


async def test_replayed_command_is_answered_and_not_run(open_host: OpenHost, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    async with open_host() as host:
        spec = ExecuteCommand("sh", ["-c", f"echo x >> {ran}"])
        frame = host.gateway.sealer.seal(touch(ran, command=spec))
        await host.gateway.wire.send(frame)
        await host.gateway.body("command_result", "r-1")
        for _ in range(3):
            await host.gateway.wire.send(frame)
        await host.gateway.until(lambda: host.gateway.received.count("r-1") >= 3)
        assert await is_alive(host)
    assert ran.read_text() == "x\n"


@pytest.mark.parametrize(
    ("issued_s", "until_s", "outcome", "reason"),
    [
        (300, 360, "rejected", "it was issued 300 s in the future"),
        (50, 110, "succeeded", None),
        (-120, -60, "expired", "it was to begin before"),
        (-120, 60, "succeeded", None),
    ],
)
async def test_clock_rules(open_host: OpenHost, issued_s: int, until_s: int, outcome: str, reason: str | None) -> None:
    now = datetime.now(UTC)
    async with open_host() as host:
        times = {"issued_at": now + timedelta(seconds=issued_s), "not_after": now + timedelta(seconds=until_s)}
        result = await host.gateway.run(NativeCommand("uptime"), **times)
        assert result["outcome"] == outcome
        assert reason is None or reason in result["error"]


async def test_older_configuration_than_the_newest_is_refused(open_host: OpenHost, tmp_path: Path) -> None:
    def update(second: int, *paths: Path) -> ConfigUpdate:
        checks = [HealthCheck(str(path), FileProbe(str(path))) for path in paths]
        return ConfigUpdate(AGENT_ID, datetime(2026, 11, 21, 3, 0, second, tzinfo=UTC), "r", checks)

    old, new = tmp_path / "old", tmp_path
    async with open_host() as host:
        await host.gateway.tell(update(5, new))
        await host.gateway.body("health_changed", str(new))
        await host.gateway.tell(update(4, old))
        await host.gateway.until(lambda: len(host.gateway.replies) == 1)
        assert host.gateway.replies[0]["reason"] == "a newer configuration is in force"
        await host.stop()
        host.gateway.forget()
        await host.start_again()
        await host.gateway.tell(update(4, old))
        await host.gateway.until(lambda: len(host.gateway.replies) == 1)
        await host.gateway.tell(update(5, old))
        await host.gateway.body("health_changed", str(old))


async def test_keys_are_rotated_in_the_middle_of_a_session(open_host: OpenHost, pki: Pki) -> None:
    second = issued(pki, BACKEND_SIGNER_URI, timedelta(days=2))
    async with open_host() as host:
        first = host.gateway.sealer
        host.gateway.sealer = second.sealer("backend")
        await host.gateway.command(NativeCommand("uptime"))
        await host.gateway.until(lambda: bool(host.gateway.replies))
        assert "a key that is not known here" in host.gateway.replies[0]["reason"]
        await host.gateway.wire.send(Trust(AGENT_ID, [host.gateway.signer.encoded(), second.encoded()]))
        assert await is_alive(host)
        host.gateway.sealer = first
        assert await is_alive(host)


async def test_challenge_right_behind_new_certificates_is_not_lost(open_host: OpenHost, pki: Pki) -> None:
    """It arrives while the child process still looks at them."""
    async with open_host() as host:
        host.gateway.signer = issued(pki, BACKEND_SIGNER_URI, timedelta(days=2))
        host.gateway.sealer = host.gateway.signer.sealer("backend")
        await host.gateway.challenge()
        await host.gateway.resume(0)
        assert await is_alive(host)
        assert host.gateway.replies == []


async def test_a_thousand_forgeries_leave_no_trace(
    open_host: OpenHost, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with open_host() as host:
        for round_ in range(10):
            for number in range(100):
                await host.gateway.wire.send(encode(touch(tmp_path / "ran", request_id=f"f-{round_}-{number}")))
            assert await host.gateway.wire.close_code() == 4400
            await host.gateway.welcome()
        assert await is_alive(host)
        assert len([record for record in caplog.records if "is refused" in record.getMessage()]) <= 20
        assert len(await journal_of(host)) == 1
    assert not (tmp_path / "ran").exists()


# The keys by themselves


@pytest.fixture
def keys(pki: Pki) -> BackendKeys:
    return BackendKeys(pki.backend_ca.ca, ORGANIZATION)


def sealed_by(leaf: Leaf) -> dict[str, Any]:
    return leaf.sealer("backend").seal_object(CancelCommand(AGENT_ID, "r-1"))


async def test_key_of_the_backend_is_learnt(pki: Pki, keys: BackendKeys) -> None:
    with pytest.raises(SealError, match="not known here"):
        keys.check(sealed_by(pki.signer()))
    assert await keys.learn([pki.signer().encoded()], "g") == []
    keys.check(sealed_by(pki.signer()))


@pytest.mark.parametrize(
    ("leaf", "reason"),
    [
        (lambda pki: pki.leaf(pki.agent_ca, BACKEND_SIGNER_URI, seals=True), "not issued by the expected authority"),
        (lambda pki: pki.leaf(pki.gateway_ca, BACKEND_SIGNER_URI, seals=True), "not issued by the expected authority"),
        (lambda pki: issued(pki, "spiffe://opsmap/backend", timedelta(days=1)), "does not seal for the backend"),
        (lambda pki: pki.leaf(pki.backend_ca, BACKEND_SIGNER_URI + "/x"), "is not an Ed25519 key"),
        (lambda pki: issued(pki, BACKEND_SIGNER_URI, timedelta(minutes=-1)), "it ended at"),
    ],
    ids=["of the Agent CA", "of the Gateway CA", "of the backend's TLS", "not Ed25519", "expired"],
)
async def test_other_certificates_are_refused(
    pki: Pki, keys: BackendKeys, leaf: Callable[[Pki], Leaf], reason: str
) -> None:
    with pytest.raises(TrustError, match=reason):
        await keys.learn([leaf(pki).encoded()], "g")
    # Beside a good one the bad one does no harm, and is told.
    (refusal,) = await keys.learn([leaf(pki).encoded(), pki.signer().encoded()], "g")
    assert reason in refusal
    keys.check(sealed_by(pki.signer()))
    assert len(keys._keys) == 1


@pytest.mark.parametrize("certificates", [[], ["garbage"], ["x" * 20_000], ["garbage"] * 9, ["AAAA\nBBBB"]])
async def test_garbage_is_refused(keys: BackendKeys, certificates: list[str]) -> None:
    with pytest.raises(TrustError):
        await keys.learn(certificates, "g")


async def test_validity_is_asked_at_each_use(pki: Pki) -> None:
    now = datetime.now(UTC)
    keys = BackendKeys(pki.backend_ca.ca, ORGANIZATION, lambda: now)
    await keys.learn([pki.signer().encoded()], "g")
    keys.check(sealed_by(pki.signer()))
    now += timedelta(days=2)
    with pytest.raises(SealError, match="with a key that is valid from"):
        keys.check(sealed_by(pki.signer()))


async def test_gateway_cannot_keep_us_busy_with_certificates(pki: Pki, keys: BackendKeys) -> None:
    for number in range(6):
        with pytest.raises(TrustError, match="not a certificate"):
            await keys.learn([f"AAA{number}"], "hostile")
    with pytest.raises(TrustError, match="6 times within a minute"):
        await keys.learn(["AAAA"], "hostile")
    assert await keys.learn([pki.signer().encoded()], "honest") == []
    # What is known costs nothing and is not counted.
    assert await keys.learn([pki.signer().encoded()], "hostile") == []


async def test_certificate_is_looked_into_once(pki: Pki, keys: BackendKeys, monkeypatch: pytest.MonkeyPatch) -> None:
    await keys.learn([pki.signer().encoded()], "g")

    async def nobody(*_: Any) -> Any:
        raise AssertionError("asked again")

    monkeypatch.setattr("opsmap_agent.identity.trust.inspect_apart", nobody)
    other = BackendKeys(pki.backend_ca.ca, ORGANIZATION)
    assert await other.learn([pki.signer().encoded()] * 2, "g") == []


async def test_new_authority_takes_the_trust_away(pki: Pki, tmp_path: Path) -> None:
    authority = tmp_path / "ca.crt"
    authority.write_bytes(pki.backend_ca.ca.read_bytes())
    keys = BackendKeys(authority, ORGANIZATION)
    await keys.learn([pki.signer().encoded()], "g")
    authority.write_bytes(pki.gateway_ca.ca.read_bytes())
    with pytest.raises(TrustError):
        await keys.learn([pki.signer().encoded()], "g")
    with pytest.raises(SealError):
        keys.check(sealed_by(pki.signer()))


def test_files_that_cannot_be_used_are_told_at_start(agent_configuration: Any, pki: Pki, tmp_path: Path) -> None:
    def faults(**files: Path) -> str:
        with pytest.raises(ConfigurationError) as caught:
            Agent(replace(agent_configuration, tls=replace(agent_configuration.tls, **files)))
        return str(caught.value)

    assert "tls.backend_ca_file" in faults(backend_ca_file=tmp_path / "none.crt")
    (tmp_path / "empty.crt").touch()
    assert "not a file of CA certificates" in faults(backend_ca_file=tmp_path / "empty.crt")
    # A key that TLS likes and seals cannot use.
    uri = f"spiffe://opsmap/org/{ORGANIZATION}/agent/{AGENT_ID}"
    elliptic = pki._write_leaf(pki.agent_ca, uri, datetime.now(UTC) + timedelta(days=1), seals=False)
    assert "not an Ed25519 key" in faults(cert_file=elliptic.cert, key_file=elliptic.key)


_PROGRAM = """
import asyncio, sys
from pathlib import Path
from opsmap_agent import cli
from opsmap_agent.agent import Agent
from opsmap_agent.configuration import Configuration
from opsmap_daemon.configuration import load

agent = Agent(load(Path(sys.argv[1]), Configuration))
assert asyncio.run(agent._keys.learn([sys.argv[2]], "g")) == []
sys.exit("cryptography" in sys.modules)
"""


def test_agent_never_loads_the_large_library(pki: Pki, tmp_path: Path) -> None:
    """`cryptography` costs 9 MB: certificates are looked into by a child process."""
    leaf = pki.agent(AGENT_ID)
    file = tmp_path / "agent.yaml"
    file.write_text(
        f"""
gateway: {{url: "wss://localhost:1"}}
tls: {{cert_file: "{leaf.cert}", key_file: "{leaf.key}", ca_file: "{pki.gateway_ca.ca}",
  backend_ca_file: "{pki.backend_ca.ca}"}}
"""
    )
    root = str(Path(opsmap_agent.__file__).parents[1])
    arguments = [sys.executable, "-c", _PROGRAM, str(file), pki.signer().encoded()]
    subprocess.run(arguments, check=True, env={**os.environ, "PYTHONPATH": root})
