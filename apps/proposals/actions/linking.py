"""Who talks to whom: calls that were seen, and the dependencies that follow once both ends are known."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Collection, Iterable

from django.db import connection
from django.db.models import Q
from django.utils import timezone

from apps.gateways.models import Agent
from apps.proposals.drafting.catalogue import STRONG_TYPES
from apps.proposals.drafting.host import DraftHost
from apps.proposals.enums import ProposalKind
from apps.proposals.models import Call, HostAddress, Proposal

MAX_CALLS_AT_ONCE = 10_000


def write_calls(agent: Agent, drafted: DraftHost) -> None:
    """What the components of this host talk to. A call that is not seen at this moment is not forgotten: connections
    come and go, and who needed a database an hour ago needs it still.
    """
    keys = {call.client_key for call in drafted.calls}
    clients = dict(
        Proposal.objects.filter(agent=agent, kind=ProposalKind.COMPONENT, key__in=keys).values_list("key", "pk")
    )
    Call.objects.bulk_create(
        [
            Call(
                organization_id=agent.organization_id,
                agent=agent,
                client_id=clients[call.client_key],
                address=call.address,
                port=call.port,
            )
            for call in drafted.calls
            if call.client_key in clients
        ],
        ignore_conflicts=True,
        batch_size=1000,
    )


def link(agent: Agent) -> None:
    """Propose the dependencies that begin or end on this host, as far as both ends are known.

    Whichever of two hosts is looked at second finds the other. So they take turns: of two at the same moment neither
    would see what the other has not committed, and an idle host tells nothing more for a day.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"links {agent.organization_id}"])
    here = Call.objects.filter(organization_id=agent.organization_id)
    mine = HostAddress.objects.filter(agent=agent).values("address")
    calls = here.filter(Q(agent=agent) | Q(address__in=mine)).select_related("client").order_by("pk")
    concerned = list(calls[:MAX_CALLS_AT_ONCE])
    owners = _owners(agent.organization_id, {call.address for call in concerned if call.address})
    servers = _servers({*owners.values(), *(call.agent_id for call in concerned if not call.address)})
    found = {}
    for call in concerned:
        owner = owners.get(call.address) if call.address else call.agent_id
        server = servers.get((owner, call.port)) if owner else None
        if server is not None and server.pk != call.client_id:
            found[f"needs:{call.client_id}:{server.pk}"] = (call, server)
    _write(found)


def _owners(organization_id: uuid.UUID, addresses: Collection[str]) -> dict[str, uuid.UUID]:
    """The agent that each address belongs to. What several claim belongs to nobody."""
    rows = HostAddress.objects.filter(organization_id=organization_id, address__in=addresses)
    claims: dict[str, set[uuid.UUID]] = defaultdict(set)
    for address, agent_id in rows.values_list("address", "agent_id"):
        claims[address].add(agent_id)
    return {address: next(iter(agents)) for address, agents in claims.items() if len(agents) == 1}


def _servers(agents: Collection[uuid.UUID]) -> dict[tuple[uuid.UUID, int], Proposal]:
    """The component that listens at each port of these hosts; a port that two are said to have is nobody's."""
    found: dict[tuple[uuid.UUID, int], list[Proposal]] = defaultdict(list)
    components = Proposal.objects.filter(agent_id__in=agents, kind=ProposalKind.COMPONENT, is_gone=False)
    for proposal in components.only("pk", "agent_id", "name", "type", "ports"):
        for port in proposal.ports:
            found[proposal.agent_id, port].append(proposal)
    return {place: proposals[0] for place, proposals in found.items() if len(proposals) == 1}


def _write(found: dict[str, tuple[Call, Proposal]]) -> None:
    now = timezone.now()
    rows: Iterable[Proposal] = (
        Proposal(
            organization_id=call.organization_id,
            agent_id=call.agent_id,
            kind=ProposalKind.DEPENDENCY,
            key=key,
            name=f"{call.client.name} → {server.name}"[:250],
            ports=[call.port],
            is_strong=server.type in STRONG_TYPES,
            client_id=call.client_id,
            server=server,
            found_at=now,
        )
        # In one order, so that two hosts that are looked at together cannot wait for each other.
        for key, (call, server) in sorted(found.items())
    )
    Proposal.objects.bulk_create(rows, ignore_conflicts=True, batch_size=500)
