"""Services of this host, as systemd tells of them over D-Bus: no program is run, no output is parsed.

Whom systemd lets start and stop services is decided by polkit, not here: an agent without such a rule is refused by
systemd, and says so.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opsmap_agent.commands.refusals import RejectedError
from opsmap_agent.host.system_bus import Bus, BusError, RefusedByBusError, open_system_bus
from opsmap_protocol.enums import ServiceAction, ServiceState

if TYPE_CHECKING:
    from jeepney import Message

_RUNNING = Path("/run/systemd/system")
"""There if systemd started this host; the rule of sd_booted(3)."""

_OWN_CGROUP = Path("/proc/self/cgroup")

_NAME = "org.freedesktop.systemd1"
_MANAGER = ("/org/freedesktop/systemd1", f"{_NAME}.Manager")
_UNIT, _SERVICE = f"{_NAME}.Unit", f"{_NAME}.Service"

_SERVICE_NAME = re.compile(r"[A-Za-z0-9_.@:\\][A-Za-z0-9_.@:\\-]{0,254}", re.ASCII)
_SUFFIX = ".service"
_OTHER_UNITS = (".automount", ".device", ".mount", ".path", ".scope", ".slice", ".socket", ".swap", ".target", ".timer")

_ENDS_THE_HOST = re.compile(
    r"(systemd-(reboot|poweroff|halt|kexec|soft-reboot|exit|suspend|hibernate|hybrid-sleep|suspend-then-hibernate)"
    r"|emergency|rescue|initrd-.*)\.service"
)

_METHODS = {ServiceAction.START: "StartUnit", ServiceAction.STOP: "StopUnit", ServiceAction.RESTART: "RestartUnit"}

_STATES = {
    "active": ServiceState.RUNNING,
    "reloading": ServiceState.RUNNING,
    "refreshing": ServiceState.RUNNING,
    "activating": ServiceState.STARTING,
    "deactivating": ServiceState.STOPPING,
    "inactive": ServiceState.STOPPED,
    "failed": ServiceState.FAILED,
}

_WHY_A_JOB_FAILED = {
    "canceled": "another request came in between and cancelled it",
    "timeout": "it took longer than systemd allows it",
    "failed": "it failed; its log (journalctl) says why",
    "dependency": "a service that it needs failed",
    "skipped": "there was nothing to do for it in the state it is in",
    "invalid": "this kind of service cannot do that",
    "assert": "an assertion of its unit file is not met",
    "unsupported": "this host cannot do that",
    "once": "it may run only once and has done so",
}

_NOT_ALLOWED = frozenset(
    {
        "org.freedesktop.DBus.Error.AccessDenied",
        "org.freedesktop.DBus.Error.AuthFailed",
        "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired",
    }
)
_NO_SUCH_UNIT = f"{_NAME}.NoSuchUnit"


class SystemdError(Exception):
    """There is no systemd here, or it says no. The message says which, for a person."""


class NoSuchServiceError(SystemdError):
    def __init__(self) -> None:
        super().__init__("there is no such service")


@dataclass(frozen=True, slots=True)
class Service:
    """`name` is that of the unit, as in "nginx.service"; `pid` is only known when one service is asked for."""

    name: str
    state: ServiceState
    is_enabled: bool
    description: str
    pid: int | None = None


def unit_name(name: str) -> str:
    """The unit that a person means by the name of a service: "nginx" is "nginx.service".

    Raises:
        RejectedError: that is not the name of a service. Other units are not for us: `reboot.target` is one.
    """
    if not _SERVICE_NAME.fullmatch(name):
        raise RejectedError(f"{name[:80]!r} is not the name of a service")
    if name.endswith(_OTHER_UNITS):
        raise RejectedError(f"{name[:80]!r} is a unit of systemd, but not a service")
    unit = name if name.endswith(_SUFFIX) else name + _SUFFIX
    if len(unit) > 255 or unit == _SUFFIX:
        raise RejectedError(f"{name[:80]!r} is not the name of a service")
    return unit


async def get_service(name: str) -> Service:
    """One service. The caller sets the time limit, here and below.

    Raises:
        RejectedError: that is not the name of a service.
        SystemdError: there is no such service, or no systemd.
    """
    unit = unit_name(name)
    async with _systemd() as bus:
        return await _read_service(bus, unit)


async def list_services() -> list[Service]:
    """All services that systemd has loaded or has a unit file for, by name, without their pids.

    Raises:
        SystemdError: there is no systemd.
    """
    async with _systemd() as bus:
        (units,), (files,) = await bus.call_all(
            [
                _call(_MANAGER, "ListUnitsByPatterns", "asas", ([], [f"*{_SUFFIX}"])),
                _call(_MANAGER, "ListUnitFilesByPatterns", "asas", ([], [f"*{_SUFFIX}"])),
            ]
        )
    enabled = {Path(path).name: _is_enabled(state) for path, state in files}
    found = {
        unit: Service(unit, ServiceState.STOPPED, is_enabled, "")
        for unit, is_enabled in enabled.items()
        if not unit.endswith(f"@{_SUFFIX}")  # A template is no service, only its instances are.
    }
    for unit, description, load, active, *_ in units:
        if load != "not-found":
            is_enabled = enabled.get(unit, enabled.get(_template(unit), False))
            found[unit] = Service(unit, _STATES.get(active, ServiceState.UNKNOWN), is_enabled, description)
    return [found[unit] for unit in sorted(found)]


async def requirements_of(units: list[str]) -> dict[str, list[str]]:
    """The services that each of these needs and is started with, by name.

    Raises:
        SystemdError: there is no systemd.
    """
    async with _systemd() as bus:
        answers = await bus.call_all([_property(_path_of(unit), _UNIT, "Requires") for unit in units])
    return {
        unit: sorted(name for name in needed if name.endswith(_SUFFIX))
        for unit, ((_, needed),) in zip(units, answers, strict=True)
    }


async def control_service(name: str, action: ServiceAction) -> Service:
    """Start, stop or restart a service, wait until systemd has done it, and tell how it is now.

    If the caller's time limit ends first, systemd goes on.

    Raises:
        RejectedError: that is not the name of a service, or it would end this host or this agent.
        SystemdError: systemd refused or failed, or there is none.
    """
    unit = survivable_unit(name)
    if action is not ServiceAction.START and unit == await asyncio.to_thread(_own_unit):
        raise RejectedError(f"{unit} is this agent itself: it could not tell how that ended")
    async with _systemd() as bus:
        await bus.call_all([_call(_MANAGER, "Subscribe"), _watch_jobs()])
        # "replace": as `systemctl start` does. A service that is just stopping is started again.
        (job,) = await bus.call(_call(_MANAGER, _METHODS[action], "ss", (unit, "replace")))
        result = await _end_of(bus, job)
        if result != "done":
            raise SystemdError(_WHY_A_JOB_FAILED.get(result, f"systemd says {result!r}"))
        return await _read_service(bus, unit)


def survivable_unit(name: str) -> str:
    """The unit that a person means, if starting it leaves this host running; see `unit_name`.

    Raises:
        RejectedError: that is not the name of a service, or one that would end this host.
    """
    unit = unit_name(name)
    if _ENDS_THE_HOST.fullmatch(unit):
        raise RejectedError(f"{unit} would end this host")
    return unit


def is_running() -> bool:
    """Whether systemd started this host."""
    return _RUNNING.is_dir()


@asynccontextmanager
async def _systemd() -> AsyncIterator[Bus]:
    if not await asyncio.to_thread(is_running):
        raise SystemdError("this host was not started by systemd")
    try:
        async with open_system_bus() as bus:
            yield bus
    except BusError as error:
        raise SystemdError(str(error)) from None
    except RefusedByBusError as error:
        raise _explained(error) from None


def _explained(error: RefusedByBusError) -> SystemdError:
    if error.name == _NO_SUCH_UNIT:
        return NoSuchServiceError()
    if error.name in _NOT_ALLOWED:
        return SystemdError(f"systemd does not allow it to the agent's user (a polkit rule would): {error}")
    return SystemdError(f"systemd says: {error}")


async def _read_service(bus: Bus, unit: str) -> Service:
    (path,) = await bus.call(_call(_MANAGER, "LoadUnit", "s", (unit,)))
    load, active, file_state, description, pid = (
        value
        for ((_, value),) in await bus.call_all(
            [
                _property(path, _UNIT, "LoadState"),
                _property(path, _UNIT, "ActiveState"),
                _property(path, _UNIT, "UnitFileState"),
                _property(path, _UNIT, "Description"),
                _property(path, _SERVICE, "MainPID"),
            ]
        )
    )
    if load == "not-found":
        raise NoSuchServiceError
    state = _STATES.get(active, ServiceState.UNKNOWN)
    return Service(unit, state, _is_enabled(file_state), description, pid or None)


async def _end_of(bus: Bus, job: str) -> str:
    while True:
        _, path, _, result, *_ = await bus.next_signal("JobRemoved")
        if path == job:
            return str(result)


def _own_unit() -> str | None:
    """The service that this process belongs to."""
    try:
        lines = _OWN_CGROUP.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    for line in lines:
        for folder in reversed(line.split("/")):
            if folder.endswith(_SUFFIX):
                return folder
    return None


def _is_enabled(unit_file_state: str) -> bool:
    return unit_file_state.startswith("enabled")


def _template(unit: str) -> str:
    """The unit file of an instance: "getty@.service" of "getty@tty1.service"."""
    return f"{unit.partition('@')[0]}@{_SUFFIX}"


def _path_of(unit: str) -> str:
    """The D-Bus object of a unit, as sd_bus_path_encode(3) has it. Whatever systemd can load has one."""
    label = "".join(
        character if "a" <= character.lower() <= "z" or (character.isdecimal() and place) else f"_{ord(character):02x}"
        for place, character in enumerate(unit)
    )
    return f"{_MANAGER[0]}/unit/{label}"


def _call(
    target: tuple[str, str], method: str, signature: str | None = None, arguments: tuple[Any, ...] = ()
) -> Message:
    from jeepney import DBusAddress, new_method_call

    path, interface = target
    message: Message = new_method_call(DBusAddress(path, _NAME, interface), method, signature, arguments)
    return message


def _property(path: str, interface: str, name: str) -> Message:
    return _call((path, "org.freedesktop.DBus.Properties"), "Get", "ss", (interface, name))


def _watch_jobs() -> Message:
    from jeepney import MatchRule
    from jeepney.bus_messages import message_bus

    rule = MatchRule(type="signal", sender=_NAME, interface=_MANAGER[1], member="JobRemoved", path=_MANAGER[0])
    message: Message = message_bus.AddMatch(rule)
    return message
