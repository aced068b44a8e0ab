"""Commands over the wire: each is run at most once and ends in a definite, reported outcome."""

from __future__ import annotations

import asyncio
import json
import socket
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from opsmap_agent.commands.execution import Answer
from opsmap_agent.configuration import NativeCommands, Scripts
from opsmap_protocol.codec import encode
from opsmap_protocol.enums import CommandOutcome, ServiceAction
from opsmap_protocol.messages import CancelCommand, Command, CommandResult
from opsmap_protocol.specs import (
    AsyncMode,
    CommandSpec,
    ExecuteCommand,
    NativeCommand,
    ScriptCommand,
    ServiceControlCommand,
    SyncMode,
)

if TYPE_CHECKING:
    from conftest import OpenHost

AGENT_ID = "srv-1"
SYNC = SyncMode(timeout_ms=5_000)


def _ended(events: list[dict[str, Any]]) -> dict[str, str]:
    """How each request ended, as a command or as a job."""
    bodies = [event["body"] for event in events]
    return {body["request_id"]: body.get("outcome") or body["status"] for body in bodies if "pid" not in body}


def sh(text: str) -> ExecuteCommand:
    return ExecuteCommand("sh", ["-c", text])


async def test_native_command_succeeds(open_host: OpenHost) -> None:
    async with open_host() as host:
        request_id = await host.gateway.command(NativeCommand("uptime"))
        result = await host.gateway.body("command_result", request_id)
        assert (result["success"], result["outcome"]) == (True, "succeeded")
        assert result["result"]["uptime_secs"] > 0


