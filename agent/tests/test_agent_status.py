"""`opsmap-agent status`: what a running agent writes of itself, and what is made of it."""

from __future__ import annotations

import asyncio
import json
import stat
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from opsmap_agent import cli
from opsmap_agent.commands.tally import Refusal, Tally
from opsmap_agent.configuration import Configuration
from opsmap_agent.upkeep import status as status_module
from opsmap_agent.upkeep.diagnosis import describe, find_troubles
from opsmap_agent.upkeep.instance import StartError, is_running, single_instance
from opsmap_agent.upkeep.status import (
    BufferStatus,
    CertificateStatus,
    GatewayStatus,
    Status,
    StatusUnreadableError,
    WatchdogStatus,
    read_status,
    status_path,
    write_status,
)
from opsmap_protocol.specs import NativeCommand

if TYPE_CHECKING:
    from conftest import Host, OpenHost

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
QUOTA = 100 * 1024 * 1024


def well(**changes: Any) -> Status:
    status = Status(
        agent_id="srv-1",
        organization_id="11111111-1111-4111-8111-111111111111",
        version="1.0",
        pid=4711,
        started_at=NOW - timedelta(hours=5),
        written_at=NOW - timedelta(seconds=20),
        certificate=CertificateStatus(NOW - timedelta(days=20), NOW + timedelta(days=70)),
        gateways=[GatewayStatus("wss://gw-1:8443/agent/", True, NOW - timedelta(hours=4), NOW)],
        buffer=BufferStatus(3, 50_000, QUOTA, NOW),
        watchdog=WatchdogStatus(True, 60, 0),
        running_commands=1,
        jobs=2,
        health_checks=50,
        done_commands={"succeeded": 10},
        refused={"rejected": 1},
        latest_refusals=[Refusal(NOW, "rejected", "the script is outside of allowed_paths")],
        last_contact=NOW,
        clock_ahead_s=0.2,
    )
    return replace(status, **changes)


def test_agent_that_is_well_has_no_troubles() -> None:
    assert find_troubles(well(), NOW) == []


@pytest.mark.parametrize(
    ("changes", "what", "advice"),
    [
        ({"written_at": NOW - timedelta(minutes=10)}, "has written no status for 10 minutes", "watchdog"),
        ({"watchdog": WatchdogStatus(True, 60, 2)}, "started the agent anew 2 times", "stacks"),
        (
            {"certificate": CertificateStatus(NOW - timedelta(days=90), NOW - timedelta(days=3))},
            "certificate ended 3 days ago",
            "enroll --force",
        ),
        (
            {"certificate": CertificateStatus(NOW - timedelta(days=86), NOW + timedelta(days=4))},
            "ends in 4 days and has not been renewed",
            "enrolled anew",
        ),
        ({"gateways": [], "last_contact": NOW - timedelta(minutes=5)}, "no gateway is connected since", "log says"),
        ({"gateways": [], "last_contact": None}, "no gateway is connected since it started", "log says"),
        (
            {"gateways": [GatewayStatus("wss://gw-1", False, NOW - timedelta(minutes=5), NOW)]},
            "the backend has not begun to use the agent",
            "reaches the backend",
        ),
        ({"clock_ahead_s": 3600.0}, "clock is 60 minutes fast", "chrony"),
        ({"clock_ahead_s": -3600.0}, "clock is 60 minutes slow", "chrony"),
        ({"buffer": BufferStatus(9, QUOTA, QUOTA)}, "the buffer is full (100.0 MB of 100.0 MB)", "max_size_mb"),
        ({"buffer": BufferStatus(9, 1, QUOTA, None, 7)}, "7 events were dropped", "never among them"),
    ],
)
def test_each_trouble_is_told_with_what_to_do(changes: dict[str, Any], what: str, advice: str) -> None:
    (trouble,) = find_troubles(well(**changes), NOW)
    assert what in trouble.what
    assert advice in trouble.advice


def test_short_absence_of_a_gateway_is_no_trouble() -> None:
    assert find_troubles(well(gateways=[], last_contact=NOW - timedelta(seconds=20)), NOW) == []


def test_description_tells_everything() -> None:
    text = "\n".join(describe(well(remote_settings=["log level debug"]), NOW))
    for part in ("srv-1", "4711", "for 5 hours", "wss://gw-1:8443", "in use", "3 events", "1 running, 2 jobs"):
        assert part in text
    for part in (
        "10 succeeded",
        "1 rejected",
        "outside of allowed_paths",
        "50 checks",
        "after 60 s",
        "log level debug",
    ):
        assert part in text


def test_status_survives_the_file(tmp_path: Path) -> None:
    write_status(tmp_path, well())
    assert read_status(tmp_path) == well()
    assert stat.S_IMODE(status_path(tmp_path).stat().st_mode) & 0o027 == 0


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"agent_id": 1}', "\x00\xff", "[" * 10_000])
def test_what_is_no_status_is_told_in_one_line(tmp_path: Path, content: str) -> None:
    status_path(tmp_path).write_text(content)
    with pytest.raises(StatusUnreadableError) as caught:
        read_status(tmp_path)
    assert "\n" not in str(caught.value)
    assert "is not understood" in str(caught.value)


