"""A real D-Bus daemon, and on it either a scripted systemd or, where this machine can run one, a real one."""

from __future__ import annotations

import asyncio
import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jeepney import (
    DBusAddress,
    HeaderFields,
    MatchRule,
    Message,
    MessageType,
    new_error,
    new_method_return,
    new_signal,
)
from jeepney.bus_messages import message_bus
from jeepney.io.asyncio import DBusConnection, DBusRouter, Proxy, open_dbus_connection
from jeepney.io.blocking import Proxy as BlockingProxy
from jeepney.io.blocking import open_dbus_connection as open_dbus_connection_blocking

DBUS_DAEMON = shutil.which("dbus-daemon")
SYSTEMD = next(
    (path for path in ("/lib/systemd/systemd", "/usr/lib/systemd/systemd") if os.access(path, os.X_OK)), None
)

_MANAGER = DBusAddress("/org/freedesktop/systemd1", "org.freedesktop.systemd1", "org.freedesktop.systemd1.Manager")
_CONFIGURATION = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>session</type>
  <listen>unix:path={path}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default"><allow send_destination="*"/><allow receive_sender="*"/><allow own="*"/></policy>
</busconfig>
"""
_DEADLINE_S = 10.0


@contextmanager
def bus_daemon(folder: Path) -> Iterator[str]:
    """The address of a bus of our own."""
    assert DBUS_DAEMON is not None
    path, configuration = folder / "bus", folder / "bus.conf"
    configuration.write_text(_CONFIGURATION.format(path=path))
    command = [DBUS_DAEMON, f"--config-file={configuration}", "--nofork", "--nopidfile", "--print-address=1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline(), "dbus-daemon did not start"
            yield f"unix:path={path}"
        finally:
            process.terminate()


@dataclass
class Unit:
    active: str = "active"
    load: str = "loaded"
    file_state: str = "enabled"
    description: str = ""
    pid: int = 0


@dataclass
class ScriptedSystemd:
    """What it is to say; `calls` is what it was asked."""

    units: dict[str, Unit] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    errors: dict[str, tuple[str, str]] = field(default_factory=dict)
    """By method: the error to answer with."""
    job_result: str = "done"
    is_silent: bool = False
    hangs_up_at: str = ""
    tells_end_first: bool = False
    """Whether a job has ended before its start is answered."""
    calls: list[str] = field(default_factory=list)

    async def answer(self, connection: DBusConnection) -> None:
        while True:
            message = await connection.receive()
            if message.header.message_type is MessageType.method_call:
                await self._answer_one(connection, message)

    async def _answer_one(self, connection: DBusConnection, message: Message) -> None:
        method = message.header.fields[HeaderFields.member]
        self.calls.append(method)
        if self.is_silent:
            return
        if method == self.hangs_up_at:
            await connection.close()
        elif method in self.errors:
            name, text = self.errors[method]
            await connection.send(new_error(message, name, "s", (text,)))
        elif method in ("StartUnit", "StopUnit", "RestartUnit"):
            await self._run_job(connection, message)
        else:
            await connection.send(new_method_return(message, *self._content(method, message)))

    def _content(self, method: str, message: Message) -> tuple[str, tuple[Any, ...]]:
        match method:
            case "LoadUnit":
                return "o", (f"/unit/{message.body[0].encode().hex()}",)
            case "Get":
                name = bytes.fromhex(message.header.fields[HeaderFields.path].rpartition("/")[2]).decode()
                return "v", (self._property(self.units.get(name, Unit(load="not-found")), message.body[1]),)
            case "ListUnitsByPatterns":
                rows = [
                    (name, unit.description, unit.load, unit.active, "sub", "", f"/unit/{number}", 0, "", "/")
                    for number, (name, unit) in enumerate(self.units.items())
                ]
                return "a(ssssssouso)", (rows,)
            case "ListUnitFilesByPatterns":
                return "a(ss)", ([(f"/lib/systemd/system/{name}", state) for name, state in self.files.items()],)
        return "", ()

    @staticmethod
    def _property(unit: Unit, name: str) -> tuple[str, Any]:
        known: dict[str, tuple[str, Any]] = {
            "LoadState": ("s", unit.load),
            "ActiveState": ("s", unit.active),
            "UnitFileState": ("s", unit.file_state),
            "Description": ("s", unit.description),
            "MainPID": ("u", unit.pid),
        }
        return known[name]

    async def _run_job(self, connection: DBusConnection, message: Message) -> None:
        unit = message.body[0]
        ended = [
            new_signal(_MANAGER, "JobRemoved", "uoss", (number, f"/job/{number}", unit, result))
            for number, result in ((6, "canceled"), (7, self.job_result))
        ]
        answer = new_method_return(message, "o", ("/job/7",))
        for each in [*ended, answer] if self.tells_end_first else [answer, *ended]:
            await connection.send(each)


@asynccontextmanager
async def scripted_systemd(folder: Path, systemd: ScriptedSystemd) -> AsyncIterator[str]:
    """The address of a bus with this systemd on it."""
    with bus_daemon(folder) as address:
        connection = await open_dbus_connection(address)
        async with DBusRouter(connection) as router:
            await Proxy(message_bus, router).RequestName(_MANAGER.bus_name)
        answering = asyncio.create_task(systemd.answer(connection))
        try:
            yield address
        finally:
            answering.cancel()
            with suppress(asyncio.CancelledError, EOFError, ConnectionError):
                await answering
            connection.writer.transport.abort()


_BUS_UNITS = {
    "dbus.socket": "[Socket]\nListenStream=%t/bus\n",
    "dbus.service": (
        "[Unit]\nRequires=dbus.socket\n[Service]\n"
        "ExecStart={daemon} --config-file={configuration} --address=systemd: --nofork --nopidfile\n"
    ),
}


@contextmanager
def real_systemd(folder: Path, units: dict[str, str]) -> Iterator[str]:
    """The address of a bus with a real systemd on it, the manager of a user, with these unit files.

    It lives in a mount namespace in which the host seems to be started by systemd, and in a control group of its own.
    """
    assert SYSTEMD is not None
    home, runtime, configuration = folder / "home", folder / "run", folder / "bus.conf"
    runtime.mkdir(mode=0o700)
    configuration.write_text(_CONFIGURATION.format(path=runtime / "unused"))
    unit_folder = home / ".config" / "systemd" / "user"
    wanted = unit_folder / "default.target.wants"
    wanted.mkdir(parents=True)
    for name, text in (_BUS_UNITS | units).items():
        (unit_folder / name).write_text(
            text.replace("{daemon}", str(DBUS_DAEMON)).replace("{configuration}", str(configuration))
        )
    (wanted / "dbus.service").symlink_to(unit_folder / "dbus.service")
    with _control_groups() as groups:
        join = "".join(f"echo $$ > {group}/cgroup.procs && " for group in groups)
        booted = "mkdir -p /run/systemd && mount -t tmpfs none /run/systemd && mkdir /run/systemd/system"
        process = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", f"{booted} && {join} exec {SYSTEMD} --user"],
            env={"HOME": str(home), "PATH": os.environ["PATH"], "XDG_RUNTIME_DIR": str(runtime)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            address = f"unix:path={runtime / 'bus'}"
            _wait_for_manager(process, runtime / "bus", address)
            yield address
        finally:
            process.terminate()
            try:
                process.wait(_DEADLINE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_for_manager(process: subprocess.Popen[bytes], path: Path, address: str) -> None:
    """Until systemd has its name on the bus."""
    deadline = time.monotonic() + _DEADLINE_S
    while not path.exists():  # There is no event to wait for.
        assert process.poll() is None, "systemd has ended"
        assert time.monotonic() < deadline, "systemd did not start its bus"
        time.sleep(0.02)
    with open_dbus_connection_blocking(address) as connection:
        changed = MatchRule(type="signal", sender=message_bus.bus_name, member="NameOwnerChanged")
        changed.add_arg_condition(0, _MANAGER.bus_name)
        bus = BlockingProxy(message_bus, connection, timeout=_DEADLINE_S)
        bus.AddMatch(changed)
        with connection.filter(changed) as arrivals:
            if not bus.NameHasOwner(_MANAGER.bus_name)[0]:
                connection.recv_until_filtered(arrivals, timeout=_DEADLINE_S)


@contextmanager
def _control_groups() -> Iterator[list[Path]]:
    root = Path("/sys/fs/cgroup")
    parents = [root] if (root / "cgroup.procs").exists() else [root / "systemd", root / "unified"]
    groups = [parent / f"opsmap-test-{os.getpid()}" for parent in parents if parent.is_dir()]
    for group in groups:
        group.mkdir()
    try:
        yield groups
    finally:
        for group in groups:
            _end_all_in(group)
            for folder in sorted(group.rglob("*"), reverse=True):
                if folder.is_dir():
                    folder.rmdir()
            group.rmdir()


def _end_all_in(group: Path) -> None:
    for list_ in [group / "cgroup.procs", *group.rglob("cgroup.procs")]:
        for pid in list_.read_text().split():
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
                _wait_for_end(int(pid))


def _wait_for_end(pid: int) -> None:
    with suppress(ProcessLookupError):
        descriptor = os.pidfd_open(pid)
        try:
            select.select([descriptor], [], [], _DEADLINE_S)
        finally:
            os.close(descriptor)


def why_no_real_systemd() -> str | None:
    """Why this machine cannot run one for a test."""
    if DBUS_DAEMON is None or SYSTEMD is None or shutil.which("unshare") is None:
        return "dbus-daemon, systemd or unshare is not installed"
    if os.geteuid() != 0:
        return "only root can give systemd a mount namespace and a control group"
    if subprocess.run(["unshare", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True).returncode:
        return "this machine allows no mount namespaces"
    if not any(os.access(f"/sys/fs/cgroup/{name}", os.W_OK) for name in ("cgroup.procs", "systemd", "unified")):
        return "no control group can be made here"
    return None
