"""Units of a systemd host to a Map: the sub-graph that matters, with what each kind of link means."""

from __future__ import annotations

from typing import Any

import pytest

from apps.maps.documents.loading import ParsedMap, load_map
from apps.maps.importing.drafts import ImportResult
from apps.maps.importing.systemd import MAX_UNITS, SystemdOptions, import_systemd


def _unit(name: str, **keys: Any) -> dict[str, Any]:
    return {"name": f"{name}.service", "active_state": "active", "is_enabled": True, **keys}


HOST = [
    _unit("systemd-journald"),
    _unit("ssh", description="OpenBSD Secure Shell server", requires=["sysinit.target"], after=["network.target"]),
    _unit("postgresql@17-main", requires=["postgresql.service"], part_of=["postgresql.service"]),
    _unit("postgresql", wants=["network-online.target"]),
    _unit(
        "trading-api",
        description="Trading API",
        requires=["postgresql@17-main.service", "redis-server.service"],
        wants=["kafka.service", "systemd-journald.service"],
        after=["postgresql@17-main.service", "kafka.service", "ssh.service"],
        active_state="failed",
    ),
    _unit("redis-server", binds_to=["dev-disk.device"]),
    _unit("kafka", is_enabled=False, requires=["zookeeper.service"], after=["zookeeper.service"]),
    _unit("zookeeper", is_enabled=False),
    _unit("old-thing", is_enabled=False),
    {"name": "backup.timer"},
]


def _import(units: Any, *chosen: str, **options: Any) -> ImportResult:
    return import_systemd(units, SystemdOptions(**{"host": "srv-1", "units": chosen, **options}))


def _loaded(result: ImportResult) -> ParsedMap:
    assert [fault.message for fault in result.faults] == []
    parsed, faults = load_map(result.sources)
    assert [fault.message for fault in faults] == []
    assert parsed is not None
    return parsed


def _needs(parsed: ParsedMap) -> dict[str, dict[str, str]]:
    return {item.name: {link.needs: link.kind for link in item.dependencies} for item in parsed.components}


def _remarks(result: ImportResult) -> list[str]:
    items = result.report.as_json()["items"]
    return [f"{item['line']} {item['outcome']} {item['item']} {item['key']}: {item['text']}" for item in items]


def test_enabled_services_and_what_they_need() -> None:
    result = _import(HOST)
    parsed = _loaded(result)

    assert parsed.name == "Services of srv-1"
    assert _needs(parsed) == {
        "ssh": {},
        "postgresql-17-main": {"postgresql": "strong"},
        "postgresql": {},
        "trading-api": {"postgresql-17-main": "strong", "redis-server": "strong", "kafka": "weak", "ssh": "weak"},
        "redis-server": {},
        "kafka": {"zookeeper": "strong"},
        "zookeeper": {},
    }
    both = "first, though systemd starts both at once"
    assert _remarks(result) == [
        "0 left_out  : 2 units of the system itself, or that are no services",
        "2 guessed ssh.service type: service: the unit's name says no more",
        "2 left_out ssh.service Requires: sysinit.target is no service",
        "3 guessed postgresql@17-main.service name: components are named otherwise: postgresql-17-main",
        "3 taken postgresql@17-main.service technology: postgresql, database",
        f"3 guessed postgresql@17-main.service Requires: postgresql.service {both}",
        "3 guessed postgresql@17-main.service PartOf: strong: it is stopped and restarted with postgresql.service",
        "4 taken postgresql.service technology: postgresql, database",
        "4 left_out postgresql.service Wants: network-online.target is no service",
        "5 left_out trading-api.service wants: systemd-journald.service belongs to the system",
        "5 guessed trading-api.service type: service: the unit's name says no more",
        "5 guessed trading-api.service active_state: has failed at this moment",
        "5 taken trading-api.service Requires: postgresql@17-main.service",
        f"5 guessed trading-api.service Requires: redis-server.service {both}",
        "5 guessed trading-api.service Wants: weak: kafka.service is started with it, and may fail",
        "5 guessed trading-api.service After: weak: only starts after ssh.service",
        "6 taken redis-server.service technology: redis, cache",
        "6 left_out redis-server.service BindsTo: dev-disk.device is no service",
        "7 taken kafka.service technology: kafka, broker",
        "7 taken kafka.service Requires: zookeeper.service",
        "8 taken zookeeper.service technology: zookeeper, broker",
        "9 left_out old-thing.service : is not enabled; choose it in options.units if it matters",
    ]


