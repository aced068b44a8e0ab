"""The components of a host, and whom they talk to, from what it found out about itself.

Something is one component if it is started and stopped as one: a container, a unit of systemd, or else a process of a
technology that we know. Units and containers that we know nothing of count if they listen.
"""

from __future__ import annotations

import ipaddress
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from apps.maps.importing.names import Names
from apps.maps.importing.technologies import Recognized, recognize_image, recognize_unit
from apps.proposals.drafting.catalogue import (
    ANSWERS,
    OF_THE_SYSTEM,
    RUNTIMES,
    UNITS_OF_THE_SYSTEM,
    component_type,
)
from apps.proposals.drafting.words import (
    Findings,
    address_of,
    container_name_of,
    each_of,
    is_port,
    ports_of,
    published_ports_of,
    technology_of,
    text_of,
    unit_of,
    version_of,
)

MAX_COMPONENTS = 500
MAX_CALLS = 2_000
MAX_ADDRESSES = 64
_ENGINES = ("docker", "podman")
_LEAST_ID = 12
"""Characters of a container's id that engines show."""


@dataclass(frozen=True, slots=True)
class DraftComponent:
    """`key` is its own on this host, and the same as long as it is the same thing.

    `unit` or `container` (engine and name) is by what it is controlled. `is_lasting`: the host tells of it also when it
    does not run.
    """

    key: str
    name: str
    type: str
    technology: str = ""
    version: str = ""
    unit: str = ""
    container: tuple[str, str] | None = None
    ports: tuple[int, ...] = ()
    processes: frozenset[str] = frozenset()
    is_lasting: bool = False
    is_sure: bool = True
    """False if only a name says what it is: what was known by more of the same thing still counts."""

    @property
    def main_port(self) -> int | None:
        """The port at which it is asked whether it is well."""
        usual = ANSWERS.get(self.technology)
        if usual is not None and usual.port in self.ports:
            return usual.port
        return self.ports[0] if self.ports else None


@dataclass(frozen=True, slots=True)
class Call:
    """A component talks to a port; `address` is empty for one of its own host."""

    client_key: str
    address: str
    port: int


@dataclass(frozen=True, slots=True)
class DraftHost:
    """`addresses` are those by which other hosts may know this one. `told` are the keys of all units and containers
    that the host has, also those that do not run or are no components.
    """

    components: tuple[DraftComponent, ...]
    told: frozenset[str]
    calls: tuple[Call, ...]
    addresses: frozenset[str]


@dataclass(slots=True)
class _Owner:
    """What is started and stopped as one, and all that was found in it."""

    key: str
    base: str
    unit: str = ""
    container: tuple[str, str] | None = None
    technologies: list[Mapping[str, Any]] = field(default_factory=list)
    recognized: Recognized = field(default_factory=lambda: Recognized("service", None, None))
    ports: set[int] = field(default_factory=set)
    processes: set[str] = field(default_factory=set)
    is_lasting: bool = False


def draft_host(findings: Findings, *, host: str) -> DraftHost:
    """What this host has. Never raises, whatever the findings are; what makes no sense is passed over."""
    containers = _containers(findings)
    owners = _by_technology(findings, containers)
    _add_services(owners, findings)
    _add_containers(owners, containers)
    listening = {found.get("port") for found in each_of(findings, "ports") if found.get("protocol") == "tcp"}
    # A port that only talks UDP cannot be asked. Without a list of ports each is taken for what it was found as.
    tcp = {port for port in listening if is_port(port)}
    names = Names()
    suffix = host.partition(".")[0] or host
    components = [
        _component(owner, names.name_for(owner.key, f"{_base(owner)}-{suffix}"), tcp)
        for _, owner in sorted(owners.items())[:MAX_COMPONENTS]
    ]
    units = [unit_of(finding, "name") for finding in each_of(findings, "services")]
    told = {f"service:{unit}" for unit in units if unit} | {container.key for container in containers}
    return DraftHost(tuple(components), frozenset(told), tuple(_calls(findings, components)), _addresses(findings))


@dataclass(frozen=True, slots=True)
class _Container:
    engine: str
    name: str
    finding: Mapping[str, Any]

    @property
    def key(self) -> str:
        return f"container:{self.engine}:{self.name}"


def _containers(findings: Findings) -> list[_Container]:
    found = []
    for finding in each_of(findings, "containers"):
        engine, name = text_of(finding, "engine"), container_name_of(finding)
        # Kubernetes starts and stops what is in its pods.
        if engine in _ENGINES and name and not text_of(finding, "pod"):
            found.append(_Container(engine, name, finding))
    return found


def _by_technology(findings: Findings, containers: Iterable[_Container]) -> dict[str, _Owner]:
    owners: dict[str, _Owner] = {}
    by_id = {text_of(each.finding, "id")[:_LEAST_ID]: each for each in containers}
    for finding in each_of(findings, "technologies"):
        technology = technology_of(finding)
        if not technology or technology in RUNTIMES or technology in OF_THE_SYSTEM:
            continue
        owner = _owner_of(finding, technology, by_id)
        if owner is not None:
            owner = owners.setdefault(owner.key, owner)
            owner.technologies.append(finding)
            owner.ports.update(ports_of(finding))
            owner.processes.update(filter(None, [text_of(finding, "process_name")]))
    return owners