def test_hostile_refusals_are_bounded() -> None:
    tally = Tally()
    for number in range(50):
        tally.count_refusal("rejected", f"{number} " + "<b>" * 10_000)
    assert tally.refused["rejected"] == 50
    assert [each.reason[:2] for each in tally.latest_refusals] == ["45", "46", "47", "48", "49"]
    assert max(len(each.reason) for each in tally.latest_refusals) == 200


def test_lock_tells_whether_an_agent_runs(tmp_path: Path) -> None:
    assert not is_running(tmp_path)
    with single_instance(tmp_path):
        assert is_running(tmp_path)
        with pytest.raises(StartError, match="another agent is running"), single_instance(tmp_path):
            pass
    assert not is_running(tmp_path)


# The command, and a real agent


def write_file(host: Host, path: Path) -> Path:
    path.write_text(
        f"""
gateway: {{url: "wss://gateway:8443"}}
tls: {{cert_file: a.crt, key_file: a.key, ca_file: ca.crt}}
buffer: {{path: "{host.configuration.buffer.path}"}}
"""
    )
    return path


async def until_written(host: Host, condition: Any) -> Status:
    """Wait for a status that fulfils a condition."""
    async with asyncio.timeout(8):
        while True:
            try:
                status = read_status(host.configuration.buffer.path)
            except StatusUnreadableError:
                status = None
            if status is not None and condition(status):
                return status
            await asyncio.sleep(0.01)  # nothing announces it


async def test_running_agent_tells_how_it_is(
    open_host: OpenHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(status_module, "WRITE_INTERVAL_S", 0.05)
    async with open_host() as host:
        file = write_file(host, tmp_path / "agent.yaml")
        await host.gateway.run(NativeCommand("os_info"))
        await host.gateway.run(NativeCommand("no_such_thing"))
        status = await until_written(host, lambda seen: seen.refused and seen.gateways and seen.done_commands)
        assert status.agent_id == host.agent.agent_id
        assert [gateway.is_in_use for gateway in status.gateways] == [True]
        assert status.done_commands == {"succeeded": 1}
        assert status.refused == {"rejected": 1}
        assert "no native command 'no_such_thing'" in status.latest_refusals[0].reason
        assert status.buffer.quota_bytes == QUOTA
        assert status.buffer.events == 2
        assert await asyncio.to_thread(cli.main, ["status", "--config", str(file)]) == 0
        assert "no_such_thing" in capsys.readouterr().out
        assert await asyncio.to_thread(cli.main, ["status", "--json", "--config", str(file)]) == 0
        told = json.loads(capsys.readouterr().out)
        assert (told["is_running"], told["troubles"], told["status"]["agent_id"]) == (True, [], "srv-1")
    assert cli.main(["status", "--config", str(file)]) == cli.EXIT_NOT_RUNNING
    assert "TROUBLE      the agent is not running" in capsys.readouterr().out


def test_words_of_others_are_inert_on_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hostile = "no\x1b]0;title\x07 such\nTROUBLE      call 555-0100\u202e"
    (tmp_path / "buffer").mkdir()
    write_status(tmp_path / "buffer", well(latest_refusals=[Refusal(NOW, "rejected", hostile)]))
    file = tmp_path / "agent.yaml"
    file.write_text(
        'gateway: {url: "wss://gateway:8443"}\ntls: {cert_file: a, key_file: b, ca_file: c}\nbuffer: {path: buffer}\n'
    )
    assert cli.main(["status", "--config", str(file)]) == cli.EXIT_NOT_RUNNING
    lines = capsys.readouterr().out.splitlines()
    assert all(line.isprintable() for line in lines)
    assert [line for line in lines if line.startswith("TROUBLE")] == ["TROUBLE      the agent is not running"]


async def test_trouble_is_exit_code_1(open_host: OpenHost, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with open_host() as host:
        file = write_file(host, tmp_path / "agent.yaml")
        first = await until_written(host, lambda seen: True)
        write_status(host.configuration.buffer.path, replace(first, clock_ahead_s=3600.0))
        assert await asyncio.to_thread(cli.main, ["status", "--config", str(file)]) == cli.EXIT_FAILURE
        assert "TROUBLE      this host's clock is 60 minutes fast, by the gateway's. " in capsys.readouterr().out


def test_status_of_an_agent_that_never_ran(
    tmp_path: Path, agent_configuration: Configuration, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "agent.yaml"
    file.write_text(
        'gateway: {url: "wss://gateway:8443"}\ntls: {cert_file: a, key_file: b, ca_file: c}\nbuffer: {path: none}\n'
    )
    assert cli.main(["status", "--config", str(file)]) == cli.EXIT_NOT_RUNNING
    assert "the agent is not running: " in capsys.readouterr().err
    assert cli.main(["status", "--json", "--config", str(file)]) == cli.EXIT_NOT_RUNNING
    assert json.loads(capsys.readouterr().out)["is_running"] is False


async def test_full_disk_costs_the_status_and_not_the_agent(
    open_host: OpenHost, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_room(folder: Path, status: Status) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(status_module, "write_status", no_room)
    async with open_host() as host:
        assert (await host.gateway.run(NativeCommand("os_info")))["success"]
        assert "the status cannot be written: No space left on device" in caplog.text