def test_commands_go_to_systemd_and_the_check_asks_it() -> None:
    [redis] = _loaded(_import(HOST, "redis-server")).components
    control = {"service": {"name": "redis-server.service"}}
    assert redis.spec["commands"] == {"start": control, "stop": control, "restart": control, "status": control}
    assert redis.spec["healthcheck"] == {"type": "service", "service_name": "redis-server.service"}
    assert (redis.spec["host"], redis.spec["technology"]) == ("srv-1", {"name": "redis"})
    assert redis.labels == {"systemd-unit": "redis-server.service"}


def test_chosen_units_bring_only_what_they_need() -> None:
    assert set(_needs(_loaded(_import(HOST, "kafka.service")))) == {"kafka", "zookeeper"}
    assert set(_needs(_loaded(_import(HOST, "systemd-journald", "old-thing")))) == {"systemd-journald", "old-thing"}


def test_needed_unit_that_is_not_in_the_list_is_told_of() -> None:
    result = _import([_unit("api", requires=["db.service"])])
    assert _needs(_loaded(result)) == {"api": {}}
    assert "1 left_out api.service requires: db.service is not in the list of units" in _remarks(result)


def test_order_alone_gives_way_to_a_cycle() -> None:
    units = [_unit("a", requires=["b.service"]), _unit("b", after=["a.service"])]
    result = _import(units)
    assert _needs(_loaded(result)) == {"a": {"b": "strong"}, "b": {}}
    assert [line for line in _remarks(result) if line.startswith("2 left_out b dependsOn: a, which only orders: it")]


def test_cycle_of_requirements_is_named() -> None:
    units = [_unit("a", requires=["b.service"]), _unit("b", requires=["c.service"]), _unit("c", binds_to=["a.service"])]
    result = _import(units)
    assert result.sources == []
    [fault] = result.faults
    assert sorted(fault.found.removeprefix("a cycle: ").split(" → ")[:3]) == ["a", "b", "c"]


NOTHING = "units:1:1: found no enabled service that is not the system's own"


@pytest.mark.parametrize(
    ("units", "chosen", "message"),
    [
        ({}, [], "units:1:1: found {}, expected a list of at most 5000 units"),
        ([7], [], "units:1:1: [0]: found 7, expected a mapping with the key name"),
        ([{}], [], "units:1:1: [0].name: found nothing, expected a unit's name of at most 256"),
        ([{"name": "a\n"}], [], 'units:1:1: [0].name: found "a\\n", expected a unit\'s name of at most 256'),
        (
            [_unit("a"), _unit("b", requires="a.service")],
            [],
            'units:2:1: [1].requires: found "a.service", expected a list of at most 1000 names',
        ),
        ([_unit("a"), _unit("a")], [], "units:2:1: [1].name: found a.service twice, expected each unit once"),
        (
            [_unit("nginx")],
            ["ngnix"],
            "options:1:1: units: found 'ngnix', expected a unit of the list (perhaps 'nginx.service')",
        ),
        (
            [_unit("dbus")],
            [],
            f"{NOTHING}, expected units that are chosen in options.units",
        ),
    ],
)
def test_what_is_no_list_of_units_is_refused(units: Any, chosen: list[str], message: str) -> None:
    assert [fault.message for fault in _import(units, *chosen).faults] == [message]


def test_largest_host_is_read() -> None:
    units = [_unit(f"s{n}", requires=[f"s{n + 1}.service"]) for n in range(MAX_UNITS - 1)] + [
        _unit(f"s{MAX_UNITS - 1}")
    ]
    result = _import(units)
    assert result.faults == []
    assert len(result.sources) > 1
    assert _import([*units, _unit("more")]).faults[0].found == "5001 units"


def test_findings_of_an_agents_discovery_are_understood() -> None:
    finding = {"key": "nginx.service", "name": "nginx.service", "type": "systemd", "status": "running"}
    [nginx] = _loaded(_import([finding | {"is_enabled": True, "ports": [80]}])).components
    assert (nginx.name, nginx.spec["type"]) == ("nginx", "web")