async def test_receipt_is_only_for_what_takes_time(open_host: OpenHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("opsmap_agent.commands.dispatcher._RECEIPT_PAUSE_S", 2.0)
    async with open_host() as host:
        for _ in range(5):
            await host.gateway.run(NativeCommand("uptime"))
        job = await host.gateway.command(sh("true"), AsyncMode())
        await host.gateway.body("async_status", job)
        monkeypatch.setattr("opsmap_agent.commands.dispatcher._RECEIPT_PAUSE_S", 0.01)
        slow = await host.gateway.command(sh("sleep 0.2"))
        await host.gateway.body("command_result", slow)
        assert host.gateway.received == [job, slow]


async def test_command_that_only_looks_is_answered_once_and_without_a_receipt(open_host: OpenHost) -> None:
    request_id = str(uuid.uuid4())
    async with open_host() as host:
        await host.gateway.command(NativeCommand("uptime"), request_id=request_id)
        await host.gateway.body("command_result", request_id)
        assert host.gateway.received == []
        await host.gateway.command(NativeCommand("uptime"), request_id=request_id)
        await host.gateway.until(lambda: host.gateway.received == [request_id])
        assert [event["body"]["request_id"] for event in host.gateway.events] == [request_id]


async def test_look_that_takes_long_is_taken_in_before_its_answer(open_host: OpenHost) -> None:
    """Only then can it be told that it is known, and what became of it after a crash."""
    async with open_host() as host:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
            look = NativeCommand("http_check", {"url": url, "timeout_ms": 20_000})
            request_id = await host.gateway.command(look)
            await host.gateway.until(lambda: host.gateway.received == [request_id])
            assert not host.gateway.events
            await host.gateway.tell(CancelCommand(AGENT_ID, request_id))
            assert (await host.gateway.body("command_result", request_id))["outcome"] == "cancelled"


async def test_program_succeeds_and_fails(open_host: OpenHost) -> None:
    async with open_host() as host:
        good = await host.gateway.run(sh("printf '<b>\\033[31m\\000é'; echo warning >&2"))
        assert (good["outcome"], good["success"]) == ("succeeded", True)
        assert good["result"] == {
            "exit_code": 0,
            "stdout": "<b>\x1b[31m\x00é",
            "stderr": "warning\n",
            "timed_out": False,
            "is_truncated": False,
        }
        bad = await host.gateway.run(sh("exit 4"))
        assert (bad["outcome"], bad["success"], bad["error"]) == ("failed", False, "exit code 4")


async def test_time_limit_is_strict(open_host: OpenHost) -> None:
    async with open_host() as host:
        result = await host.gateway.run(sh("echo before; sleep 60"), SyncMode(timeout_ms=200))
        assert (result["outcome"], result["error"]) == ("failed", "it did not end within 0.2 s")
        assert (result["result"]["timed_out"], result["result"]["stdout"]) == (True, "before\n")
        assert 200 <= result["duration_ms"] < 3000


@pytest.mark.parametrize("mode", [SYNC, AsyncMode()])
@pytest.mark.parametrize(
    ("spec", "outcome", "reason"),
    [
        (ExecuteCommand("no-such-program"), "not_started", "no program 'no-such-program' on PATH"),
        (ExecuteCommand("/etc/passwd"), "not_started", "permission denied"),
        (ExecuteCommand("true", working_dir="/none"), "not_started", "working directory /none does not exist"),
        (ExecuteCommand("true", run_as_user="nobody"), "rejected", "identity.allowed_runas_users"),
        (ScriptCommand(path="/etc/evil.sh"), "rejected", "scripts.allowed_paths"),
        (NativeCommand("no_such_command"), "rejected", "no native command 'no_such_command'"),
        (NativeCommand("uptime"), "rejected", "'uptime' is switched off in native_commands"),
        (ServiceControlCommand("x", ServiceAction.STATUS), "rejected", "switched off in native_commands"),
        (ServiceControlCommand("x", ServiceAction.STOP), "rejected", "native_commands.service_control is false"),
    ],
)
async def test_refusals(open_host: OpenHost, spec: CommandSpec, mode: Any, outcome: str, reason: str) -> None:
    off = NativeCommands(uptime=False, service_status=False, service_control=False)
    async with open_host(native_commands=off) as host:
        result = await host.gateway.run(spec, mode)
        assert (result["success"], result["outcome"]) == (False, outcome)
        assert reason in result["error"]


async def test_allow_list_is_obeyed(open_host: OpenHost) -> None:
    async with open_host(scripts=Scripts(allowed_commands=["echo"])) as host:
        assert (await host.gateway.run(ExecuteCommand("echo", ["1"])))["outcome"] == "succeeded"
        result = await host.gateway.run(sh("echo 1"), AsyncMode())
        assert (result["outcome"], result["error"]) == ("rejected", "'sh' is not in scripts.allowed_commands")


async def test_late_command_expires(open_host: OpenHost, tmp_path: Path) -> None:
    late = datetime.now(UTC) - timedelta(seconds=1)
    async with open_host() as host:
        result = await host.gateway.run(sh(f"touch {tmp_path}/ran"), AsyncMode(), not_after=late)
        assert result["outcome"] == "expired"
        assert host.gateway.received == []
    assert not (tmp_path / "ran").exists()


async def test_late_start_cannot_follow_a_newer_stop(open_host: OpenHost, tmp_path: Path) -> None:
    async with open_host() as host:
        await host.gateway.run(sh("exit 0"), subject="kafka", epoch=8)
        result = await host.gateway.run(sh(f"touch {tmp_path}/ran"), subject="kafka", epoch=7)
        assert result["outcome"] == "rejected"
        assert "epoch 8" in result["error"]
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("mode", [SYNC, AsyncMode()])
async def test_command_delivered_twice_runs_once(open_host: OpenHost, tmp_path: Path, mode: Any) -> None:
    ran = tmp_path / "ran"
    request_id = str(uuid.uuid4())
    kind = "command_result" if mode is SYNC else "async_status"
    async with open_host() as host:
        for _ in range(3):
            await host.gateway.command(sh(f"echo x >> {ran}"), mode, request_id=request_id)
        await host.gateway.body(kind, request_id)
        # The first may be so quick that only its end is told; those behind it are known already.
        await host.gateway.until(lambda: len(host.gateway.received) >= 2)
        await host.stop()
        host.gateway.forget()
        await host.start_again()
        await host.gateway.command(sh(f"echo x >> {ran}"), mode, request_id=request_id)
        await host.gateway.until(lambda: host.gateway.received == [request_id])
        await host.gateway.body(kind, request_id)
    assert ran.read_text() == "x\n"


async def test_answer_is_told_again_to_who_lost_it(open_host: OpenHost) -> None:
    async with open_host() as host:
        request_id = await host.gateway.command(NativeCommand("uptime"))
        await host.gateway.body("command_result", request_id)
        await host.gateway.acknowledge(1)
        await host.gateway.resume(1)
        host.gateway.forget()
        async with asyncio.timeout(5):
            while not host.gateway.events:
                await host.gateway.command(NativeCommand("uptime"), request_id=request_id)
                await asyncio.sleep(0.1)
        assert host.gateway.events[0]["seq"] > 1
        assert host.gateway.events[0]["body"]["request_id"] == request_id


async def test_sync_command_is_cancelled(open_host: OpenHost, tmp_path: Path) -> None:
    async with open_host() as host:
        request_id = await host.gateway.command(sh(f"touch {tmp_path}/begun; sleep 60"), SyncMode(60_000))
        async with asyncio.timeout(5):
            while not (tmp_path / "begun").exists():  # noqa: ASYNC110 - made by another process
                await asyncio.sleep(0.005)
        await host.gateway.tell(CancelCommand(AGENT_ID, request_id))
        result = await host.gateway.body("command_result", request_id)
        assert (result["outcome"], result["error"]) == ("cancelled", "cancelled")


@pytest.mark.parametrize("mode", [SyncMode(60_000), AsyncMode()])
async def test_cancellation_right_behind_its_command(open_host: OpenHost, mode: Any) -> None:
    async with open_host() as host:
        requests = []
        for _ in range(10):
            requests.append(await host.gateway.command(sh("exec sleep 60"), mode))
            await host.gateway.tell(CancelCommand(AGENT_ID, requests[-1]))
        await host.gateway.until(lambda: _ended(host.gateway.events) == dict.fromkeys(requests, "cancelled"))
        assert host.gateway.replies == []


async def test_job_is_cancelled_while_it_is_being_launched(open_host: OpenHost) -> None:
    async with open_host() as host:
        request_id = await host.gateway.command(sh("exec sleep 60"), AsyncMode())
        await host.gateway.until(lambda: host.gateway.received == [request_id])
        await host.gateway.tell(CancelCommand(AGENT_ID, request_id))
        assert (await host.gateway.body("async_status", request_id))["status"] == "cancelled"


async def test_inline_script_leaves_nothing_behind(open_host: OpenHost, tmp_path: Path) -> None:
    async with open_host() as host:
        spec = ScriptCommand(content="#!/bin/sh\necho $1 $0", args=["hello"])
        result = await host.gateway.run(spec)
        assert result["result"]["stdout"].startswith("hello inline-script")
        assert list((tmp_path / "detached").iterdir()) == []


async def test_script_file_runs(open_host: OpenHost, tmp_path: Path) -> None:
    (tmp_path / "scripts" / "hello.py").write_text("import sys; print(sys.argv[1:])")
    async with open_host() as host:
        result = await host.gateway.run(ScriptCommand(path=str(tmp_path / "scripts" / "hello.py"), args=["a b"]))
        assert result["result"]["stdout"] == "['a b']\n"


def told(events: list[dict[str, Any]], stream: str) -> str:
    """What the pieces of a stream say together; they must fit one another."""
    bodies = [event["body"] for event in events if event["body"].get("stream") == stream]
    text = ""
    for body in bodies:
        assert body["offset"] == len(text)
        assert 0 < len(body["text"]) <= 65_536
        text += body["text"]
    assert [body["offset"] for body in bodies if "total" in body] == [bodies[-1]["offset"]] if bodies else True
    return text


async def test_large_output_comes_in_pieces_before_the_result(open_host: OpenHost) -> None:
    async with open_host() as host:
        result = await host.gateway.run(sh("head -c 200000 /dev/zero | tr '\\0' '\\033'; echo -n é >&2"))
        shown = result["result"]
        assert (shown["stdout"], shown["stderr"]) == ("\x1b" * 16_383, "é")
        assert shown["output"] == {"stdout": {"total": 200_000, "kept": 200_000}, "stderr": {"total": 1, "kept": 1}}
        assert not shown["is_truncated"]
        assert told(host.gateway.events, "stdout") == "\x1b" * 200_000
        assert told(host.gateway.events, "stderr") == "é"
        kinds = [event["body"]["type"] for event in host.gateway.events]
        assert kinds == ["command_output"] * 5 + ["command_result"]
        assert [event["seq"] for event in host.gateway.events] == [1, 2, 3, 4, 5, 6]


async def test_output_that_is_not_kept_is_said_so(open_host: OpenHost) -> None:
    async with open_host() as host:
        shown = (await host.gateway.run(sh("head -c 2000000 /dev/zero | tr '\\0' x")))["result"]
        assert shown["is_truncated"]
        assert shown["output"]["stdout"] == {"total": 2_000_000, "kept": 1_048_576}
        assert told(host.gateway.events, "stdout") == "x" * 1_048_576
        last = host.gateway.events[-2]["body"]
        assert (last["type"], last["total"]) == ("command_output", 2_000_000)


async def test_both_outputs_share_what_is_inline(open_host: OpenHost) -> None:
    async with open_host() as host:
        text = "for i in 1 2; do head -c 10000 /dev/zero | tr '\\0' $i >&$i; done"
        shown = (await host.gateway.run(sh(text)))["result"]
        assert (shown["stdout"], shown["stderr"]) == ("1" * 8_192, "2" * 8_192)
        assert [told(host.gateway.events, stream) for stream in ("stdout", "stderr")] == ["1" * 10_000, "2" * 10_000]
        few = (await host.gateway.run(sh("head -c 16384 /dev/zero | tr '\\0' x")))["result"]
        assert "output" not in few
        assert few["stdout"] == "x" * 16_384


async def test_pieces_do_not_come_again_with_the_answer(open_host: OpenHost) -> None:
    async with open_host() as host:
        request_id = await host.gateway.command(sh("head -c 100000 /dev/zero | tr '\\0' x"))
        await host.gateway.body("command_result", request_id)
        await host.gateway.acknowledge(3)
        await host.gateway.resume(3)
        host.gateway.forget()
        async with asyncio.timeout(5):
            while not host.gateway.events:
                await host.gateway.command(NativeCommand("uptime"), request_id=request_id)
                await asyncio.sleep(0.1)
        assert [event["body"]["type"] for event in host.gateway.events] == ["command_result"]


async def test_status_of_a_service_is_answered_natively(
    open_host: OpenHost, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("opsmap_agent.host.systemd._RUNNING", tmp_path / "none")
    async with open_host() as host:
        result = await host.gateway.run(ServiceControlCommand("nginx", ServiceAction.STATUS), AsyncMode())
        assert result["result"]["status"] == "unknown"
        assert result["result"]["error"] == "this host was not started by systemd"


async def test_too_many_at_once_are_refused(open_host: OpenHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("opsmap_agent.commands.dispatcher._MAX_RUNNING", 1)
    async with open_host() as host:
        first = await host.gateway.command(sh("sleep 60"), SyncMode(60_000))
        await host.gateway.until(lambda: host.gateway.received == [first])
        result = await host.gateway.run(NativeCommand("uptime"))
        assert (result["outcome"], result["error"]) == ("rejected", "1 commands are running, more are not accepted")
        await host.gateway.tell(CancelCommand(AGENT_ID, first))
        await host.gateway.body("command_result", first)


async def test_many_commands_all_end(open_host: OpenHost) -> None:
    async with open_host() as host:
        requests = [await host.gateway.command(NativeCommand("uptime")) for _ in range(300)]
        await host.gateway.until(lambda: len(host.gateway.events) == 300)
        assert [event["seq"] for event in host.gateway.events] == list(range(1, 301))
        assert {event["body"]["request_id"] for event in host.gateway.events} == set(requests)


def message(**fields: Any) -> dict[str, Any]:
    command = Command(
        request_id="r-1",
        target_agent=AGENT_ID,
        command=NativeCommand("uptime"),
        execution_mode=SYNC,
        timeout_ms=1000,
        issued_at=datetime.now(UTC),
        not_after=datetime.now(UTC) + timedelta(seconds=60),
    )
    plain: dict[str, Any] = json.loads(encode(command))
    return plain | fields


@pytest.mark.parametrize(
    ("frame", "code", "about"),
    [
        (message(target_agent="srv-2"), "not_acceptable", "r-1"),
        (message(request_id="../../etc"), "malformed_message", "../../etc"),
        (message(timeout_ms="soon", target_agent="srv-2"), "not_acceptable", "r-1"),
        (message(subject="\ud800"), "malformed_message", None),
        ({"type": "self_destruct"}, "unknown_message", "self_destruct"),
        ({"no": "type"}, "malformed_message", None),
        ("not json", "malformed_message", None),
    ],
)
async def test_what_cannot_be_accepted_is_answered(
    open_host: OpenHost, frame: Any, code: str, about: str | None
) -> None:
    async with open_host() as host:
        is_command = isinstance(frame, dict) and "command" in frame and frame.get("subject") != "\ud800"
        sealed = host.gateway.sealer.seal(frame) if is_command else json.dumps(frame)
        await host.gateway.wire.send(frame if isinstance(frame, str) else sealed)
        await host.gateway.until(lambda: bool(host.gateway.replies))
        (error,) = host.gateway.replies
        assert (error["type"], error["code"], error.get("about")) == ("error", code, about)
        assert error["agent_id"] == AGENT_ID
        assert (await host.gateway.run(NativeCommand("uptime")))["success"]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"timeout_ms": "soon"}, "this agent does not understand it: timeout_ms: expected an integer"),
        ({"command": {"type": "rm"}}, "this agent does not understand it: command.type: expected one of"),
        ({"epoch": 10**30, "subject": "kafka"}, "this agent does not understand it: epoch: expected an integer of 64"),
    ],
)
async def test_command_that_is_not_understood_ends(open_host: OpenHost, fields: dict[str, Any], reason: str) -> None:
    async with open_host() as host:
        for _ in range(2):
            await host.gateway.wire.send(host.gateway.sealer.seal(message(**fields)))
        result = await host.gateway.body("command_result", "r-1")
        assert result["outcome"] == "rejected"
        assert reason in result["error"]
        await host.gateway.run(NativeCommand("uptime"))
        assert len(host.gateway.events) == 2


