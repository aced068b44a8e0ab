"""Services over D-Bus on the bad days of systemd, by a scripted one; see also the tests against a real one."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from opsmap_agent.commands.refusals import RejectedError
from opsmap_agent.host import systemd
from opsmap_agent.native import NativeCommandError
from opsmap_protocol.enums import ServiceAction, ServiceState
from testing_bus import DBUS_DAEMON, ScriptedSystemd, Unit, scripted_systemd
from testing_natives import RunNative

pytestmark = pytest.mark.skipif(DBUS_DAEMON is None, reason="dbus-daemon is not installed (Debian: package dbus)")


Says = Callable[[ScriptedSystemd], AbstractAsyncContextManager[None]]


@pytest.fixture
def booted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that systemd started."""
    monkeypatch.setattr(systemd, "_RUNNING", tmp_path)


@pytest.fixture
def says(booted: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Says:
    """`async with says(ScriptedSystemd(…))`: the system bus has this systemd on it."""

    @asynccontextmanager
    async def say(scripted: ScriptedSystemd) -> AsyncIterator[None]:
        async with scripted_systemd(tmp_path, scripted) as address:
            monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", address)
            yield

    return say


@pytest.mark.parametrize(
    ("active", "state"),
    [
        ("active", ServiceState.RUNNING),
        ("reloading", ServiceState.RUNNING),
        ("activating", ServiceState.STARTING),
        ("deactivating", ServiceState.STOPPING),
        ("inactive", ServiceState.STOPPED),
        ("failed", ServiceState.FAILED),
        ("maintenance", ServiceState.UNKNOWN),
    ],
)
async def test_states(says: Says, active: str, state: ServiceState) -> None:
    scripted = ScriptedSystemd({"nginx.service": Unit(active, description="A=B ü", pid=42)})
    async with says(scripted):
        service = await systemd.get_service("nginx")
    assert service == systemd.Service("nginx.service", state, True, "A=B ü", 42)


async def test_a_list_of_thousands(says: Says, native: RunNative) -> None:
    names = [f"app{number:05}.service" for number in range(6_000)]
    scripted = ScriptedSystemd({name: Unit(description="x" * 100) for name in names})
    async with says(scripted):
        assert len(await systemd.list_services()) == 6_000
        answer = await native.answer("service_list")
    assert answer.remark == f"not all: these are the first {len(answer.result)} services"
    assert [each["name"] for each in answer.result] == names[: len(answer.result)]
    assert len(answer.result) > 1_000


async def test_list_puts_units_and_files_together(says: Says) -> None:
    scripted = ScriptedSystemd(
        {
            "web@1.service": Unit(),
            "gone.service": Unit(load="not-found"),
            "transient.service": Unit("failed"),
        },
        files={"web@.service": "enabled", "never.service": "disabled", "boot.service": "enabled-runtime"},
    )
    async with says(scripted):
        found = {each.name: (each.state, each.is_enabled) for each in await systemd.list_services()}
    assert found == {
        "web@1.service": (ServiceState.RUNNING, True),
        "transient.service": (ServiceState.FAILED, False),
        "never.service": (ServiceState.STOPPED, False),
        "boot.service": (ServiceState.STOPPED, True),
    }


@pytest.mark.parametrize("tells_end_first", [False, True])
async def test_the_end_of_the_job_is_awaited_whenever_it_comes(says: Says, tells_end_first: bool) -> None:
    scripted = ScriptedSystemd({"app.service": Unit()}, tells_end_first=tells_end_first)
    async with says(scripted):
        service = await systemd.control_service("app", ServiceAction.START)
    assert service.state is ServiceState.RUNNING
    assert scripted.calls[:2] == ["Subscribe", "StartUnit"]


@pytest.mark.parametrize(
    ("scripted", "reason"),
    [
        (ScriptedSystemd(job_result="timeout"), "it took longer than systemd allows it"),
        (ScriptedSystemd(job_result="dependency"), "a service that it needs failed"),
        (ScriptedSystemd(job_result="canceled"), "another request came in between"),
        (ScriptedSystemd(job_result="melted"), "systemd says 'melted'"),
        (
            ScriptedSystemd(
                errors={"StopUnit": ("org.freedesktop.DBus.Error.InteractiveAuthorizationRequired", "Please log in.")}
            ),
            "does not allow it to the agent's user (a polkit rule would): Please log in.",
        ),
        (
            ScriptedSystemd(errors={"StopUnit": ("org.freedesktop.systemd1.UnitMasked", "Unit is masked.")}),
            "systemd says: Unit is masked.",
        ),
        (ScriptedSystemd(hangs_up_at="StopUnit"), "app was not stopped"),
    ],
)
async def test_what_systemd_refuses_is_told(
    says: Says, native: RunNative, scripted: ScriptedSystemd, reason: str
) -> None:
    async with says(scripted):
        with pytest.raises(NativeCommandError) as refusal:
            await native("service_stop", name="app")
    assert reason in str(refusal.value)
    assert refusal.value.result["success"] is False


async def test_silent_systemd_ends_at_the_limit(says: Says, native: RunNative) -> None:
    async with says(ScriptedSystemd(is_silent=True)):
        with pytest.raises(NativeCommandError, match=r"no answer within 0\.2 s"):
            await native.within(0.2, "service_start", name="app")
        answer = await native.context.prober.service("app", 0.2)
    assert answer.error == "systemd did not answer within 0.2 s"


async def test_host_without_systemd(native: RunNative, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(systemd, "_RUNNING", tmp_path / "none")
    status = await native("service_status", name="nginx")
    assert set(status) == {"name", "status", "pid", "enabled", "description", "error"}
    assert (status["status"], status["error"]) == ("unknown", "this host was not started by systemd")
    for command, params in (("service_list", {}), ("service_stop", {"name": "nginx"}), ("discover_services", {})):
        with pytest.raises(NativeCommandError, match="this host was not started by systemd"):
            await native(command, **params)


async def test_host_without_a_bus(booted: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={tmp_path}/none")
    with pytest.raises(systemd.SystemdError, match="this host has no D-Bus system bus: No such file"):
        await systemd.list_services()
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", "tcp:host=localhost,port=1")
    with pytest.raises(systemd.SystemdError, match="this host has no D-Bus system bus"):
        await systemd.list_services()


@pytest.mark.parametrize("answer", [b"", b"REJECTED EXTERNAL\r\n", b"OK 1\r\n" + b"l\xff" * 100, b"x" * 20_000])
async def test_what_is_no_bus(booted: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: bytes) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(answer)
        writer.close()

    async with await asyncio.start_unix_server(handle, tmp_path / "bus"):
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={tmp_path}/bus")
        with pytest.raises(systemd.SystemdError, match="D-Bus system bus"):
            await systemd.get_service("nginx")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("reboot.target", "is a unit of systemd, but not a service"),
        ("tmp.mount", "is a unit of systemd, but not a service"),
        ("systemd-reboot", "would end this host"),
        ("systemd-poweroff.service", "would end this host"),
        ("rescue", "would end this host"),
        ("", "is not the name of a service"),
        (".service", "is not the name of a service"),
        ("--force", "is not the name of a service"),
        ("a b", "is not the name of a service"),
        ("../x", "is not the name of a service"),
        ("nginx\0", "is not the name of a service"),
        ("nginx\n", "is not the name of a service"),
        ("x" * 100_000, "is not the name of a service"),
        ("x" * 250, "is not the name of a service"),
    ],
)
async def test_names_that_are_refused(says: Says, native: RunNative, name: str, reason: str) -> None:
    scripted = ScriptedSystemd()
    async with says(scripted):
        with pytest.raises(RejectedError, match=reason) as refusal:
            await native("service_start", name=name)
    assert len(str(refusal.value)) < 300
    assert scripted.calls == []


async def test_the_agent_does_not_stop_itself(
    says: Says, native: RunNative, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cgroup = tmp_path / "cgroup"
    cgroup.write_text("12:cpu:/\n0::/system.slice/opsmap-agent.service\n")
    monkeypatch.setattr(systemd, "_OWN_CGROUP", cgroup)
    async with says(ScriptedSystemd({"opsmap-agent.service": Unit()})):
        for command in ("service_stop", "service_restart"):
            with pytest.raises(RejectedError, match=r"opsmap-agent\.service is this agent itself"):
                await native(command, name="opsmap-agent")
        assert (await native("service_start", name="opsmap-agent"))["success"]


def test_the_bus_is_not_imported_at_rest() -> None:
    """Its library costs memory that an agent on a host without services never needs."""
    code = "import sys, opsmap_agent.agent; print([name for name in sys.modules if name.startswith('jeepney')])"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert found.stdout.strip() == "[]"
