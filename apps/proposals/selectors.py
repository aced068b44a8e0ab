"""Reads of proposals, for actions and for the API."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from django.db.models import Count, Q, QuerySet

from apps.gateways.models import Agent
from apps.maps.models import Component
from apps.proposals.drafting.matching import Listed
from apps.proposals.enums import ProposalStatus
from apps.proposals.models import Proposal

OPEN = Q(is_dismissed=False) & ~Q(status=ProposalStatus.KNOWN)
"""What a person is asked about."""


@dataclass(frozen=True, slots=True)
class ProposalFilter:
    """Which proposals a list shows: those that are all of what is given. Without `statuses`, what is not known yet."""

    organization_id: uuid.UUID
    statuses: tuple[str, ...] = ()
    kind: str = ""
    agent: str = ""
    technology: str = ""
    type: str = ""
    text: str = ""
    is_dismissed: bool = False


def list_proposals(
    wanted: ProposalFilter, *, limit: int, before: uuid.UUID | None
) -> tuple[list[Proposal], uuid.UUID | None]:
    """A page, newest first, and where the next one begins, if there is one. One query."""
    shown = Proposal.objects.filter(organization_id=wanted.organization_id, is_dismissed=wanted.is_dismissed)
    shown = shown.filter(status__in=wanted.statuses) if wanted.statuses else shown.exclude(status=ProposalStatus.KNOWN)
    for name in ("kind", "technology", "type"):
        if value := getattr(wanted, name):
            shown = shown.filter(**{name: value})
    if wanted.agent:
        shown = shown.filter(agent__agent_id=wanted.agent)
    if wanted.text:
        shown = shown.filter(name__icontains=wanted.text)
    if before is not None:
        shown = shown.filter(pk__lt=before)
    page = list(_described(shown).order_by("-pk")[: limit + 1])
    return page[:limit], page[limit - 1].pk if len(page) > limit else None


def _described(proposals: QuerySet[Proposal]) -> QuerySet[Proposal]:
    return proposals.select_related("agent", "component", "client", "server").defer(
        "agent__health_checks", "agent__certificate", "component__spec"
    )


def count_open(organization_id: uuid.UUID) -> dict[str, int]:
    """How many of each status wait for a person."""
    waiting = Proposal.objects.filter(OPEN, organization_id=organization_id).order_by()
    counts = dict(waiting.values_list("status").annotate(Count("pk")))
    return {status: counts.get(status, 0) for status in ProposalStatus.values if status != ProposalStatus.KNOWN}


def components_on(agents: Collection[Agent]) -> dict[uuid.UUID, list[Component]]:
    """The components that Maps have on the hosts of these agents of one organization, by agent."""
    by_host = {name: agent.pk for agent in agents for name in (agent.hostname, agent.agent_id)}
    # An agent id counts before a hostname, as where commands go.
    by_host.update({agent.agent_id: agent.pk for agent in agents})
    found: dict[uuid.UUID, list[Component]] = {agent.pk: [] for agent in agents}
    organizations = {agent.organization_id for agent in agents}
    components = Component.objects.filter(organization_id__in=organizations, host__in=by_host).order_by("pk")
    for component in components.only("pk", "map_id", "name", "host", "state", "technology", "spec"):
        found[by_host[component.host]].append(component)
    return found


def as_listed(components: Iterable[Component]) -> list[Listed]:
    return [
        Listed(component.pk, str((component.technology or {}).get("name", "")), component.spec)
        for component in components
    ]


def describe_proposal(proposal: Proposal) -> dict[str, Any]:
    """A proposal as the API shows it; load it with `list_proposals`."""
    component = proposal.component
    return {
        "id": str(proposal.pk),
        "kind": proposal.kind,
        "status": proposal.status,
        "isDismissed": proposal.is_dismissed,
        "name": proposal.name,
        "type": proposal.type,
        "technology": {"name": proposal.technology, "version": proposal.version} if proposal.technology else None,
        "mappedVersion": proposal.mapped_version or None,
        "agent": {
            "id": str(proposal.agent_id),
            "agentId": proposal.agent.agent_id,
            "hostname": proposal.agent.hostname,
        },
        "ports": proposal.ports,
        "spec": proposal.spec or None,
        "client": _end(proposal.client),
        "server": _end(proposal.server),
        "dependencyKind": ("strong" if proposal.is_strong else "weak") if proposal.client_id else None,
        "component": {"id": str(component.pk), "name": component.name, "mapId": str(component.map_id)}
        if component
        else None,
        "foundAt": proposal.found_at,
        "changedAt": proposal.changed_at,
    }


def _end(proposal: Proposal | None) -> dict[str, Any] | None:
    if proposal is None:
        return None
    component_id = str(proposal.component_id) if proposal.component_id else None
    return {"id": str(proposal.pk), "name": proposal.name, "componentId": component_id}
