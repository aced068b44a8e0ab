"""Making proposals of what a host found out about itself. Idempotent, and never on the path of a link."""

from __future__ import annotations

import time
import uuid
from collections.abc import Collection

from django.db import transaction
from django.db.models import Exists, OuterRef, Q
from django.utils import timezone

from apps.gateways.models import Agent, AgentDiscovery
from apps.gateways.selectors import get_discovery
from apps.maps.models import Component
from apps.proposals.actions.comparing import compare
from apps.proposals.actions.linking import link, write_calls
from apps.proposals.drafting.documents import spec_of
from apps.proposals.drafting.host import DraftHost, draft_host
from apps.proposals.enums import ProposalKind, ProposalStatus
from apps.proposals.models import ChangedMap, HostAddress, Look, Proposal

_MAX_KEY = 300
_AT_ONCE = 100
_SOURCES = {"services": "service:", "containers": "container:", "technologies": "technology:"}
_WRITTEN = ("name", "type", "technology", "version", "ports", "spec", "is_lasting", "is_gone")


@transaction.atomic
def take_discovery(agent_id: uuid.UUID) -> bool:
    """Bring the proposals of an agent's host up to its last discovery and to the Maps.

    False if there was nothing to do, or somebody else is at it.
    """
    agent = Agent.objects.filter(pk=agent_id).defer("health_checks", "certificate").first()
    if agent is None:
        return False
    Look.objects.bulk_create([Look(agent=agent, organization_id=agent.organization_id)], ignore_conflicts=True)
    look = Look.objects.select_for_update(skip_locked=True).filter(agent=agent).first()
    discovery = get_discovery(agent)
    if look is None or discovery is None or (look.discovery_id == discovery.discovery_id and not look.is_due):
        return False
    if agent.removed_at is not None:
        Proposal.objects.filter(agent=agent).delete()
        HostAddress.objects.filter(agent=agent).delete()
    else:
        if look.discovery_id != discovery.discovery_id:
            _take(agent, discovery)
        compare(agent)
    Look.objects.filter(agent=agent).update(discovery_id=discovery.discovery_id, is_due=False)
    return True


def _take(agent: Agent, discovery: AgentDiscovery) -> None:
    drafted = draft_host(discovery.findings, host=agent.agent_id)
    _write_components(agent, drafted)
    _mark_gone(agent, drafted, _unseen(discovery))
    _write_addresses(agent, drafted)
    write_calls(agent, drafted)
    link(agent)


def _write_components(agent: Agent, drafted: DraftHost) -> None:
    known = dict(Proposal.objects.filter(agent=agent, kind=ProposalKind.COMPONENT).values_list("key", "version"))
    drafts = [draft for draft in drafted.components if len(draft.key) <= _MAX_KEY]
    # While it does not run, its unit's name says less of it than what was seen before.
    drafts = [draft for draft in drafts if draft.is_sure or not known.get(draft.key)]
    now = timezone.now()
    rows = [
        Proposal(
            organization_id=agent.organization_id,
            agent=agent,
            kind=ProposalKind.COMPONENT,
            key=draft.key,
            name=draft.name,
            type=draft.type,
            technology=draft.technology,
            version=draft.version,
            ports=list(draft.ports),
            spec=spec_of(draft, host=agent.agent_id),
            is_lasting=draft.is_lasting,
            found_at=now,
        )
        for draft in sorted(drafts, key=lambda draft: draft.key)
    ]
    Proposal.objects.bulk_create(
        rows,
        update_conflicts=True,
        unique_fields=["agent", "key"],
        update_fields=[*_WRITTEN],
        batch_size=500,
    )


def _unseen(discovery: AgentDiscovery) -> list[str]:
    """Prefixes of the keys of what could not be looked at this time: that it was not found says nothing."""
    return [
        prefix for kind, prefix in _SOURCES.items() if kind in discovery.faults and not discovery.findings.get(kind)
    ]


def _mark_gone(agent: Agent, drafted: DraftHost, unseen: Collection[str]) -> None:
    """What is not found any more. Comparing decides what becomes of it. A unit or container that only does not run is
    still there.
    """
    here = {draft.key for draft in drafted.components} | drafted.told
    mine = Proposal.objects.filter(agent=agent, kind=ProposalKind.COMPONENT)
    mine.filter(key__in=here, is_gone=True).update(is_gone=False)
    gone = mine.exclude(key__in=here)
    for prefix in unseen:
        gone = gone.exclude(key__startswith=prefix)
    gone.filter(is_gone=False).update(is_gone=True)


def _write_addresses(agent: Agent, drafted: DraftHost) -> None:
    HostAddress.objects.filter(agent=agent).exclude(address__in=drafted.addresses).delete()
    HostAddress.objects.bulk_create(
        [
            HostAddress(organization_id=agent.organization_id, agent=agent, address=address)
            for address in sorted(drafted.addresses)
        ],
        ignore_conflicts=True,
    )


def note_changed_map(map_id: uuid.UUID, organization_id: uuid.UUID) -> None:
    """A Map changes in this transaction. It is locked, and so are no looks: those who answer lock looks before Maps."""
    ChangedMap.objects.bulk_create([ChangedMap(map_id=map_id, organization_id=organization_id)], ignore_conflicts=True)


def follow_changed_maps() -> None:
    """The hosts that changed Maps have, or had, are compared anew when they are looked at next."""
    while True:
        with transaction.atomic():
            changed = ChangedMap.objects.select_for_update(skip_locked=True).order_by("pk").first()
            if changed is None:
                return
            _mark_due(changed.map_id, changed.organization_id)
            changed.delete()


def _mark_due(map_id: uuid.UUID, organization_id: uuid.UUID) -> None:
    hosts = Component.objects.filter(map_id=map_id).exclude(host="").values("host")
    here = Agent.objects.filter(organization_id=organization_id)
    concerned = here.filter(Q(agent_id__in=hosts) | Q(hostname__in=hosts)).values("pk")
    # A component that went left its proposals without one.
    orphaned = Proposal.objects.filter(
        organization_id=organization_id, kind=ProposalKind.COMPONENT, component=None
    ).exclude(status=ProposalStatus.NEW)
    looks = Look.objects.filter(Q(agent__in=concerned) | Q(agent__in=orphaned.values("agent_id")), is_due=False)
    # In one order, as those who answer take them.
    locked = list(looks.select_for_update(of=("self",)).order_by("pk").values_list("pk", flat=True))
    Look.objects.filter(pk__in=locked).update(is_due=True)


def look_at_due_hosts(*, max_seconds: float) -> None:
    """Take what hosts told and Maps became, until nothing is left that nobody else is at, or the time is over."""
    end = time.monotonic() + max_seconds
    is_moving = True
    while is_moving:
        is_moving = False
        for agent_id in list_due(_AT_ONCE):
            is_moving |= take_discovery(agent_id)
            if time.monotonic() > end:
                return


def list_due(limit: int) -> list[uuid.UUID]:
    """Agents whose proposals are behind: their discovery is another one, or a Map with their host has changed."""
    looked = Look.objects.filter(agent_id=OuterRef("agent_id"), discovery_id=OuterRef("discovery_id"), is_due=False)
    return list(AgentDiscovery.objects.filter(~Exists(looked)).values_list("agent_id", flat=True)[:limit])
