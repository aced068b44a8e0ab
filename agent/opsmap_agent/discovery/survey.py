"""One look at the host: each kind within its budget, and of each only what differs from what was told before."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from opsmap_agent.discovery.connections import discover_connections
from opsmap_agent.discovery.containers import discover_containers
from opsmap_agent.discovery.filesystems import discover_filesystems
from opsmap_agent.discovery.findings import Found, NotAvailableError
from opsmap_agent.discovery.pods import discover_pods
from opsmap_agent.discovery.processes import discover_ports, discover_processes
from opsmap_agent.discovery.procfs import HostView
from opsmap_agent.discovery.reports import BUDGETS, Digests, KindReport, compare, within
from opsmap_agent.discovery.services import discover_services
from opsmap_agent.discovery.technologies import discover_technologies
from opsmap_protocol.enums import DiscoveryKind


def survey(kinds: Iterable[DiscoveryKind], told: Mapping[str, Digests]) -> Iterator[KindReport]:
    """Look at each kind, one after another. `told` is what the backend has, by kind; empty for everything."""
    wanted = set(kinds)
    view = HostView()
    collectors: dict[DiscoveryKind, Callable[[], Found]] = {
        DiscoveryKind.PORTS: lambda: discover_ports(view),
        DiscoveryKind.PROCESSES: lambda: discover_processes(view),
        DiscoveryKind.CONNECTIONS: lambda: discover_connections(view),
        DiscoveryKind.TECHNOLOGIES: lambda: discover_technologies(view),
        DiscoveryKind.SERVICES: lambda: discover_services(view),
        DiscoveryKind.CONTAINERS: discover_containers,
        DiscoveryKind.PODS: discover_pods,
        DiscoveryKind.FILESYSTEMS: discover_filesystems,
    }
    for kind in BUDGETS:
        if kind in wanted:
            yield report_on(kind, collectors[kind], told.get(kind, {}))


def report_on(kind: DiscoveryKind, collect: Callable[[], Found], told: Digests) -> KindReport:
    """One kind. A fault of a collector is told, and spoils nothing of the others."""
    try:
        found = within(collect(), BUDGETS[kind])
    except NotAvailableError as error:
        found = Found([], str(error))
    except Exception as error:
        found = Found([], f"internal error of the agent: {type(error).__name__}: {error}")
    return compare(kind, found, told)
