"""Services over D-Bus against a real systemd, where this machine can run one."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from opsmap_agent.host import systemd
from opsmap_agent.native import NativeCommandError
from testing_bus import real_systemd, why_no_real_systemd
from testing_natives import RunNative

_UNITS = {
    "sleeper.service": "[Unit]\nDescription=A sleeper\nRequires=needed.service\n[Service]\nExecStart=sleep 1000\n",
    "needed.service": "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=true\n",
    "broken.service": "[Service]\nType=oneshot\nExecStart=false\n",
    "listener@.service": "[Unit]\nRequires=needed.service\n[Service]\n"
    f"ExecStart={sys.executable} -m http.server --bind 127.0.0.1 %i\n",
    "twin@.service": "[Service]\nExecStart=sleep 1000\n",
}


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if reason := why_no_real_systemd():
        pytest.skip(reason)
    with real_systemd(tmp_path_factory.mktemp("systemd"), _UNITS) as address:
        yield address


@pytest.fixture(autouse=True)
def bus(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that this systemd seems to have started."""
    monkeypatch.setattr(systemd, "_RUNNING", tmp_path)
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", address)


async def test_a_service_is_started_restarted_and_stopped(native: RunNative) -> None:
    before = await native("service_status", name="sleeper")
    assert before == {
        "name": "sleeper",
        "status": "stopped",
        "pid": None,
        "enabled": False,
        "description": "A sleeper",
        "error": None,
    }
    started = await native("service_start", name="sleeper")
    assert started == {"success": True, "message": "sleeper.service was started and is running"}
    running = await native("service_status", name="sleeper.service")
    assert running["status"] == "running"
    assert _arguments_of(running["pid"]) == ["sleep", "1000"]
    assert (await native("service_restart", name="sleeper"))["success"]
    restarted = await native("service_status", name="sleeper")
    assert restarted["pid"] not in (None, running["pid"])
    assert not Path(f"/proc/{running['pid']}").exists()
    stopped = await native("service_stop", name="sleeper")
    assert stopped["message"] == "sleeper.service was stopped and is stopped"
    assert not Path(f"/proc/{restarted['pid']}").exists()


async def test_instances_of_a_template(native: RunNative) -> None:
    assert (await native("service_start", name="twin@a-b"))["success"]
    listed = {each["name"]: each["status"] for each in await native("service_list")}
    assert listed["twin@a-b.service"] == "running"
    assert "twin@.service" not in listed
    assert (await native("service_stop", name="twin@a-b"))["success"]


async def test_a_service_that_fails(native: RunNative) -> None:
    with pytest.raises(NativeCommandError, match="broken was not started: it failed; its log") as failure:
        await native("service_start", name="broken")
    assert failure.value.result == {"success": False, "message": str(failure.value)}
    assert (await native("service_status", name="broken"))["status"] == "failed"


async def test_a_service_that_does_not_exist(native: RunNative) -> None:
    status = await native("service_status", name="nowhere")
    assert (status["status"], status["error"]) == ("unknown", "there is no such service")
    with pytest.raises(NativeCommandError, match="nowhere was not started: there is no such service"):
        await native("service_start", name="nowhere")


async def test_all_services_are_listed(native: RunNative) -> None:
    services = {each["name"]: each for each in await native("service_list")}
    assert {"sleeper.service", "needed.service", "broken.service"} <= set(services)
    assert set(services["sleeper.service"]) == {"name", "status", "enabled", "description"}


async def test_what_a_service_needs() -> None:
    found = await systemd.requirements_of(["sleeper.service", "needed.service"])
    assert found == {"sleeper.service": ["needed.service"], "needed.service": []}


def _arguments_of(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/cmdline").read_text().rstrip("\0").split("\0")


async def test_services_with_their_ports_and_needs(native: RunNative, free_port: int) -> None:
    name = f"listener@{free_port}"
    assert (await native("service_start", name=name))["success"]
    try:
        async with asyncio.timeout(10):
            while not (await native("port_check", host="127.0.0.1", port=free_port))["reachable"]:  # noqa: ASYNC110 - nothing tells when it listens
                await asyncio.sleep(0.02)
        found = {each["name"]: each for each in await native("discover_services")}
        assert found[f"{name}.service"] == {
            "name": f"{name}.service",
            "type": "systemd",
            "status": "running",
            "ports": [free_port],
            "dependencies": ["needed.service"],
        }
    finally:
        await native("service_stop", name=name)