def _owner_of(finding: Mapping[str, Any], technology: str, by_id: Mapping[str, _Container]) -> _Owner | None:
    if container_id := text_of(finding, "container_id"):
        container = by_id.get(container_id[:_LEAST_ID])
        # Without its engine's word nobody knows by what name to start it.
        return _of_container(container) if container is not None else None
    unit = unit_of(finding)
    if unit and not unit.startswith(UNITS_OF_THE_SYSTEM):
        return _Owner(f"service:{unit}", technology, unit=unit)
    ports = ports_of(finding)
    place = str(ports[0]) if ports else text_of(finding, "file")
    return _Owner(f"technology:{technology}:{place}", technology) if place else None


def _of_container(container: _Container) -> _Owner:
    base = text_of(container.finding, "compose_service") or container.name
    image = text_of(container.finding, "image")
    return _Owner(
        container.key,
        base,
        container=(container.engine, container.name),
        recognized=recognize_image(image) if image else Recognized("service", None, None),
        is_lasting=True,
    )


def _add_services(owners: dict[str, _Owner], findings: Findings) -> None:
    for finding in each_of(findings, "services"):
        unit = unit_of(finding, "name")
        if not unit:
            continue
        key, ports = f"service:{unit}", ports_of(finding)
        if key not in owners and ports and not unit.startswith(UNITS_OF_THE_SYSTEM):
            base = unit.removesuffix(".service")
            owners[key] = _Owner(key, base, unit=unit, recognized=recognize_unit(unit))
        if key in owners:
            owners[key].ports.update(ports)
            owners[key].is_lasting = finding.get("is_enabled") is True


def _add_containers(owners: dict[str, _Owner], containers: Iterable[_Container]) -> None:
    for container in containers:
        owner = owners.setdefault(container.key, _of_container(container))
        # Those within it are not the host's: by what is published it is reached.
        owner.ports = set(published_ports_of(container.finding))


def _main(owner: _Owner) -> Mapping[str, Any] | None:
    return min(owner.technologies, key=_rank, default=None)


def _base(owner: _Owner) -> str:
    """What it is called: a container as people call it, anything else by what it is."""
    main = _main(owner)
    return technology_of(main) if main and owner.container is None else owner.base


def _component(owner: _Owner, name: str, tcp: set[int]) -> DraftComponent:
    main = _main(owner)
    technology = technology_of(main) if main else owner.recognized.technology or ""
    type_ = component_type(text_of(main, "component")) if main else owner.recognized.component_type
    version = version_of(main) if main else ""
    ports = owner.ports & tcp if tcp and owner.container is None else owner.ports
    return DraftComponent(
        key=owner.key,
        name=name,
        type=type_,
        technology=technology,
        version=version or (owner.recognized.version or "" if technology == owner.recognized.technology else ""),
        unit=owner.unit,
        container=owner.container,
        ports=tuple(sorted(ports)),
        processes=frozenset(owner.processes),
        is_lasting=owner.is_lasting,
        is_sure=main is not None,
    )


def _rank(finding: Mapping[str, Any]) -> tuple[bool, bool, str]:
    """Of several technologies in one unit, the one that it is about: which listens, and of which more is known."""
    name = technology_of(finding)
    return (not ports_of(finding), name not in ANSWERS, name)


def _calls(findings: Findings, components: Iterable[DraftComponent]) -> Iterable[Call]:
    """Outgoing connections of components of this host; each server once."""
    by_unit = {each.unit: each for each in components if each.unit}
    by_process: dict[str, list[DraftComponent]] = defaultdict(list)
    for each in components:
        for process in each.processes:
            by_process[process].append(each)
    calls = set()
    for finding in each_of(findings, "connections"):
        address, port = address_of(finding, "remote_address"), finding.get("remote_port")
        if finding.get("direction") != "out" or not address or not is_port(port):
            continue
        client = by_unit.get(unit_of(finding))
        if client is None:
            named = by_process.get(text_of(finding, "process_name"), [])
            client = named[0] if len(named) == 1 else None
        if client is not None:
            calls.add(Call(client.key, "" if _is_loopback(address) else address, int(port)))
    return sorted(calls, key=lambda call: (call.client_key, call.address, call.port))[:MAX_CALLS]


def _addresses(findings: Findings) -> frozenset[str]:
    said = [address_of(finding, "local_address") for finding in each_of(findings, "connections")]
    said += [address_of(finding, "address") for finding in each_of(findings, "ports")]
    return frozenset(sorted({address for address in said if _is_own(address)})[:MAX_ADDRESSES])


def _is_own(address: str) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    return not (parsed.is_loopback or parsed.is_unspecified or parsed.is_multicast or parsed.is_link_local)


def _is_loopback(address: str) -> bool:
    return address.startswith("127.") or address == "::1"
