"""Containers, as Docker or Podman tell of them on their Unix socket: the same HTTP API, and no `docker` is run."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from opsmap_agent.discovery.findings import Finding, Found, NotAvailableError, clean, cut_to, key_of, without_nulls
from opsmap_agent.discovery.local_http import UnixConnection, get_json

SOCKETS = ("/var/run/docker.sock", "/run/podman/podman.sock")
_MAX_CONTAINERS = 1_000
_MAX_PORTS_OF_ONE = 50
_LABELS = {
    "compose_project": ("com.docker.compose.project", "io.podman.compose.project"),
    "compose_service": ("com.docker.compose.service",),
    "pod": ("io.kubernetes.pod.name",),
    "namespace": ("io.kubernetes.pod.namespace",),
    "title": ("org.opencontainers.image.title",),
    "version": ("org.opencontainers.image.version",),
}
"""What is told of the labels. Others may hold anything, also secrets."""


def discover_containers(sockets: Sequence[str] | None = None) -> Found:
    """Of every engine that answers, also containers that are stopped.

    Raises:
        NotAvailableError: there is none, or none answers.
    """
    given = sockets if sockets is not None else _usual_sockets()
    # Podman may stand in for Docker by a link: one engine is asked once.
    present = {str(Path(path).resolve()): path for path in given if Path(path).exists()}.values()
    if not present:
        raise NotAvailableError("neither Docker nor Podman has a socket on this host")
    findings: list[Finding] = []
    faults: list[str] = []
    for path in present:
        try:
            findings += _ask(path)
        except NotAvailableError as error:
            faults.append(f"{path}: {error}")
    if len(faults) == len(present):
        raise NotAvailableError("; ".join(faults))
    found = cut_to({each["key"]: each for each in findings}.values(), _MAX_CONTAINERS, "containers")
    return Found(found.findings, "; ".join(filter(None, [found.fault, *faults])) or None)


def _usual_sockets() -> list[str]:
    return [*SOCKETS, f"/run/user/{os.getuid()}/docker.sock", f"/run/user/{os.getuid()}/podman/podman.sock"]


def _ask(path: str) -> list[Finding]:
    answer = get_json(UnixConnection(path), "/containers/json?all=1")
    if not isinstance(answer, list):
        raise NotAvailableError("it does not answer with a list of containers")
    engine = "podman" if "podman" in path else "docker"
    return [_describe(engine, each) for each in answer if isinstance(each, dict) and each.get("Id")]


def _describe(engine: str, container: dict[str, Any]) -> Finding:
    """The name is the key: a container that is made anew is the same one, changed. Its uptime is left out."""
    names = container.get("Names")
    identifier = str(container["Id"])[:12]
    name = str(names[0]).removeprefix("/") if isinstance(names, list) and names else identifier
    labels = container.get("Labels")
    return without_nulls(
        key=key_of(engine, name),
        engine=engine,
        id=clean(identifier),
        name=clean(name),
        image=clean(str(container.get("Image", ""))),
        status=clean(str(container.get("State", ""))),
        ports=_ports(container.get("Ports")),
        **_known_labels(labels if isinstance(labels, dict) else {}),
    )


def _known_labels(labels: dict[str, Any]) -> dict[str, str]:
    found = {}
    for fact, names in _LABELS.items():
        value = next((labels[name] for name in names if isinstance(labels.get(name), str)), None)
        if value is not None:
            found[fact] = clean(value)
    return found


def _ports(ports: Any) -> list[Finding]:
    """Each published or exposed port once: engines list a published one for IPv4 and for IPv6."""
    found = {}
    for each in ports if isinstance(ports, list) else []:
        if isinstance(each, dict) and isinstance(each.get("PrivatePort"), int):
            published = each.get("PublicPort")
            protocol = clean(str(each.get("Type", "tcp")), 8)
            entry = without_nulls(
                port=each["PrivatePort"],
                protocol=protocol,
                published=published if isinstance(published, int) and published else None,
            )
            found[protocol, entry["port"], entry.get("published", 0)] = entry
    return [found[each] for each in sorted(found)][:_MAX_PORTS_OF_ONE]
