"""What discovery would find, asked for at once and told in the reference's form.

The collectors are those of `opsmap_agent.discovery`, imported at the first use: most agents at rest have no need of
them. Each looks at the host anew.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypedDict

from opsmap_agent.host import systemd
from opsmap_agent.native.bounds import Cut, bounded
from opsmap_agent.native.registry import NativeCommandError, NativeContext, native

if TYPE_CHECKING:
    from opsmap_agent.discovery.findings import Found
    from opsmap_agent.discovery.procfs import HostView

_LIMIT_S = 40.0
_MAX_CONNECTIONS_OF_ONE = 100


class DiscoveredService(TypedDict):
    name: str
    type: str
    status: str
    ports: list[int]
    dependencies: list[str]


class DiscoveredPort(TypedDict):
    protocol: str
    address: str
    port: int


class DiscoveredConnection(TypedDict):
    remote_address: str
    remote_port: int


class DiscoveredProcess(TypedDict):
    pid: int
    name: str
    user: str
    ports: list[DiscoveredPort]
    connections: list[DiscoveredConnection]


class ContainerPort(TypedDict):
    port: int
    protocol: str
    published: int | None


class DiscoveredContainer(TypedDict):
    id: str
    name: str
    image: str
    status: str
    ports: list[ContainerPort]


class PodContainer(TypedDict):
    name: str
    image: str


class DiscoveredPod(TypedDict):
    name: str
    namespace: str
    status: str
    containers: list[PodContainer]
    node: str | None


@native("discover_services", limit_s=_LIMIT_S)
async def discover_services(context: NativeContext) -> list[DiscoveredService] | Cut[DiscoveredService]:
    """Services that run, failed or start with the host, with the ports of their processes and what they need."""
    from opsmap_agent.discovery.procfs import HostView
    from opsmap_agent.discovery.services import discover_services as collect

    found = await asyncio.to_thread(_found, lambda: collect(HostView()))
    names = [str(each["name"]) for each in found.findings]
    try:
        needed = await systemd.requirements_of(names)
    except systemd.SystemdError as error:
        raise NativeCommandError(str(error)) from None
    entries: list[DiscoveredService] = [
        {
            "name": each["name"],
            "type": each["type"],
            "status": each["status"],
            "ports": each.get("ports", []),
            "dependencies": needed.get(each["name"], []),
        }
        for each in found.findings
    ]
    return _told(entries, found.fault, "services")


@native("discover_processes_with_ports", switches=("discover_processes",), limit_s=_LIMIT_S)
def discover_processes_with_ports(context: NativeContext) -> list[DiscoveredProcess] | Cut[DiscoveredProcess]:
    """Processes that listen on a port, and whom each is connected to: every remote address and port once, at most 100.

    Of other users' processes only those that the agent's user may look into.
    """
    from opsmap_agent.discovery.procfs import HostView

    return bounded(_processes(HostView()), "processes")


@native("discover_docker", limit_s=_LIMIT_S)
def discover_docker(context: NativeContext) -> list[DiscoveredContainer] | Cut[DiscoveredContainer]:
    """Containers of Docker or Podman, also stopped ones, as the engine's socket tells them.

    The agent's user has to be allowed to that socket, which makes it as good as root: most hosts should not.
    """
    from opsmap_agent.discovery.containers import discover_containers

    found = _found(discover_containers)
    entries: list[DiscoveredContainer] = [
        {
            "id": each["id"],
            "name": each["name"],
            "image": each["image"],
            "status": each["status"],
            "ports": [
                {"port": port["port"], "protocol": port["protocol"], "published": port.get("published")}
                for port in each.get("ports", [])
            ],
        }
        for each in found.findings
    ]
    return _told(entries, found.fault, "containers")


@native("discover_kubernetes", limit_s=_LIMIT_S)
def discover_kubernetes(
    context: NativeContext, *, namespace: str | None = None
) -> list[DiscoveredPod] | Cut[DiscoveredPod]:
    """Pods of one namespace or of all, if the agent runs in the cluster and its service account may list them."""
    from opsmap_agent.discovery.pods import discover_pods

    found = _found(lambda: discover_pods(namespace))
    entries: list[DiscoveredPod] = [
        {
            "name": each["name"],
            "namespace": each["namespace"],
            "status": each["status"],
            "containers": each.get("containers", []),
            "node": each.get("node"),
        }
        for each in found.findings
    ]
    return _told(entries, found.fault, "pods")


def _found(collect: Callable[[], Found]) -> Found:
    from opsmap_agent.discovery.findings import NotAvailableError

    try:
        return collect()
    except NotAvailableError as error:
        raise NativeCommandError(str(error)) from None


def _told(entries: list[Any], fault: str | None, what: str) -> list[Any] | Cut[Any]:
    answer = bounded(entries, what)
    if fault is None:
        return answer
    if isinstance(answer, Cut):
        return Cut(answer.entries, f"{answer.remark}; {fault}")
    return Cut(answer, fault)


def _processes(view: HostView) -> Iterator[DiscoveredProcess]:
    from opsmap_agent.discovery.findings import clean
    from opsmap_agent.discovery.procfs import user_name

    ports: dict[int, set[tuple[str, str, int]]] = defaultdict(set)
    for entry in view.listeners:
        if (owner := view.owner(entry)) is not None:
            ports[owner.pid].add((entry.protocol, entry.address, entry.port))
    remotes: dict[int, set[tuple[str, int]]] = defaultdict(set)
    for entry in view.connections:
        if (owner := view.owner(entry)) is not None:
            remotes[owner.pid].add((entry.remote_address, entry.remote_port))
    for pid in sorted(ports):
        process = view.processes[pid]
        yield {
            "pid": pid,
            "name": clean(process.name),
            "user": clean(user_name(process.uid)),
            "ports": [
                {"protocol": protocol, "address": address, "port": port}
                for protocol, address, port in sorted(ports[pid])
            ],
            "connections": [
                {"remote_address": address, "remote_port": port}
                for address, port in sorted(remotes[pid])[:_MAX_CONNECTIONS_OF_ONE]
            ],
        }
