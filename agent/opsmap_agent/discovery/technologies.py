"""Known technologies among the processes of this host, and their versions."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from opsmap_agent.discovery.catalogue import RUNTIMES, Technology, recognise, recognise_runtime
from opsmap_agent.discovery.findings import Finding, Found, clean, cut_to, key_of, without_nulls
from opsmap_agent.discovery.packages import find_versions
from opsmap_agent.discovery.procfs import HostView, Process
from opsmap_agent.discovery.versions import java_release, python_distribution, version_in_archive, version_in_path

_MAX_TECHNOLOGIES = 500
_MAX_COMMAND_LINE = 32 * 1024
_MAX_PORTS_OF_ONE = 50
_ARCHIVES = (".jar", ".war")
_VERSION = re.compile(r"[\w.+~:-]{1,60}")
_RUNTIME_NAMES = frozenset(each.name for each in RUNTIMES)

FindVersions = Callable[[Iterable[str]], dict[str, str]]


@dataclass(frozen=True, slots=True)
class _Seen:
    technology: Technology
    process: Process
    command_line: str

    @property
    def is_runtime(self) -> bool:
        return self.technology.name in _RUNTIME_NAMES

    @property
    def file(self) -> str:
        """The file that is the technology: the program, or the archive or script that an interpreter runs."""
        if self.is_runtime or not self.technology.pattern or self.process.program in self.technology.programs:
            return self.process.executable or _first_absolute(self.process.arguments[:1])
        return _archive_of(self.process.arguments) or _first_absolute(self.process.arguments[1:])


def discover_technologies(view: HostView, find: FindVersions = find_versions) -> Found:
    """One finding for each that listens on a port of its own or comes from a file of its own.

    The interpreter of a program is one, too: it grows old by itself.
    """
    seen = _recognise_all(view)
    ports = _ports_by_process(view)
    # Files within containers are not this host's, though they may be called the same.
    versions = find({each.file for each in seen if each.file and not _is_elsewhere(each.process)})
    findings: dict[str, Finding] = {}
    for each in sorted(seen, key=lambda each: each.process.pid):
        finding = _describe(each, ports.get(each.process.pid, []), versions.get(each.file))
        findings.setdefault(finding["key"], finding)
    return cut_to(findings.values(), _MAX_TECHNOLOGIES, "technologies")


def _recognise_all(view: HostView) -> list[_Seen]:
    """The first process of each: its workers, which it has made, are the same."""
    named: dict[int, Technology] = {}
    lines: dict[int, str] = {}
    for pid, process in view.processes.items():
        line = " ".join(process.arguments)[:_MAX_COMMAND_LINE] or process.name
        technology = recognise(_programs_of(process), line)
        if technology is not None:
            named[pid], lines[pid] = technology, line
    seen: list[_Seen] = []
    for pid, technology in named.items():
        process = view.processes[pid]
        if named.get(process.parent_pid) is technology and technology.name not in _RUNTIME_NAMES:
            continue
        seen.append(_Seen(technology, process, lines[pid]))
        runtime = recognise_runtime(_programs_of(process), lines[pid])
        if runtime is not None and runtime is not technology:
            seen.append(_Seen(runtime, process, lines[pid]))
    return seen


def _programs_of(process: Process) -> tuple[str, ...]:
    """What its program may be called. A title that the process gave itself is one text, which ends in a space."""
    title = process.arguments[0].partition(" ")[0].rpartition("/")[2] if process.arguments else ""
    return (process.program, title, process.name)


def _ports_by_process(view: HostView) -> dict[int, list[int]]:
    found: dict[int, set[int]] = defaultdict(set)
    for entry in view.listeners:
        owner = view.owner(entry)
        if owner is not None:
            found[owner.pid].add(entry.port)
    return {pid: sorted(ports)[:_MAX_PORTS_OF_ONE] for pid, ports in found.items()}


def _describe(seen: _Seen, ports: list[int], packaged: str | None) -> Finding:
    technology, process = seen.technology, seen.process
    version, source = _version(seen, packaged)
    place = process.executable or seen.file if seen.is_runtime else (ports[0] if ports else seen.file)
    return without_nulls(
        key=key_of(technology.name, place, *([process.container_id] if process.container_id else [])),
        name=technology.name,
        component=technology.component,
        version=version,
        version_from=source,
        # The file was replaced while it ran, most often by an upgrade: the new one's version is not what runs.
        is_replaced=process.is_replaced or None,
        file=clean(seen.file) or None,
        ports=None if seen.is_runtime else ports,
        process_name=clean(process.name),
        service=clean(process.unit) if process.unit and not seen.is_runtime else None,
        container_id=process.container_id,
    )


def _version(seen: _Seen, packaged: str | None) -> tuple[str | None, str | None]:
    """The version, and what says so."""
    technology, process, file = seen.technology, seen.process, seen.file
    is_here = not _is_elsewhere(process) and not process.is_replaced
    ways: tuple[tuple[str, Callable[[], str | None]], ...] = (
        ("package", lambda: packaged if is_here else None),
        ("command line", lambda: _matched(technology, f"{seen.command_line} {process.executable}")),
        ("archive", lambda: version_in_archive(file) if is_here and file.endswith(_ARCHIVES) else None),
        ("release file", lambda: java_release(file) if is_here and technology.name == "java" else None),
        ("metadata", lambda: _distribution(seen) if is_here else None),
        ("path", lambda: version_in_path(file, technology.programs[0] if technology.programs else technology.name)),
    )
    for source, look in ways:
        version = look()
        if version is not None and _VERSION.fullmatch(version):
            return version, source
    return None, None


def _matched(technology: Technology, text: str) -> str | None:
    found = re.search(technology.version, text) if technology.version else None
    return found[1] if found else None


def _distribution(seen: _Seen) -> str | None:
    return (
        python_distribution(seen.process.arguments, seen.technology.distribution)
        if seen.technology.distribution
        else None
    )


def _archive_of(arguments: tuple[str, ...]) -> str:
    return next((each for each in arguments if each.startswith("/") and each.endswith(_ARCHIVES)), "")


def _first_absolute(arguments: Iterable[str]) -> str:
    first = next((each for each in arguments if each.startswith("/")), "")
    return first.partition(" ")[0]


def _is_elsewhere(process: Process) -> bool:
    return process.container_id is not None
