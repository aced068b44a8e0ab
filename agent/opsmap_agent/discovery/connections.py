"""Who talks to whom: established connections, without what differs from one to the next.

An inbound connection is one to a port that listens here; of all others this host is the client, and its own port means
nothing. Clients from the internet are people, not hosts of ours: they are counted as one.
"""

from __future__ import annotations

import ipaddress
from functools import lru_cache

from opsmap_agent.discovery.findings import Finding, Found, clean, cut_to, key_of, without_nulls
from opsmap_agent.discovery.processes import is_local
from opsmap_agent.discovery.procfs import HostView, Process, Socket, user_name

_MAX_CONNECTIONS = 2_000
_PUBLIC = "public"


def discover_connections(view: HostView) -> Found:
    """One finding for each direction, local party and remote party; how many connections there are is not told.

    Within this host (127.0.0.1) only the client's side is: it names both.
    """
    listening = {entry.port for entry in view.listeners if entry.protocol == "tcp"}
    findings: dict[str, Finding] = {}
    unknown: list[Socket] = []
    for entry in view.connections:
        if entry.port in listening:
            if not is_local(entry):
                _keep(findings, _inbound(entry, view.owner(entry)))
        elif (owner := view.owner(entry)) is not None:
            _keep(findings, _outbound(entry, owner))
        elif not is_local(entry):
            unknown.append(entry)
    _add_unknown(findings, unknown)
    return cut_to(findings.values(), _MAX_CONNECTIONS, "connections")


def _keep(findings: dict[str, Finding], finding: Finding) -> None:
    """Of several between the same two, by several addresses of this host, always the same one."""
    known = findings.setdefault(finding["key"], finding)
    if finding.get("local_address", "") < known.get("local_address", ""):
        findings[finding["key"]] = finding


def _local_address(entry: Socket) -> str | None:
    """By which other hosts know this one."""
    return None if is_local(entry) else entry.address


def _inbound(entry: Socket, owner: Process | None) -> Finding:
    remote = _PUBLIC if _is_public(entry.remote_address) else entry.remote_address
    return without_nulls(
        key=key_of("in", entry.port, remote),
        direction="in",
        port=entry.port,
        local_address=_local_address(entry),
        remote_address=remote,
        process_name=clean(owner.name) if owner else None,
    )


def _outbound(entry: Socket, owner: Process) -> Finding:
    return without_nulls(
        key=key_of("out", owner.name, entry.remote_address, entry.remote_port),
        direction="out",
        process_name=clean(owner.name),
        user=clean(user_name(owner.uid)),
        service=clean(owner.unit) if owner.unit else None,
        local_address=_local_address(entry),
        remote_address=entry.remote_address,
        remote_port=entry.remote_port,
    )


def _add_unknown(findings: dict[str, Finding], unknown: list[Socket]) -> None:
    """Connections without a process that may be seen count if nobody is known to talk to that address."""
    known = {(each["remote_address"], each["remote_port"]) for each in findings.values() if each["direction"] == "out"}
    for entry in unknown:
        if (entry.remote_address, entry.remote_port) not in known:
            key = key_of("out", "", entry.remote_address, entry.remote_port)
            findings[key] = without_nulls(
                key=key,
                direction="out",
                # A connection that is being closed belongs to nobody any more, which the kernel writes as root.
                user=clean(user_name(entry.uid)) if entry.inode else None,
                remote_address=entry.remote_address,
                remote_port=entry.remote_port,
            )


@lru_cache(maxsize=4096)
def _is_public(address: str) -> bool:
    return ipaddress.ip_address(address).is_global
