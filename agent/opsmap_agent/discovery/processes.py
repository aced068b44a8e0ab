"""Processes with the ports they listen on, and the ports themselves."""

from __future__ import annotations

from collections import defaultdict

from opsmap_agent.discovery.findings import (
    MAX_COMMAND_LINE,
    Finding,
    Found,
    clean,
    cut_to,
    key_of,
    without_nulls,
)
from opsmap_agent.discovery.procfs import HostView, Process, Socket, user_name
from opsmap_agent.host.masking import mask_arguments

_MAX_PROCESSES = 1_000
_MAX_PORTS = 2_000
_MAX_PORTS_OF_ONE = 50


def discover_processes(view: HostView) -> Found:
    """Processes that listen on something. The key is what they listen on, so a restart changes the process alone."""
    ports_of: dict[int, set[tuple[str, int, str]]] = defaultdict(set)
    for entry in view.listeners:
        owner = view.owner(entry)
        if owner is not None:
            ports_of[owner.pid].add((entry.protocol, entry.port, entry.address))
    findings = [_describe(view.processes[pid], sorted(ports)) for pid, ports in ports_of.items()]
    found = cut_to(_one_of_each(findings), _MAX_PROCESSES, "processes")
    return Found(found.findings, found.fault or _unseen(view))


def discover_ports(view: HostView) -> Found:
    """All listening ports, also those whose process may not be seen."""
    findings: dict[str, Finding] = {}
    for entry in view.listeners:
        owner = view.owner(entry)
        finding = without_nulls(
            key=key_of(entry.protocol, _written(entry.address), entry.port),
            protocol=entry.protocol,
            address=entry.address,
            port=entry.port,
            user=clean(user_name(entry.uid)),
            process_name=clean(owner.name) if owner else None,
            service=clean(owner.unit) if owner and owner.unit else None,
        )
        # Several sockets of one address share its load: the first says it all.
        findings.setdefault(finding["key"], finding)
    found = cut_to(findings.values(), _MAX_PORTS, "listening ports")
    return Found(found.findings, found.fault or _unseen(view))


def command_line(process: Process) -> str:
    """As a person may see it: without secrets, and harmless."""
    return clean(" ".join(mask_arguments(process.arguments)) or process.name, MAX_COMMAND_LINE)


def is_local(entry: Socket) -> bool:
    return entry.remote_address.startswith("127.") or entry.remote_address == "::1"


def _describe(process: Process, ports: list[tuple[str, int, str]]) -> Finding:
    protocol, port, address = ports[0]
    return without_nulls(
        key=key_of(process.name, protocol, _written(address), port),
        name=clean(process.name),
        pid=process.pid,
        user=clean(user_name(process.uid)),
        executable=clean(process.executable) or None,
        command_line=command_line(process),
        service=clean(process.unit) if process.unit else None,
        container_id=process.container_id,
        ports=[
            {"protocol": protocol, "address": address, "port": port}
            for protocol, port, address in ports[:_MAX_PORTS_OF_ONE]
        ],
    )


def _one_of_each(findings: list[Finding]) -> list[Finding]:
    """Several processes may share a port by its load (SO_REUSEPORT): told once, by the oldest."""
    chosen: dict[str, Finding] = {}
    for finding in sorted(findings, key=lambda each: int(each["pid"])):
        chosen.setdefault(finding["key"], finding)
    return list(chosen.values())


def _written(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _unseen(view: HostView) -> str | None:
    count = view.unowned
    if not count:
        return None
    return (
        f"the process of {count} of {len(view.listeners)} listening sockets cannot be seen: "
        "it is another user's, or not in this network"
    )
