"""The inbox follows hosts and Maps: new, changed, missing, known; and what was dismissed stays so until it changes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.utils import timezone

from apps.audit.actor import Actor
from apps.gateways.models import Agent, AgentDiscovery, Gateway
from apps.gateways.tests.factories import make_gateway
from apps.gateways.tests.fleets import make_fleet
from apps.maps.actions import apply_documents, delete_map
from apps.maps.models import Component, Map
from apps.maps.tests.factories import component, make_map
from apps.proposals.actions.answers import dismiss_proposals
from apps.proposals.actions.looking import follow_changed_maps, list_due, take_discovery
from apps.proposals.models import Call, Look, Proposal
from apps.proposals.tasks import sweep_discoveries
from apps.proposals.tests.factories import NGINX, POSTGRES, call, keep, listens, make_host, proposed, service, tell
from conftest import Cast

SYSTEM = Actor.system("test")
DATABASE = {
    "technologies": [POSTGRES],
    "services": [service("postgresql@17-main.service", 5432)],
    "ports": [listens(5432, "10.0.0.9")],
}
WEB = {
    "technologies": [NGINX],
    "services": [service("nginx.service", 80, 443)],
    "ports": [listens(80), listens(443)],
    "connections": [call("10.0.0.9", 5432, unit="nginx.service", own="10.0.0.1")],
}


@pytest.fixture
def gateway(cast: Cast) -> Gateway:
    return make_gateway(cast.acme)


def on_map(cast: Cast, *sources: Any) -> Map:
    return make_map(cast.production, cast.owner, sources)


def dismiss(*proposals: Proposal) -> int:
    organization_id = proposals[0].organization_id
    return dismiss_proposals(organization_id=organization_id, ids={each.pk for each in proposals}, actor=SYSTEM)


def test_what_no_map_has_is_new(gateway: Gateway) -> None:
    make_host(gateway, **DATABASE)
    proposal = Proposal.objects.get()
    assert proposed() == {"postgresql-srv-1": "new"}
    assert (proposal.technology, proposal.version, proposal.ports) == ("postgresql", "17.2", [5432])


@pytest.mark.parametrize(
    "spec",
    [
        {"commands": {"start": {"service": {"name": "postgresql@17-main"}}}},
        {"commands": {"stop": {"command": "systemctl stop postgresql@17-main.service"}}},
        {"technology": {"name": "postgresql"}, "healthcheck": {"type": "tcp", "port": 5432}},
        {"technology": {"name": "postgresql", "version": "17"}},
    ],
)
@pytest.mark.parametrize("host", ["srv-1", "srv-1.example"])
def test_what_a_person_wrote_already_is_known(cast: Cast, gateway: Gateway, spec: dict[str, Any], host: str) -> None:
    map = on_map(cast, component("orders-db", host=host, **spec), component("db", host="srv-2", **spec))
    make_host(gateway, **DATABASE)
    assert proposed() == {"postgresql-srv-1": "known"}
    assert Proposal.objects.get().component == Component.objects.get(map=map, name="orders-db")


def test_another_version_than_the_map_s_is_a_change(cast: Cast, gateway: Gateway) -> None:
    on_map(cast, component("db", host="srv-1", technology={"name": "postgresql", "version": "16"}))
    make_host(gateway, **DATABASE)
    proposal = Proposal.objects.get()
    assert (proposal.status, proposal.mapped_version, proposal.version) == ("changed", "16", "17.2")


def test_what_a_host_does_not_have_any_more_is_gone_or_missing(cast: Cast, gateway: Gateway) -> None:
    map = on_map(cast, component("db", host="srv-1", technology={"name": "postgresql"}))
    agent = make_host(
        gateway, **{kind: [*DATABASE[kind], *WEB[kind]] for kind in ("technologies", "services", "ports")}
    )
    assert proposed() == {"postgresql-srv-1": "known", "nginx-srv-1": "new"}
    # It is enabled: systemd tells of it also while it does not run.
    for services in ([service("postgresql@17-main.service")], DATABASE["services"]):
        tell(agent, services=services)
        assert proposed() == {"postgresql-srv-1": "known"}, "what no Map has is forgotten"
        assert Proposal.objects.get().version == "17.2", "what was known of it counts while it does not run"
    keep(agent)
    AgentDiscovery.objects.update(faults={"services": "systemd does not answer"})
    take_discovery(agent.pk)
    assert proposed() == {"postgresql-srv-1": "known"}, "what cannot be looked at is not gone"
    tell(agent, services=[])
    assert proposed() == {"postgresql-srv-1": "missing"}
    tell(agent, **DATABASE)
    assert proposed() == {"postgresql-srv-1": "known"}
    tell(agent, services=[])
    apply_documents(map=map, sources=[component("other")], actor=SYSTEM)
    sweep_discoveries()
    assert proposed() == {}


@pytest.mark.parametrize(("state", "status"), [("running", "missing"), ("stopped", "known"), ("maintenance", "known")])
def test_a_process_that_should_not_run_is_not_missing(cast: Cast, gateway: Gateway, state: str, status: str) -> None:
    on_map(cast, component("db", host="srv-1", technology={"name": "postgresql"}))
    agent = make_host(gateway, technologies=[POSTGRES | {"service": ""}])
    Component.objects.update(state=state)
    tell(agent, technologies=[])
    assert proposed() == {"postgresql-srv-1": status}


def test_what_is_dismissed_stays_so_until_it_changes(gateway: Gateway) -> None:
    agent = make_host(gateway, **DATABASE)
    assert dismiss(Proposal.objects.get()) == 1
    assert dismiss(Proposal.objects.get()) == 0
    tell(agent, **DATABASE)
    assert proposed() == {"postgresql-srv-1": "new (dismissed)"}
    tell(agent, **DATABASE | {"technologies": [POSTGRES | {"version": "17.3"}]})
    assert proposed() == {"postgresql-srv-1": "new"}
    tell(agent, **DATABASE)
    assert proposed() == {"postgresql-srv-1": "new (dismissed)"}, "as it was when it was dismissed"


def test_the_same_discovery_is_taken_once_and_what_is_the_same_is_not_touched(
    gateway: Gateway, django_assert_max_num_queries: Any
) -> None:
    agent = make_host(gateway, **DATABASE)
    before = Proposal.objects.values().get()
    with django_assert_max_num_queries(8):
        take_discovery(agent.pk)
    tell(agent, **DATABASE)
    assert Proposal.objects.values().get() == before


@pytest.mark.parametrize("order", ["client first", "server first"])
def test_a_connection_between_two_hosts_is_a_dependency(gateway: Gateway, order: str) -> None:
    web, database = make_fleet(gateway, "srv-1", "srv-9")
    hosts = [(web, WEB), (database, DATABASE)]
    for agent, findings in hosts if order == "client first" else hosts[::-1]:
        tell(agent, **findings)
    dependency = Proposal.objects.get(kind="dependency")
    assert (dependency.name, dependency.is_strong) == ("nginx-srv-1 → postgresql-srv-9", True)
    assert dependency.agent == web
    tell(web, **WEB | {"connections": []})
    assert Proposal.objects.filter(kind="dependency").exists(), "an idle connection is no end of a dependency"
    tell(database, services=[])
    assert not Proposal.objects.filter(kind="dependency").exists(), "nor is one to what is not there"
    assert Call.objects.exists()


def test_an_address_that_several_have_is_nobody_s(cast: Cast, gateway: Gateway) -> None:
    make_host(gateway, "srv-8", **DATABASE)
    make_host(gateway, "srv-9", **DATABASE)
    make_host(gateway, **WEB)
    assert not Proposal.objects.filter(kind="dependency").exists()


def test_hosts_of_others_are_nobody_s_neighbours(cast: Cast, gateway: Gateway) -> None:
    make_host(make_gateway(cast.umbrella), "srv-9", **DATABASE)
    on_map(cast, component("db", host="srv-9", technology={"name": "postgresql"}))
    make_host(gateway, **WEB)
    assert not Proposal.objects.filter(kind="dependency").exists()
    assert proposed() == {"postgresql-srv-9": "new", "nginx-srv-1": "new"}


def test_a_dependency_that_a_map_has_is_known(cast: Cast, gateway: Gateway) -> None:
    web = component("web", "db", host="srv-1", technology={"name": "nginx"})
    on_map(cast, web, component("db", host="srv-9", technology={"name": "postgresql"}))
    make_host(gateway, "srv-9", **DATABASE)
    make_host(gateway, **WEB)
    assert proposed()["nginx-srv-1 → postgresql-srv-9"] == "known"


def test_a_map_that_changes_is_compared_anew(cast: Cast, gateway: Gateway) -> None:
    make_host(gateway, **DATABASE)
    map = on_map(cast, component("db", host="srv-1", technology={"name": "postgresql"}))
    follow_changed_maps()
    assert len(list_due(10)) == 1
    sweep_discoveries()
    assert (proposed(), list_due(10)) == ({"postgresql-srv-1": "known"}, [])
    delete_map(map=map, actor=SYSTEM)
    sweep_discoveries()
    assert (proposed(), list_due(10)) == ({"postgresql-srv-1": "new"}, [])


def test_the_sweep_finds_what_was_missed(gateway: Gateway) -> None:
    agents = make_fleet(gateway, *[f"srv-{number}" for number in range(5)])
    for agent in agents:
        keep(agent, **DATABASE)
    sweep_discoveries()
    assert len(proposed()) == 5
    assert list_due(10) == []
    keep(agents[0], services=[])
    sweep_discoveries()
    assert len(proposed()) == 4


def test_a_host_that_is_removed_proposes_nothing(gateway: Gateway) -> None:
    agent = make_host(gateway, **DATABASE)
    Agent.objects.filter(pk=agent.pk).update(removed_at=timezone.now())
    Look.objects.update(is_due=True)
    sweep_discoveries()
    assert proposed() == {}


def test_a_crowded_host_costs_few_queries(gateway: Gateway, django_assert_max_num_queries: Any) -> None:
    agent = make_host(gateway, "srv-1")
    units = [service(f"app-{number:03}.service", 8000 + number) for number in range(600)]
    connections = [call("127.0.0.1", 8000 + number, unit=f"app-{number + 1:03}.service") for number in range(400)]
    keep(agent, services=units, connections=connections)
    with django_assert_max_num_queries(40):
        take_discovery(agent.pk)
    assert Proposal.objects.filter(kind="component").count() == 500, "no host fills the inbox"
    assert Proposal.objects.filter(kind="dependency").count() == 400
    assert json.dumps(Proposal.objects.filter(kind="component").values_list("spec", flat=True)[0])
