"""Comparing what a host has with what the Maps say it has."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Collection, Sequence

from django.db.models import Q
from django.utils import timezone

from apps.gateways.models import Agent
from apps.maps.enums import ComponentState
from apps.maps.models import Component, Dependency
from apps.proposals.drafting.host import DraftComponent
from apps.proposals.drafting.matching import match_components
from apps.proposals.enums import ProposalKind, ProposalStatus
from apps.proposals.models import Proposal
from apps.proposals.selectors import as_listed, components_on

_MAY_BE_DOWN = frozenset(
    {
        ComponentState.STOPPED,
        ComponentState.STARTING,
        ComponentState.STOPPING,
        ComponentState.FAILED,
        ComponentState.MAINTENANCE,
        ComponentState.UNREACHABLE,
    }
)
"""A process that nobody sees is not missing where nobody expects it to run."""

_COMPARED = ("status", "component", "mapped_version", "digest", "is_dismissed", "changed_at")


def compare(agent: Agent) -> None:
    """Set what the proposals of a host are to the Maps. The agent's `Look` is locked by the caller.

    What the host does not have any more is kept only if a Map has it.
    """
    components = components_on([agent])[agent.pk]
    by_id = {component.pk: component for component in components}
    proposals = list(
        Proposal.objects.filter(agent=agent, kind=ProposalKind.COMPONENT).select_for_update(no_key=True).order_by("pk")
    )
    matched = match_components([_draft(proposal) for proposal in proposals], as_listed(components))
    changed, gone = [], []
    for proposal in proposals:
        listed = matched.get(proposal.key)
        component = by_id[listed.id] if listed else None
        if component is None and proposal.is_gone:
            gone.append(proposal.pk)
        elif _settle(proposal, _status(proposal, component), component):
            changed.append(proposal)
    Proposal.objects.filter(pk__in=gone).delete()
    Proposal.objects.bulk_update(changed, _COMPARED, batch_size=500)
    compare_dependencies(agent)


def compare_dependencies(agent: Agent) -> None:
    """The same for the dependencies that begin or end on this host."""
    mine = Q(client__agent=agent) | Q(server__agent=agent)
    found = Proposal.objects.filter(mine, kind=ProposalKind.DEPENDENCY).select_related("client", "server")
    proposals = list(found.select_for_update(of=("self",), no_key=True).order_by("pk"))
    ends = {end.component_id for proposal in proposals for end in _ends(proposal)}
    known = _dependencies_among({pk for pk in ends if pk is not None})
    changed = []
    for proposal in proposals:
        client, server = _ends(proposal)
        status = ProposalStatus.NEW
        if (client.component_id, server.component_id) in known:
            status = ProposalStatus.KNOWN
        if _settle(proposal, status, None):
            changed.append(proposal)
    Proposal.objects.bulk_update(changed, _COMPARED, batch_size=500)


def _ends(proposal: Proposal) -> tuple[Proposal, Proposal]:
    assert proposal.client is not None
    assert proposal.server is not None
    return proposal.client, proposal.server


def _dependencies_among(component_ids: Collection[uuid.UUID]) -> set[tuple[uuid.UUID, uuid.UUID]]:
    among = Dependency.objects.filter(component_id__in=component_ids, needs_id__in=component_ids)
    return set(among.values_list("component_id", "needs_id"))


def _status(proposal: Proposal, component: Component | None) -> ProposalStatus:
    if component is None:
        return ProposalStatus.NEW
    if proposal.is_gone:
        is_expected = proposal.is_lasting or component.state not in _MAY_BE_DOWN
        return ProposalStatus.MISSING if is_expected else ProposalStatus.KNOWN
    said = version_on_map(component)
    if said and proposal.version and not is_same_version(said, proposal.version):
        return ProposalStatus.CHANGED
    return ProposalStatus.KNOWN


def version_on_map(component: Component) -> str:
    return str((component.technology or {}).get("version", ""))


def is_same_version(said: str, found: str) -> bool:
    """A Map that says `17` means any 17.x: people write as much as matters to them."""
    return found == said or found.startswith((f"{said}.", f"{said}-", f"{said}+", f"{said}~", f"{said}:"))


def _settle(proposal: Proposal, status: ProposalStatus, component: Component | None) -> bool:
    """Whether anything changed. What was dismissed stays so until what a person decides by is another."""
    before = (proposal.status, proposal.component_id, proposal.mapped_version, proposal.digest, proposal.is_dismissed)
    proposal.status = status
    proposal.component = component
    proposal.mapped_version = version_on_map(component)[:80] if component else ""
    proposal.digest = digest_of(proposal)
    proposal.is_dismissed = bool(proposal.dismissed_as) and proposal.dismissed_as == proposal.digest
    after = (proposal.status, proposal.component_id, proposal.mapped_version, proposal.digest, proposal.is_dismissed)
    if before != after:
        proposal.changed_at = timezone.now()
    return before != after


def digest_of(proposal: Proposal) -> str:
    parts = [proposal.status, proposal.technology, proposal.version, proposal.mapped_version, proposal.spec]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _draft(proposal: Proposal) -> DraftComponent:
    """As much of it as matching looks at."""
    control, _, name = proposal.key.partition(":")
    engine, _, container = name.partition(":")
    return DraftComponent(
        key=proposal.key,
        name=proposal.name,
        type=proposal.type,
        technology=proposal.technology,
        unit=name if control == "service" else "",
        container=(engine, container) if control == "container" else None,
        ports=tuple(proposal.ports),
    )


def mark(proposals: Sequence[Proposal], components: dict[uuid.UUID, Component]) -> None:
    """These are on a Map now, by the ids of the proposals."""
    for proposal in proposals:
        _settle(proposal, ProposalStatus.KNOWN, components.get(proposal.pk))
    Proposal.objects.bulk_update(proposals, _COMPARED, batch_size=500)
