"""Which agents a person means: by labels, by a pattern of their hostnames, one by one, or all of an organization."""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass
from typing import Any

from django.db.models import Q, QuerySet

from apps.gateways.exceptions import UnknownAgentsError
from apps.gateways.models import Agent

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


def find_agents(organization_id: uuid.UUID, wanted: FleetFilter) -> QuerySet[Agent]:
    """The agents of the organization that the filter means, in order of their ids.

    Raises:
        UnknownAgentsError: it names agents that are not there.
    """
    agents = Agent.objects.filter(organization_id=organization_id).order_by("pk")
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
    found = Agent.objects.filter(Q(agent_id__in=names) | Q(pk__in=ids.values()), organization_id=organization_id)
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
