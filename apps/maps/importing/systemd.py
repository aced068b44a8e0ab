"""Services of a systemd host, as discovery tells of them, to documents and a report.

A host has hundreds of units. Taken are the chosen ones, or those that are enabled and not the system's own, and what
they need through Requires, Requisite, BindsTo, PartOf and Wants.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from apps.maps.documents.faults import DocumentFault
from apps.maps.documents.hints import with_hint
from apps.maps.documents.reading import shown
from apps.maps.documents.schema import SCHEMA_ID
from apps.maps.importing.drafts import GROUPS, DraftComponent, ImportResult, finish
from apps.maps.importing.names import Names
from apps.maps.importing.report import Report
from apps.maps.importing.technologies import recognize_unit

MAX_UNITS = 5_000
_MAX_NAME = 256
_MAX_LINKS = 1_000
_SUFFIX = ".service"
_SUFFIXES = (
    *(".service", ".socket", ".target", ".mount", ".automount", ".timer", ".path", ".slice", ".scope", ".device"),
    ".swap",
)
_FILE = "units"

_STRONG = {"requires": "Requires", "requisite": "Requisite", "binds_to": "BindsTo", "part_of": "PartOf"}
_WEAK = {"wants": "Wants", "after": "After"}
_PULLING = ("requires", "requisite", "binds_to", "part_of", "wants")
_KEYS = {*_STRONG, *_WEAK}

_OWN_PREFIXES = (
    *("systemd-", "user@", "user-runtime-dir@", "getty@", "serial-getty@", "autovt@", "dbus", "modprobe@", "plymouth"),
    *("initrd-", "lvm2-", "dm-event", "emergency", "rescue", "console-", "keyboard-", "kmod", "apt-daily", "dpkg-db"),
    *("man-db", "logrotate", "e2scrub", "fstrim", "ifup@", "networking", "NetworkManager", "polkit", "udisks2"),
    *("accounts-daemon", "ModemManager", "wpa_supplicant", "snapd", "cloud-", "packagekit", "unattended-upgrades"),
    *("multipathd", "blk-availability", "rc-local", "quota", "sys-", "apparmor", "selinux", "fwupd", "motd-news"),
)
"""Units that belong to the system and to no application: passed over unless they are chosen or needed."""


@dataclass(frozen=True, slots=True)
class SystemdOptions:
    """`host` is where the units are, `units` those that are chosen; without any, the enabled ones are taken."""

    host: str = ""
    name: str = ""
    units: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Unit:
    """`line` is its position in the list, from 1."""

    name: str
    line: int
    description: str
    state: str
    is_enabled: bool
    links: dict[str, tuple[str, ...]] = field(default_factory=dict)


def import_systemd(units: Any, options: SystemdOptions, *, schema_url: str = SCHEMA_ID) -> ImportResult:
    """The Map of a host's services.

    Args:
        units: a list of {name, description, requires, requisite, binds_to, part_of, wants, after, active_state,
            is_enabled}; all but the name may be missing. `type` and `status` as discovery writes them are understood.
    """
    report = Report()
    by_name, faults = _read(units)
    faults += _unknown(options.units, by_name)
    if faults:
        return ImportResult([], report, faults)
    chosen = _chosen(by_name, options, report)
    if not chosen:
        found = "no enabled service that is not the system's own"
        return ImportResult(
            [], report, [DocumentFault(_FILE, 1, 1, "", found, "units that are chosen in options.units")]
        )
    taken = _with_what_they_need(chosen, by_name, report)
    if not options.units:
        _tell_of_the_rest(by_name, taken, report)
    names = Names()
    drafts = [_draft(unit, names, options, report) for unit in taken.values()]
    by_unit = dict(zip(taken, drafts, strict=True))
    for unit in taken.values():
        _depend(unit, by_unit, report)
    title = options.name or (f"Services of {options.host}" if options.host else "Services")
    text = f"Imported from the systemd units{f' of {options.host}' if options.host else ''}."
    return finish(title, text, drafts, report, file=_FILE, schema_url=schema_url)


def _read(units: Any) -> tuple[dict[str, _Unit], list[DocumentFault]]:
    if not isinstance(units, list) or len(units) > MAX_UNITS:
        found = f"{len(units)} units" if isinstance(units, list) else shown(units)
        return {}, [DocumentFault(_FILE, 1, 1, "", found, f"a list of at most {MAX_UNITS} units")]
    by_name: dict[str, _Unit] = {}
    faults: list[DocumentFault] = []
    for line, item in enumerate(units, start=1):
        fault = _fault_of(item, line)
        if fault:
            faults.append(fault)
            continue
        unit = _unit(item, line)
        if unit.name in by_name:
            found = f"{unit.name} twice"
            faults.append(DocumentFault(_FILE, line, 1, f"[{line - 1}].name", found, "each unit once"))
        by_name[unit.name] = unit
    return by_name, faults


def _fault_of(item: Any, line: int) -> DocumentFault | None:
    key = f"[{line - 1}]"
    if not isinstance(item, Mapping):
        return DocumentFault(_FILE, line, 1, key, shown(item), "a mapping with the key name")
    name = item.get("name")
    if not isinstance(name, str) or not 0 < len(name) <= _MAX_NAME or not name.isprintable():
        return DocumentFault(_FILE, line, 1, f"{key}.name", shown(name), f"a unit's name of at most {_MAX_NAME}")
    for link in sorted(_KEYS):
        value = item.get(link, [])
        if not isinstance(value, list) or len(value) > _MAX_LINKS or not all(isinstance(one, str) for one in value):
            return DocumentFault(_FILE, line, 1, f"{key}.{link}", shown(value), f"a list of at most {_MAX_LINKS} names")
    return None


def _unit(item: Mapping[str, Any], line: int) -> _Unit:
    return _Unit(
        _full(item["name"]),
        line,
        str(item.get("description") or "")[:1_000],
        str(item.get("active_state") or item.get("status") or ""),
        item.get("is_enabled", True) is True,
        {key: tuple(dict.fromkeys(item.get(key, []))) for key in _KEYS},
    )


def _unknown(wanted: Iterable[str], by_name: Mapping[str, _Unit]) -> list[DocumentFault]:
    return [
        DocumentFault("options", 1, 1, "units", repr(name), with_hint("a unit of the list", _full(name), by_name))
        for name in wanted
        if _full(name) not in by_name
    ]


def _full(name: str) -> str:
    """As `systemctl` completes it: what has no ending of a unit is a service."""
    return name if name.endswith(_SUFFIXES) else f"{name}{_SUFFIX}"


def _chosen(by_name: Mapping[str, _Unit], options: SystemdOptions, report: Report) -> list[_Unit]:
    if options.units:
        return [by_name[_full(name)] for name in dict.fromkeys(options.units)]
    chosen, own = [], 0
    for unit in by_name.values():
        if not unit.name.endswith(_SUFFIX) or unit.name.startswith(_OWN_PREFIXES):
            own += 1
        elif unit.is_enabled:
            chosen.append(unit)
    if own:
        report.left_out(0, "", "", f"{own} units of the system itself, or that are no services")
    return chosen


def _with_what_they_need(chosen: Iterable[_Unit], by_name: Mapping[str, _Unit], report: Report) -> dict[str, _Unit]:
    """The chosen units and the services that they pull in, in the order of the list."""
    waiting = deque(chosen)
    taken = {unit.name: unit for unit in waiting}
    while waiting:
        unit = waiting.popleft()
        for key in _PULLING:
            for name in unit.links[key]:
                if name in taken or not name.endswith(_SUFFIX):
                    continue
                if name not in by_name:
                    report.left_out(unit.line, unit.name, key, f"{name} is not in the list of units")
                elif key == "wants" and name.startswith(_OWN_PREFIXES):
                    report.left_out(unit.line, unit.name, key, f"{name} belongs to the system")
                else:
                    taken[name] = by_name[name]
                    waiting.append(by_name[name])
    return dict(sorted(taken.items(), key=lambda item: item[1].line))


def _tell_of_the_rest(by_name: Mapping[str, _Unit], taken: Mapping[str, _Unit], report: Report) -> None:
    for unit in by_name.values():
        if not unit.is_enabled and unit.name not in taken and not unit.name.startswith(_OWN_PREFIXES):
            report.left_out(unit.line, unit.name, "", "is not enabled; choose it in options.units if it matters")


def _draft(unit: _Unit, names: Names, options: SystemdOptions, report: Report) -> DraftComponent:
    bare = unit.name.removesuffix(_SUFFIX)
    name = names.name_for(unit.name, bare)
    if name != bare:
        report.guessed(unit.line, unit.name, "name", f"components are named otherwise: {name}")
    found = recognize_unit(unit.name)
    technology = found.as_spec()
    if technology:
        report.taken(unit.line, unit.name, "technology", f"{found.technology}, {found.component_type}")
    else:
        report.guessed(unit.line, unit.name, "type", f"{found.component_type}: the unit's name says no more")
    if not options.host:
        report.left_out(unit.line, unit.name, "host", "is not said: nothing can be run until the component has one")
    control = {"service": {"name": unit.name}}
    spec: dict[str, Any] = {
        "type": found.component_type,
        "group": GROUPS[found.component_type],
        "description": unit.description,
        "host": options.host,
        "commands": dict.fromkeys(("start", "stop", "restart", "status"), control),
        "healthcheck": {"type": "service", "service_name": unit.name},
        **({"technology": technology} if technology else {}),
    }
    if unit.state == "failed":
        report.guessed(unit.line, unit.name, "active_state", "has failed at this moment")
    return DraftComponent(name, unit.line, spec, {"systemd-unit": unit.name} if len(unit.name) <= _MAX_NAME else {})


def _depend(unit: _Unit, by_unit: Mapping[str, DraftComponent], report: Report) -> None:
    draft = by_unit[unit.name]
    for key, said in {**_STRONG, **_WEAK}.items():
        for name in unit.links[key]:
            needed = by_unit.get(name)
            if needed is None or needed is draft:
                # What is no service (targets, mounts, sockets) is up long before an application.
                if key != "after" and not name.endswith(_SUFFIX):
                    report.left_out(unit.line, unit.name, said, f"{name} is no service")
                continue
            is_known = needed.name in draft.dependencies
            draft.needs(needed.name, is_strong=key in _STRONG, line=unit.line)
            _tell(report, unit, said, name, is_known=is_known)


def _tell(report: Report, unit: _Unit, said: str, name: str, *, is_known: bool) -> None:
    match said:
        case "After" if is_known:
            return  # The order that goes with a dependency that is told of already.
        case "After":
            report.guessed(unit.line, unit.name, said, f"weak: only starts after {name}")
        case "Wants":
            report.guessed(unit.line, unit.name, said, f"weak: {name} is started with it, and may fail")
        case "PartOf":
            report.guessed(unit.line, unit.name, said, f"strong: it is stopped and restarted with {name}")
        case _ if name in unit.links["after"]:
            report.taken(unit.line, unit.name, said, name)
        case _:
            report.guessed(unit.line, unit.name, said, f"{name} first, though systemd starts both at once")
