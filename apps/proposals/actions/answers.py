"""What people answer: taking proposals into a Map, and dismissing them."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable, Sequence

from django.db import transaction
from django.db.models import F, QuerySet

from apps.audit.actions import record_event
from apps.audit.actor import Actor
from apps.gateways.models import Agent
from apps.maps.actions import apply_documents
from apps.maps.documents.reading import SourceFile
from apps.maps.importing.names import Names
from apps.maps.models import Component, Map
from apps.proposals.actions.comparing import compare_dependencies, mark
from apps.proposals.drafting.acceptance import Accepted, NoDocumentError, with_accepted
from apps.proposals.drafting.documents import in_order
from apps.proposals.enums import ProposalKind, ProposalStatus
from apps.proposals.exceptions import NoSuchProposalError, NotAcceptableError
from apps.proposals.models import Look, Proposal

MAX_AT_ONCE = 1_000
_NAMED = 50


@transaction.atomic
def accept_proposals(*, organization_id: uuid.UUID, ids: Collection[uuid.UUID], map: Map, actor: Actor) -> list[str]:
    """Take components, newer versions and dependencies into a Map's documents, all or nothing.

    A dependency needs both its ends on this Map, or among what is accepted with it. Returns the names of the components
    that the Map has now for it, in the order of the documents.

    Raises:
        NoSuchProposalError: one of them is not of this organization.
        NotAcceptableError: one of them cannot become part of this Map.
        DocumentsError: the Map would not be valid with them, for instance because of a cycle.
    """
    proposals = _locked(organization_id, ids)
    # Read under its lock: what somebody changes meanwhile would be lost otherwise.
    locked = Map.objects.select_for_update(no_key=True).get(pk=map.pk, organization_id=organization_id)
    names = _Naming(locked)
    accepted = Accepted()
    for proposal in proposals:
        if proposal.kind == ProposalKind.COMPONENT:
            _add_component(accepted, proposal, locked, names)
    for proposal in proposals:
        if proposal.kind == ProposalKind.DEPENDENCY:
            _add_dependency(accepted, proposal, names)
    sources = [SourceFile(item["path"], item["content"]) for item in locked.documents]
    try:
        documents = with_accepted(sources, accepted)
    except NoDocumentError as error:
        raise NotAcceptableError(str(error)) from None
    apply_documents(map=locked, sources=documents, actor=actor)
    _mark(proposals, locked, names)
    _record("proposals.accepted", proposals, actor, {"type": "map", "mapId": str(locked.pk)})
    return list(dict.fromkeys([*accepted.components, *accepted.versions, *accepted.needs]))


class _Naming:
    """What components are called on a Map: those that are there, and those that come."""

    def __init__(self, map: Map) -> None:
        self.map = map
        self._known = dict(Component.objects.filter(map=map).values_list("pk", "name"))
        self._new = Names()
        for pk, name in self._known.items():
            # Taken, so that no other gets it.
            self._new.name_for(str(pk), name)
        self.given: dict[uuid.UUID, str] = {}
        """By proposal."""

    def give(self, proposal: Proposal) -> str:
        self.given[proposal.pk] = self._new.name_for(f"new {proposal.pk}", proposal.name)
        return self.given[proposal.pk]

    def of(self, proposal: Proposal) -> str | None:
        """None if it is not on this Map."""
        if proposal.pk in self.given:
            return self.given[proposal.pk]
        return self._known.get(proposal.component_id) if proposal.component_id else None


def _add_component(accepted: Accepted, proposal: Proposal, map: Map, names: _Naming) -> None:
    if proposal.status == ProposalStatus.NEW:
        accepted.components[names.give(proposal)] = in_order(proposal.spec)
        return
    if proposal.status == ProposalStatus.MISSING:
        host = proposal.agent.agent_id
        raise NotAcceptableError(
            f"{proposal.name} is missing on {host}: take it out of the Map's documents, or dismiss it."
        )
    name = names.of(proposal)
    if name is None:
        raise NotAcceptableError(f"{proposal.name} is on another Map already.")
    if proposal.status == ProposalStatus.CHANGED:
        accepted.versions[name] = (proposal.technology, proposal.version)


def _add_dependency(accepted: Accepted, proposal: Proposal, names: _Naming) -> None:
    assert proposal.client is not None
    assert proposal.server is not None
    client, server = names.of(proposal.client), names.of(proposal.server)
    for end, name in ((proposal.client, client), (proposal.server, server)):
        if name is None:
            raise NotAcceptableError(f"{end.name} is not on {names.map.name}: accept it first, or together with this.")
    assert client is not None
    assert server is not None
    accepted.needs.setdefault(client, {})[server] = proposal.is_strong


def _mark(proposals: Sequence[Proposal], map: Map, names: _Naming) -> None:
    """Nothing of it is proposed any more. The rest is compared anew after the Map's change, by the worker."""
    by_name = {component.name: component for component in Component.objects.filter(map=map).defer("spec")}
    components = [proposal for proposal in proposals if proposal.kind == ProposalKind.COMPONENT]
    mark(components, {proposal.pk: by_name[names.of(proposal) or ""] for proposal in components})
    for agent in _agents_of(proposals):
        compare_dependencies(agent)


@transaction.atomic
def dismiss_proposals(*, organization_id: uuid.UUID, ids: Collection[uuid.UUID], actor: Actor) -> int:
    """Not asked about again until they change. Returns how many were not dismissed before.

    Raises:
        NoSuchProposalError: one of them is not of this organization; nothing is written.
    """
    proposals = [each for each in _locked(organization_id, ids) if not each.is_dismissed]
    Proposal.objects.filter(pk__in=[proposal.pk for proposal in proposals]).update(
        is_dismissed=True, dismissed_as=F("digest")
    )
    if proposals:
        _record("proposals.dismissed", proposals, actor, {"type": "organization", "id": str(organization_id)})
    return len(proposals)


def _locked(organization_id: uuid.UUID, ids: Collection[uuid.UUID]) -> list[Proposal]:
    """The proposals, which nobody changes until the transaction ends: whoever does holds the looks at their hosts."""
    wanted = _with_ends(Proposal.objects.filter(organization_id=organization_id, pk__in=ids))
    agents = {agent.pk for agent in _agents_of(wanted)}
    list(Look.objects.filter(agent__in=agents).select_for_update().order_by("pk"))
    # Read again, now that they stay as they are.
    proposals = list(_with_ends(Proposal.objects.filter(organization_id=organization_id, pk__in=ids)).order_by("pk"))
    if missing := set(ids) - {proposal.pk for proposal in proposals}:
        raise NoSuchProposalError(f"There is no proposal {min(missing)}, or no more: the host may have changed.")
    return proposals


def _with_ends(proposals: QuerySet[Proposal]) -> QuerySet[Proposal]:
    return proposals.select_related("agent", "client__agent", "server__agent")


def _agents_of(proposals: Iterable[Proposal]) -> list[Agent]:
    """The hosts of the proposals and of their ends, each once."""
    agents = {}
    for proposal in proposals:
        for each in (proposal, proposal.client, proposal.server):
            if each is not None:
                agents[each.agent_id] = each.agent
    return [agents[pk] for pk in sorted(agents)]


def _record(action: str, proposals: Sequence[Proposal], actor: Actor, target: dict[str, str]) -> None:
    record_event(
        action,
        actor=actor,
        organization_id=proposals[0].organization_id,
        target=target,
        details={"proposals": len(proposals), "names": [proposal.name for proposal in proposals[:_NAMED]]},
    )
