"""From findings to components: what is one, what controls it, what asks it, and nothing from hostile words."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.maps.documents.loading import load_map
from apps.maps.documents.writing import component_files
from apps.proposals.drafting.documents import spec_of
from apps.proposals.drafting.host import DraftHost, draft_host
from apps.proposals.tests.factories import NGINX, POSTGRES, as_stored, call, container, listens, service

_SERVICE = {"service": {"name": "postgresql@17-main.service"}}
CONTROL = {"start": _SERVICE, "stop": _SERVICE, "restart": _SERVICE, "status": _SERVICE}


def drafted(**findings: list[dict[str, Any]]) -> DraftHost:
    return draft_host(as_stored(**findings), host="srv-1.acme.example")


def specs(**findings: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {draft.name: spec_of(draft, host="srv-1.acme.example") for draft in drafted(**findings).components}


def test_a_known_technology_in_a_unit() -> None:
    found = specs(technologies=[POSTGRES], services=[service("postgresql@17-main.service", 5432)])
    assert found == {
        "postgresql-srv-1": {
            "type": "database",
            "host": "srv-1.acme.example",
            "group": "databases",
            "technology": {"name": "postgresql", "version": "17.2"},
            "commands": CONTROL,
            "healthcheck": {"type": "tcp", "port": 5432},
        }
    }


def test_one_that_says_by_http_how_it_is() -> None:
    prometheus = {"key": "prometheus:9090", "name": "prometheus", "component": "service", "ports": [9090]}
    assert specs(technologies=[prometheus])["prometheus-srv-1"] == {
        "type": "service",
        "host": "srv-1.acme.example",
        "group": "services",
        "technology": {"name": "prometheus"},
        "healthcheck": {"type": "http", "url": "http://localhost:9090/-/healthy", "expected_status": 200},
    }


def test_a_process_that_nobody_controls_is_watched_only() -> None:
    bare = {key: value for key, value in POSTGRES.items() if key not in {"service", "ports"}} | {"file": "/opt/pg"}
    assert specs(technologies=[bare])["postgresql-srv-1"] == {
        "type": "database",
        "host": "srv-1.acme.example",
        "group": "databases",
        "technology": {"name": "postgresql", "version": "17.2"},
        "healthcheck": {"type": "process", "process_name": "postgres"},
    }


def test_a_unit_is_one_component_however_many_technologies_are_in_it() -> None:
    tomcat = {"key": "tomcat:8080", "name": "tomcat", "component": "web", "ports": [8080], "service": "shop.service"}
    other = {"key": "jetty:x", "name": "jetty", "component": "web", "file": "/x", "service": "shop.service"}
    [draft] = drafted(technologies=[other, tomcat], services=[service("shop.service", 8080)]).components
    assert (draft.key, draft.name, draft.technology, draft.ports) == (
        *("service:shop.service", "tomcat-srv-1"),
        *("tomcat", (8080,)),
    )


def test_a_unit_of_which_nothing_is_known_counts_if_it_listens() -> None:
    found = specs(services=[service("shop.service", 8080), service("quiet.service"), service("ssh.service", 22)])
    assert list(found) == ["shop-srv-1"]
    assert found["shop-srv-1"]["healthcheck"] == {"type": "tcp", "port": 8080}


def test_what_belongs_to_the_system_and_what_only_runs_others_is_no_component() -> None:
    technologies = [
        {"key": f"{name}:{port}", "name": name, "component": "service", "ports": [port], "file": "/x"}
        for port, name in enumerate(("openssh", "docker", "chrony", "java", "python", "node_exporter"), start=1)
    ]
    assert specs(technologies=technologies) == {}


def test_containers_are_controlled_by_their_engine() -> None:
    redis = {"key": "redis:6379:x", "name": "redis", "component": "cache", "version": "7.2", "ports": [6379]}
    redis |= {"container_id": "0123456789abcdef", "process_name": "redis-server"}
    cache = container("shop-cache-1", "redis:7", 6379, compose_service="cache")
    web = container("shop-web-1", "ghcr.io/acme/shop:1.2", 8080, id="ffff456789ab")
    pod = container("k8s_x", "nginx", 80, id="eeee456789ab", pod="x")
    found = specs(technologies=[redis], containers=[cache, web, pod])
    assert set(found) == {"cache-srv-1", "shop-web-1-srv-1"}
    assert found["cache-srv-1"]["technology"] == {"name": "redis", "version": "7.2"}
    assert found["cache-srv-1"]["commands"]["stop"] == {"command": "docker stop shop-cache-1"}
    assert found["shop-web-1-srv-1"]["healthcheck"] == {"type": "tcp", "port": 8080}


def test_the_name_of_a_container_says_its_technology_if_nothing_else_does() -> None:
    [draft] = drafted(containers=[container("db", "postgres:17-alpine")]).components
    assert (draft.type, draft.technology, draft.version, draft.ports) == ("database", "postgresql", "17", ())


def test_names_are_each_their_own_and_the_same_each_time() -> None:
    second = POSTGRES | {"key": "postgresql:5433", "ports": [5433], "service": "postgresql@16-old.service"}
    found = specs(technologies=[second, POSTGRES])
    assert found == specs(technologies=[POSTGRES, second])
    assert set(found) == {"postgresql-srv-1", "postgresql-srv-1-2"}


def test_ports_that_only_talk_udp_are_not_asked() -> None:
    consul = {"key": "consul:8600", "name": "consul", "component": "service", "ports": [8600], "service": "c.service"}
    udp = listens(8600) | {"key": "udp:8600", "protocol": "udp"}
    [draft] = drafted(technologies=[consul], ports=[udp, listens(22)]).components
    assert draft.ports == ()
    assert spec_of(draft, host="x")["healthcheck"] == {"type": "service", "service_name": "c.service"}


def test_who_talks_to_whom() -> None:
    connections = [
        call("10.0.0.9", 5432, unit="nginx.service", own="10.0.0.1"),
        call("127.0.0.1", 5432, process="nginx"),
        call("10.0.0.9", 6379, process="stranger"),
        {"key": "in:80:10.0.0.7", "direction": "in", "port": 80, "remote_address": "10.0.0.7"},
    ]
    found = drafted(technologies=[NGINX], connections=connections, ports=[listens(80), listens(81, "192.168.0.1")])
    assert [(each.client_key, each.address, each.port) for each in found.calls] == [
        ("service:nginx.service", "", 5432),
        ("service:nginx.service", "10.0.0.9", 5432),
    ]
    assert found.addresses == {"10.0.0.1", "192.168.0.1"}


WORDS = st.one_of(
    st.text(max_size=30),
    st.sampled_from(["postgresql", "nginx", "docker", "a b.service", "x.service", "; rm -rf /", "../../etc", "-", ""]),
)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-5, 70_000), st.floats(allow_nan=False), WORDS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(WORDS, inner, max_size=3)),
    max_leaves=4,
)
NAMES = ["name", "component", "version", "ports", "process_name", "service", "container_id", "engine", "id", "image"]
FINDING = st.dictionaries(
    st.sampled_from([*NAMES, "direction", "remote_address", "remote_port", "file", "is_enabled", "protocol"]), VALUES
)
KINDS = ["technologies", "services", "containers", "connections", "ports"]


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from(KINDS), st.dictionaries(WORDS, st.one_of(FINDING, VALUES), max_size=4)))
def test_whatever_a_host_says_becomes_valid_documents_or_nothing(findings: Any) -> None:
    found = draft_host(findings, host="srv-1")
    specs = [(draft.name, {}, spec_of(draft, host="srv-1")) for draft in found.components]
    parsed, faults = load_map(component_files(specs), default_name="Map")
    if specs:
        assert faults == []
        assert parsed is not None
        assert len(parsed.components) == len(specs)
    assert {draft.key for draft in found.components if draft.container or draft.is_lasting} <= found.told
    json.dumps([spec for _, _, spec in specs]).encode()


@pytest.mark.parametrize("unit", ["x.service; reboot", "$(id).service", "a\nb.service", "--help", "x.service\n"])
def test_a_unit_that_is_no_name_controls_nothing(unit: str) -> None:
    [draft] = drafted(technologies=[POSTGRES | {"service": unit}]).components
    assert (draft.unit, draft.key) == ("", "technology:postgresql:5432")
    assert "commands" not in spec_of(draft, host="srv-1")
