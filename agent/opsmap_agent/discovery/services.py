"""The services of this host, as systemd has them, with the ports that their processes listen on."""

from __future__ import annotations

import asyncio
from collections import defaultdict

from opsmap_agent.discovery.findings import Finding, Found, NotAvailableError, clean, cut_to, key_of, without_nulls
from opsmap_agent.discovery.procfs import HostView
from opsmap_agent.host.systemd import Service, SystemdError, list_services
from opsmap_protocol.enums import ServiceState

_MAX_SERVICES = 1_000
_MAX_PORTS_OF_ONE = 50
_TIMEOUT_S = 20.0


def discover_services(view: HostView) -> Found:
    """Services that run, failed, or start with the host; of hundreds of others only their unit files exist.

    Raises:
        NotAvailableError: there is no systemd, or it does not answer.
    """
    try:
        services = asyncio.run(_list_in_time())
    except SystemdError as error:
        raise NotAvailableError(str(error)) from None
    except TimeoutError:
        raise NotAvailableError(f"systemd has not answered within {_TIMEOUT_S:g} s") from None
    ports = _ports_by_unit(view)
    findings = [_describe(service, ports.get(service.name, [])) for service in services if _matters(service)]
    return cut_to(findings, _MAX_SERVICES, "services")


async def _list_in_time() -> list[Service]:
    async with asyncio.timeout(_TIMEOUT_S):
        return await list_services()


def _matters(service: Service) -> bool:
    return service.is_enabled or service.state is not ServiceState.STOPPED


def _ports_by_unit(view: HostView) -> dict[str, list[int]]:
    """Which unit a process belongs to stands in its control group."""
    found: dict[str, set[int]] = defaultdict(set)
    for entry in view.listeners:
        owner = view.owner(entry)
        if owner is not None and owner.unit is not None:
            found[owner.unit].add(entry.port)
    return {unit: sorted(ports)[:_MAX_PORTS_OF_ONE] for unit, ports in found.items()}


def _describe(service: Service, ports: list[int]) -> Finding:
    return without_nulls(
        key=key_of(service.name),
        name=clean(service.name),
        type="systemd",
        status=service.state.value,
        is_enabled=service.is_enabled,
        description=clean(service.description) or None,
        ports=ports,
    )