async def test_bytes_that_are_no_text_come_out_as_something(open_host: OpenHost) -> None:
    name = b"opsmap-\xff\xfe-test"
    process = await asyncio.create_subprocess_exec(b"sh", b"-c", b"read x", name, stdin=asyncio.subprocess.PIPE)
    try:
        async with open_host() as host:
            found = await host.gateway.run(NativeCommand("process_find", {"pattern": "opsmap-"}))
            commands = [entry["cmd"] for entry in found["result"]]
            assert "sh -c read x opsmap-\ufffd\ufffd-test" in commands
    finally:
        process.kill()
        await process.wait()


async def test_text_of_all_kinds_goes_through(open_host: OpenHost) -> None:
    text = 'é 漢字 😀 \u202e \x1b[0m "quoted" \\ </script>'
    async with open_host() as host:
        result = await host.gateway.run(ExecuteCommand("printf", ["%s", text]))
        assert result["result"]["stdout"] == text
        spec = {"type": "execute", "path": "printf", "args": ["%s", "😀"]}
        escaped = json.dumps(host.gateway.sealer.seal_object(message(command=spec)))
        assert "\\ud83d" in escaped
        await host.gateway.wire.send(escaped)
        assert (await host.gateway.body("command_result", "r-1"))["result"]["stdout"] == "😀"


async def test_unknown_fields_are_ignored(open_host: OpenHost) -> None:
    async with open_host() as host:
        await host.gateway.wire.send(host.gateway.sealer.seal(message(colour="of a newer version")))
        assert (await host.gateway.body("command_result", "r-1"))["success"]


async def test_result_that_cannot_be_stored_ends_its_command(
    open_host: OpenHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison = Answer(CommandResult("r-1", True, CommandOutcome.SUCCEEDED, result={"not": {"JSON"}}))

    async def give_poison(*_: Any) -> Answer:
        return poison

    async with open_host() as host:
        with monkeypatch.context() as patched:
            patched.setattr("opsmap_agent.commands.execution.Execution.run", give_poison)
            result = await host.gateway.run(NativeCommand("uptime"), request_id="r-1")
        assert (result["outcome"], result["success"]) == ("failed", False)
        assert "the result cannot be stored" in result["error"]
        assert (await host.gateway.run(NativeCommand("uptime")))["success"]
