"""Which agents or gateways a person means: by labels, by a pattern of their names, one by one, or all there are."""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.db.models import OuterRef, Q, QuerySet, Subquery

from apps.gateways.enums import Standing
from apps.gateways.exceptions import UnknownAgentsError
from apps.gateways.models import Agent, Certificate, Gateway
from opsmap_protocol.enums import PeerRole

_SHOWN = 20
"""How many unknown agents an error names."""


@dataclass(frozen=True, slots=True)
class FleetFilter:
    """Agents must be what every given part says. `agents` holds agent ids or ids of rows, as people know either."""

    labels: dict[str, str]
    hostname_pattern: str = ""
    agents: tuple[str, ...] | None = None

    def as_json(self) -> dict[str, Any]:
        """As people wrote it, and as the row of a broadcast keeps it; an explicit `all` if it leaves out nobody."""
        parts: dict[str, Any] = {}
        if self.labels:
            parts["labels"] = self.labels
        if self.hostname_pattern:
            parts["hostnamePattern"] = self.hostname_pattern
        if self.agents is not None:
            parts["agentIds"] = list(self.agents)
        return parts or {"all": True}


@dataclass(frozen=True, slots=True)
class RegistryFilter:
    """Which gateways or agents a list shows: those that are all of what is given. Removed ones only if asked for.

    `gateway` is the gateway id or row id of the gateway that an agent came by last, `zone` that of this gateway.
    `name_pattern` is about hostnames of agents and gateway ids.
    """

    organization_ids: tuple[uuid.UUID, ...]
    standings: tuple[Standing, ...] = ()
    gateway: str = ""
    zone: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    name_pattern: str = ""
    version: str = ""
    certificate_ends_before: datetime | None = None


_HERE = Q(removed_at=None)
_TRUSTED = _HERE & Q(revoked_at=None)
_IN_QUARANTINE = Q(quarantined_at__isnull=False)


def of_standing(standing: Standing, *, is_agent: bool) -> Q:
    """As `models._standing` says it of one."""
    free = _TRUSTED & ~_IN_QUARANTINE if is_agent else _TRUSTED
    match standing:
        case Standing.REMOVED:
            return ~_HERE
        case Standing.REVOKED:
            return _HERE & Q(revoked_at__isnull=False)
        case Standing.QUARANTINED:
            # Of gateways none is: an empty condition would be all of them.
            return _TRUSTED & _IN_QUARANTINE if is_agent else Q(pk__in=[])
        case Standing.ONLINE:
            return free & Q(session_id__isnull=False)
        case Standing.OFFLINE:
            return free & Q(session_id=None)


def certificate_end(role: PeerRole) -> Subquery:
    """When the certificate ends that lasts longest, of an agent or gateway; null if we know of none."""
    name = "agent_id" if role is PeerRole.AGENT else "gateway_id"
    its = Certificate.objects.filter(
        organization_id=OuterRef("organization_id"), role=role, name=OuterRef(name), revoked_at=None
    )
    return Subquery(its.order_by("-not_after").values("not_after")[:1])


def filter_agents(wanted: RegistryFilter) -> QuerySet[Agent]:
    agents = Agent.objects.annotate(certificate_ends_at=certificate_end(PeerRole.AGENT)).filter(
        _common(wanted, "hostname", is_agent=True)
    )
    if wanted.gateway:
        row_id = _row_id(wanted.gateway)
        agents = agents.filter(Q(gateway_id=row_id) if row_id else Q(gateway__gateway_id=wanted.gateway))
    if wanted.zone:
        agents = agents.filter(gateway__zone=wanted.zone)
    return agents


def filter_gateways(wanted: RegistryFilter) -> QuerySet[Gateway]:
    gateways = Gateway.objects.annotate(certificate_ends_at=certificate_end(PeerRole.GATEWAY)).filter(
        _common(wanted, "gateway_id", is_agent=False)
    )
    return gateways.filter(zone=wanted.zone) if wanted.zone else gateways


def _common(wanted: RegistryFilter, name_field: str, *, is_agent: bool) -> Q:
    condition = Q(organization_id__in=wanted.organization_ids)
    standings = Q()
    for standing in wanted.standings:
        standings |= of_standing(standing, is_agent=is_agent)
    condition &= standings if wanted.standings else _HERE
    if wanted.labels:
        condition &= Q(labels__contains=wanted.labels)
    if wanted.name_pattern:
        condition &= Q(**{f"{name_field}__regex": _as_regex(wanted.name_pattern)})
    if wanted.version:
        condition &= Q(version=wanted.version)
    if wanted.certificate_ends_before is not None:
        condition &= Q(certificate_ends_at__lt=wanted.certificate_ends_before)
    return condition


def find_agents(organization_id: uuid.UUID, wanted: FleetFilter) -> QuerySet[Agent]:
    """The agents of the organization that the filter means, in order of their ids.

    Raises:
        UnknownAgentsError: it names agents that are not there.
    """
    agents = Agent.objects.filter(organization_id=organization_id, removed_at=None).order_by("pk")
    if wanted.agents is not None:
        agents = agents.filter(pk__in=_named_agents(organization_id, wanted.agents))
    if wanted.labels:
        agents = agents.filter(labels__contains=wanted.labels)
    if wanted.hostname_pattern:
        agents = agents.filter(hostname__regex=_as_regex(wanted.hostname_pattern))
    return agents


def _named_agents(organization_id: uuid.UUID, names: tuple[str, ...]) -> list[uuid.UUID]:
    """Their ids. A name that stands for nobody is a mistake of the caller, and must not pass for a smaller fleet."""
    ids = {name: row_id for name in names if (row_id := _row_id(name))}
    found = Agent.objects.filter(
        Q(agent_id__in=names) | Q(pk__in=ids.values()), organization_id=organization_id, removed_at=None
    )
    rows = list(found.values_list("pk", "agent_id"))
    by_id, by_name = {pk for pk, _ in rows}, {agent_id for _, agent_id in rows}
    unknown = [name for name in dict.fromkeys(names) if name not in by_name and ids.get(name) not in by_id]
    if unknown:
        raise UnknownAgentsError(
            f"There are no such agents, or you may not see them: {len(unknown)} of {len(names)}.",
            unknown=unknown[:_SHOWN],
        )
    return [pk for pk, _ in rows]


def _row_id(name: str) -> uuid.UUID | None:
    try:
        return uuid.UUID(name)
    except ValueError:
        return None


def _as_regex(pattern: str) -> str:
    """`*` stands for any characters, `?` for one, everything else for itself: as gateways understand it."""
    wild = {"*": ".*", "?": "."}
    return "^" + "".join(wild.get(character) or re.escape(character) for character in pattern) + "$"
