"""Who runs what, found for a few components or agents without reading the whole fleet."""

from __future__ import annotations

import random

from django.db import connection
from django.test.utils import CaptureQueriesContext

from apps.gateways.models import Agent, Gateway
from apps.gateways.selectors import get_agents_by_host
from apps.gateways.tests.factories import make_gateway
from apps.maps.models import Component
from apps.operations.actions.health import assign_health_checks, mark_agents_back, mark_agents_lost
from apps.operations.selectors import agent_of, agents_for
from apps.operations.tests.factories import document, make_map
from conftest import Cast


def fleet(gateway: Gateway, count: int, seed: int = 1) -> list[Agent]:
    """Agents some of which have another one's name as a hostname, and half of which are away."""
    chance = random.Random(seed)  # noqa: S311 - not a secret
    return Agent.objects.bulk_create(
        Agent(
            organization_id=gateway.organization_id,
            gateway=gateway,
            agent_id=f"{chance.choice(['srv', 'Srv', 'sRv'])}-{number}",
            hostname=f"srv-{chance.randrange(count)}",
            labels={"tier": chance.choice(["db", "web"]), "site": chance.choice(["a", "b"])},
            session_id=chance.choice([None, "session"]),
        )
        for number in range(count)
    )


def hosted(count: int, hosts: int) -> list[dict[str, object]]:
    named = [document(f"named-{number}", host=f"srv-{number % hosts}") for number in range(count)]
    selectors = [{"tier": "db"}, {"tier": "web", "site": "b"}, {"tier": "mail"}]
    selected = [
        document(f"selected-{number}", host=None, hostSelector={"labels": labels})
        for number, labels in enumerate(selectors)
    ]
    return named + selected


def test_a_part_of_the_fleet_gives_the_same_answers_as_all_of_it(cast: Cast) -> None:
    make_map(cast.production, cast.owner, hosted(30, 40))
    fleet(make_gateway(cast.acme), 30)
    by_host = get_agents_by_host(cast.acme.pk)
    components = list(Component.objects.all())
    whole = {component.name: agent_of(component, by_host) for component in components}
    assert {agent is None for agent in whole.values()} == {True, False}
    together = agents_for(cast.acme.pk, components)
    for component in components:
        assert agent_of(component, together) == whole[component.name]
        assert agent_of(component, agents_for(cast.acme.pk, [component])) == whole[component.name]


def test_checks_given_to_a_few_are_those_that_all_would_get(cast: Cast) -> None:
    make_map(cast.production, cast.owner, hosted(30, 40))
    agents = fleet(make_gateway(cast.acme), 30)
    assign_health_checks(organization_id=cast.acme.pk)
    all_at_once = dict(Agent.objects.values_list("pk", "health_checks"))
    assert sum(map(bool, all_at_once.values())) > 5
    Agent.objects.update(health_checks=[], health_checks_revision="")
    for agent in agents:
        assign_health_checks(organization_id=cast.acme.pk, only=[agent.pk])
    assert dict(Agent.objects.values_list("pk", "health_checks")) == all_at_once


def test_a_return_and_a_loss_cost_what_their_agents_do(cast: Cast) -> None:
    """As many statements for many agents as for few, and none that reads the others."""
    make_map(cast.production, cast.owner, [document(f"c-{number}", host=f"srv-{number}") for number in range(12)])
    gateway = make_gateway(cast.acme)
    agents = Agent.objects.bulk_create(
        Agent(organization=cast.acme, gateway=gateway, agent_id=f"srv-{number}", hostname=f"h-{number}")
        for number in range(12)
    )
    counts = []
    for some in (agents[:1], agents):
        Agent.objects.update(health_checks=[], health_checks_revision="")
        with CaptureQueriesContext(connection) as queries:
            mark_agents_back(agents=some)
            mark_agents_lost(agents=some, reason="gone")
        counts.append(len(queries))
    assert counts[0] == counts[1]
