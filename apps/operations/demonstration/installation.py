"""Writes a made-up installation: organizations, Maps, components, dependencies, agents, and what happened lately.

Nothing here goes through the actions that people's changes take, one row at a time: 50,000 components would take
minutes. What it writes is what they would have written; the tests compare it.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

from django.db import connection, transaction
from django.utils import timezone

from apps.audit.actions import record_event
from apps.audit.actor import Actor
from apps.gateways.models import Agent, Gateway
from apps.maps.documents.writing import component_files, map_file
from apps.maps.enums import ComponentState, DependencyKind, DesiredState
from apps.maps.models import Component, ComponentGroup, Dependency, Map
from apps.maps.planning.graph import Edge, Graph
from apps.operations.demonstration.history import write_history
from apps.operations.demonstration.landscape import TIERS, Landscape, draw_landscape, hosts_of
from apps.operations.state_machine import derive_state
from apps.orgs.actions import create_organization, create_workspace
from apps.orgs.models import Organization, User, Workspace

BATCH = 2_000
AGENTS_PER_GATEWAY = 250
COMPANIES = ("Northwind", "Contoso", "Initech", "Hooli", "Globex", "Umbra", "Vandelay", "Stark", "Wayne", "Tyrell")
_FAILED_SHARE = 0.002
_STOPPED_SHARE = 0.01
_MAINTENANCE_SHARE = 0.002
_STATES_OF_AFFECTED = (ComponentState.DEGRADED, ComponentState.DEGRADED, ComponentState.RUNNING)


@dataclass(frozen=True, slots=True)
class Size:
    """`maps` in each organization, everything else in each Map. `runs` are operations that have ended.

    Without documents a Map cannot be edited or exported; they take as long to write as all the rest.
    """

    organizations: int = 1
    maps: int = 1
    components: int = 500
    dependencies: int = 1_500
    runs: int = 12
    has_documents: bool = True
    has_agents_connected: bool = False
    """Shown as connected although nobody is: for pages, never where a link server runs."""


@transaction.atomic
def generate_installation(*, size: Size, seed: int, owner: User, actor: Actor, at: datetime | None = None) -> list[Map]:
    """The Maps of new organizations that belong to `owner`. The same seed gives the same, but for ids.

    Raises:
        django.db.IntegrityError: this seed's organizations are there already.
    """
    draw = random.Random(seed)  # noqa: S311 - nothing secret
    now = at or timezone.now()
    maps = []
    for number in range(size.organizations):
        name = COMPANIES[number % len(COMPANIES)] + (f" {number + 1}" if number >= len(COMPANIES) else "")
        organization = create_organization(name=name, slug=slug_of(seed, number), owner=owner, actor=actor)
        workspace = create_workspace(organization=organization, name="Production", slug="production", actor=actor)
        for place in range(size.maps):
            maps.append(_generate_map(draw, workspace, owner, size, place, now))
        record_event(
            "installation.generated",
            actor=actor,
            organization_id=organization.pk,
            target={"type": "organization", "organizationId": str(organization.pk)},
            details={"seed": seed, "maps": size.maps, "components": size.maps * size.components},
        )
    return maps


def slug_of(seed: int, organization: int = 0) -> str:
    """The slug of the organization of this number."""
    return f"generated-{seed}-{organization + 1}"


def _generate_map(draw: random.Random, workspace: Workspace, owner: User, size: Size, place: int, now: datetime) -> Map:
    landscape = draw_landscape(draw, size.components, size.dependencies, host_prefix=f"m{place + 1}")
    specs = landscape.specs()
    name = f"Landscape {place + 1}"
    map = Map.objects.create(
        organization_id=workspace.organization_id,
        workspace=workspace,
        name=name,
        slug=f"landscape-{place + 1}",
        description=f"{size.components} made-up components.",
        owner=owner,
        documents=_documents(name, landscape, specs) if size.has_documents else [],
    )
    components = _write_components(draw, map, landscape, specs, now)
    _write_dependencies(map, landscape, components)
    _write_agents(draw, workspace.organization, place, hosts_of(landscape), now, is_connected=size.has_agents_connected)
    write_history(draw, map, owner, landscape, components, runs=size.runs, now=now)
    map.state = derive_state(ComponentState(component.state) for component in components)
    map.save(update_fields=["state"])
    return map


def _documents(name: str, landscape: Landscape, specs: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    groups = [{"name": tier.group, "title": tier.title} for tier in TIERS]
    described = [
        (component.name, component.labels, spec) for component, spec in zip(landscape.components, specs, strict=True)
    ]
    files = [
        map_file(name, description=f"{len(specs)} made-up components.", groups=groups),
        *component_files(described),
    ]
    return [{"path": file.path, "content": file.content} for file in files]


def _write_components(
    draw: random.Random, map: Map, landscape: Landscape, specs: Sequence[dict[str, Any]], now: datetime
) -> list[Component]:
    groups = ComponentGroup.objects.bulk_create(
        ComponentGroup(map=map, name=tier.group, title=tier.title, position=position)
        for position, tier in enumerate(TIERS)
    )
    states = _draw_states(draw, landscape)
    components = [
        Component(
            organization_id=map.organization_id,
            map_id=map.pk,
            group_id=groups[draft.tier].pk,
            name=draft.name,
            type=draft.kind.type,
            host=draft.host,
            labels=draft.labels,
            technology=spec["technology"],
            spec=spec,
            state=state,
            state_since=now - timedelta(seconds=draw.randrange(60, 30 * 86_400)),
            state_reason=_REASONS.get(state, ""),
            desired=DesiredState.DOWN if state == ComponentState.STOPPED else DesiredState.UP,
        )
        for draft, spec, state in zip(landscape.components, specs, states, strict=True)
    ]
    return Component.objects.bulk_create(components, batch_size=BATCH)


def _write_dependencies(map: Map, landscape: Landscape, components: Sequence[Component]) -> None:
    """By COPY, ten times as fast as through the ORM: of nothing else are there as many."""
    columns = "map_id, component_id, needs_id, kind"
    with (
        connection.cursor() as cursor,
        cursor.copy(f"COPY {Dependency._meta.db_table} ({columns}) FROM STDIN") as rows,
    ):
        for source, target, is_strong in landscape.dependencies:
            kind = DependencyKind.STRONG if is_strong else DependencyKind.WEAK
            rows.write_row((map.pk, components[source].pk, components[target].pk, kind.value))


_REASONS = {
    ComponentState.FAILED: "The port does not answer: connection refused.",
    ComponentState.DEGRADED: "It answers, but says that something it needs does not.",
}


def _draw_states(draw: random.Random, landscape: Landscape) -> list[ComponentState]:
    """Most run; a few have failed, and of what needs those directly most is degraded."""
    places = range(len(landscape.components))
    graph = Graph(places, (Edge(*link) for link in landscape.dependencies))
    states = [
        draw.choices(
            (ComponentState.STOPPED, ComponentState.MAINTENANCE, ComponentState.RUNNING),
            (_STOPPED_SHARE, _MAINTENANCE_SHARE, 1 - _STOPPED_SHARE - _MAINTENANCE_SHARE),
        )[0]
        for _ in places
    ]
    failed = draw.sample(places, round(len(places) * _FAILED_SHARE))
    for place in failed:
        for above, is_strong in graph.needed_by_of(place):
            if is_strong and states[above] == ComponentState.RUNNING:
                states[above] = draw.choice(_STATES_OF_AFFECTED)
    for place in failed:
        states[place] = ComponentState.FAILED
    return states


def _write_agents(
    draw: random.Random, organization: Organization, place: int, hosts: list[str], now: datetime, *, is_connected: bool
) -> None:
    """One agent for each host, and a gateway for each few hundred of them."""
    rest = iter(hosts)
    for number in range(1, len(hosts) // AGENTS_PER_GATEWAY + 2):
        zone = f"zone-{place + 1}-{number}"
        gateway = Gateway.objects.create(
            organization=organization,
            gateway_id=f"gateway-{place + 1}-{number}",
            certificate_sha256=(uuid.uuid4().hex * 2),
            zone=zone,
            version="0.1.0",
            session_id=uuid.uuid4() if is_connected else None,
            last_seen_at=now,
        )
        Agent.objects.bulk_create(
            [
                Agent(
                    organization=organization,
                    gateway=gateway,
                    agent_id=host,
                    hostname=host,
                    os={"system": "linux", "distribution": draw.choice(("Debian 12", "Debian 13", "Ubuntu 24.04"))},
                    labels={"zone": zone},
                    version="0.1.0",
                    session_id=uuid.uuid4().hex if is_connected else None,
                    last_seen_at=now,
                )
                for host in islice(rest, AGENTS_PER_GATEWAY)
            ],
            batch_size=BATCH,
        )
