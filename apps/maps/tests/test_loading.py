"""A folder of documents to one Map: the examples of the specification, and what only the whole can tell."""

from __future__ import annotations

import pytest

from apps.maps.documents import loading
from apps.maps.documents.loading import ParsedDependency, ParsedGroup, ParsedMap, load_map
from apps.maps.documents.reading import SourceFile
from apps.maps.tests.factories import component, folder, map_document, trading


def _load(*sources: SourceFile, default_name: str = "") -> ParsedMap:
    parsed, faults = load_map(sources, default_name=default_name)
    assert faults == []
    assert parsed is not None
    return parsed


def _messages(*sources: SourceFile) -> list[str]:
    parsed, faults = load_map(sources)
    assert parsed is None
    return [fault.message for fault in faults]


def test_example_of_the_reference_loads_unchanged() -> None:
    parsed = _load(*folder("reference-4.5"), default_name="Trading Platform")

    [api] = parsed.components
    assert (parsed.name, parsed.groups) == ("Trading Platform", ())
    assert (api.name, api.labels, api.dependencies) == ("trading-api", {}, ())
    assert (api.spec["type"], api.spec["host"]) == ("service", "srv-trading-01")
    start = api.spec["commands"]["start"]
    assert start["command"] == "systemctl start trading-api"
    assert start["execution"] == {
        "mode": "async",
        "completion_check": {
            "type": "all",
            "checks": [
                {"type": "service_status", "service_name": "trading-api", "expected_status": "running"},
                {"type": "port_open", "port": 8080, "should_be_open": True},
                {
                    "type": "http_healthy",
                    "url": "http://localhost:8080/health",
                    "expected_status": 200,
                    "body_contains": '"status":"UP"',
                },
            ],
        },
        "poll_interval_ms": 2000,
        "max_wait_ms": 120000,
    }
    stop_checks = api.spec["commands"]["stop"]["execution"]["completion_check"]["checks"]
    assert stop_checks[1] == {"type": "port_open", "port": 8080, "should_be_open": False}
    assert stop_checks[2] == {"type": "process_stopped", "process_name": "trading-api"}
    assert api.spec["commands"]["status"]["execution"] == {"mode": "sync", "timeout_ms": 5000}
    assert api.spec["commands"]["restart"]["execution"]["max_wait_ms"] == 180000
    assert api.spec["healthcheck"] == {
        "type": "http",
        "url": "http://localhost:8080/health",
        "expected_status": 200,
        "interval_ms": 30000,
        "timeout_ms": 10000,
        "failure_threshold": 3,
    }


def test_example_of_the_specification_loads() -> None:
    parsed = _load(*folder("spec-3.1"))

    assert (parsed.name, parsed.description) == ("Trading Platform", "Takes orders and settles them.")
    assert parsed.groups == (
        ParsedGroup("databases", ""),
        ParsedGroup("frontends", "Front ends"),
        ParsedGroup("brokers", ""),
    )
    by_name = {item.name: item for item in parsed.components}
    api = by_name["trading-api"]
    assert api.labels == {"team": "trading"}
    assert api.dependencies == (ParsedDependency("postgresql", "strong"), ParsedDependency("kafka", "weak"))
    assert api.spec["technology"] == {"name": "openjdk", "version": "17"}
    assert api.spec["actions"]["clear_cache"]["confirm"] is True
    assert by_name["kafka"].spec["hostSelector"] == {"labels": {"role": "broker"}}


def test_map_without_a_document_of_its_own_takes_the_name_it_is_given() -> None:
    assert _load(component("db"), default_name="Backup").name == "Backup"


def test_map_document_wins_over_the_given_name_and_needs_no_spec() -> None:
    header = SourceFile("map.yml", "apiVersion: opsmap.io/v1\nkind: Map\nmetadata: {name: Orders}\n")
    parsed = _load(header, component("db"), default_name="Other")
    assert (parsed.name, parsed.description) == ("Orders", "")


def test_groups_are_those_declared_first_then_those_used() -> None:
    parsed = _load(*trading())
    assert parsed.groups == (
        ParsedGroup("databases", ""),
        ParsedGroup("web", "Web"),
        ParsedGroup("caches", ""),
        ParsedGroup("services", ""),
    )


def test_group_declared_twice_is_one() -> None:
    parsed = _load(map_document("M", groups=["a", {"name": "a", "title": "A"}]), component("db"))
    assert parsed.groups == (ParsedGroup("a", ""),)


def test_files_that_are_no_yaml_by_name_are_left_alone() -> None:
    assert _load(component("db"), SourceFile("README.md", "{not yaml"), default_name="M").components[0].name == "db"


def test_one_file_may_hold_everything() -> None:
    text = "\n---\n".join(source.content for source in trading())
    assert len(_load(SourceFile("all.yaml", text)).components) == 4


def test_nothing_at_all_is_a_fault() -> None:
    expected = [":1:1: found no component, expected at least one document of kind Component"]
    assert _messages() == expected
    assert _messages(SourceFile("a.yaml", "# empty\n"), SourceFile("notes.txt", "x")) == expected
    assert _messages(map_document("M")) == expected


def test_second_map_is_a_fault_of_the_second() -> None:
    second = SourceFile("other.yaml", "apiVersion: opsmap.io/v1\nkind: Map\nmetadata: {name: B}\n")
    assert _messages(map_document("A"), component("db"), second) == [
        "other.yaml:2:1: kind: found a second Map, expected one document of kind Map in a folder"
    ]


def test_duplicate_name_says_which_file_has_it_too() -> None:
    again = SourceFile("z.yaml", "apiVersion: opsmap.io/v1\nkind: Component\nmetadata:\n  name: db\nspec: {type: x}\n")
    assert _messages(component("db"), again) == [
        "z.yaml:4:3: metadata.name: found 'db', which components/db.yaml has too, expected a name of its own"
    ]


def _needing(*lines: str) -> SourceFile:
    text = "apiVersion: opsmap.io/v1\nkind: Component\nmetadata: {name: api}\nspec:\n  type: x\n  dependsOn:\n"
    return SourceFile("api.yaml", text + "".join(f"    - {line}\n" for line in lines))


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["db", "kafka"], "api.yaml:8:7: spec.dependsOn[1]: found 'kafka', expected a component of this Map"),
        (
            ["{component: kafka, kind: weak}"],
            "api.yaml:7:7: spec.dependsOn[0]: found 'kafka', expected a component of this Map",
        ),
        (["api"], "api.yaml:7:7: spec.dependsOn[0]: found 'api' itself, expected another component"),
        (["db", "db"], "api.yaml:8:7: spec.dependsOn[1]: found 'db' twice, expected each dependency once"),
        (
            ["db", "{component: db, kind: weak}"],
            "api.yaml:8:7: spec.dependsOn[1]: found 'db' twice, expected each dependency once",
        ),
    ],
)
def test_wrong_dependency_names_its_line(lines: list[str], expected: str) -> None:
    assert _messages(component("db"), _needing(*lines)) == [expected]


def test_cycle_is_named_from_its_first_to_its_last() -> None:
    [message] = _messages(component("a", "b"), component("b", "c"), component("c", "a"), component("d", "a"))

    rotations = ["a → b → c → a", "b → c → a → b", "c → a → b → c"]
    assert any(f"found a cycle: {cycle}, expected dependencies without a cycle" in message for cycle in rotations)
    first = message.partition("a cycle: ")[2][0]
    assert message.startswith(f"components/{first}.yaml:1:")
    assert " spec.dependsOn: " in message


def test_weak_dependencies_make_cycles_too() -> None:
    [message] = _messages(component("a", {"component": "b", "kind": "weak"}), component("b", "a"))
    assert "found a cycle: " in message


def test_all_faults_of_all_files_come_at_once() -> None:
    sources = [
        map_document("Trading", colour="red"),
        SourceFile("broken.yaml", "a: [1\n"),
        component("db", type=7, host=""),
        component("db2", "db2"),
        component("db3", "x", "x"),
        component("a", "b"),
        component("b", "a"),
        SourceFile("twice.yaml", component("a").content),
    ]

    found = [(fault.file, fault.key) for fault in load_map(sources)[1]]

    assert found == [
        ("map.yaml", "spec.colour"),
        ("broken.yaml", ""),
        ("components/db.yaml", "spec.type"),
        ("components/db.yaml", "spec.host"),
        ("twice.yaml", "metadata.name"),
        ("components/db2.yaml", "spec.dependsOn[0]"),
        ("components/db3.yaml", "spec.dependsOn[1]"),
        (found[-1][0], "spec.dependsOn"),
    ]


def test_dependency_on_a_component_that_has_faults_is_no_fault_of_its_own() -> None:
    for broken in (component("db", colour="red"), SourceFile("db.yaml", "a: [1\n")):
        assert len(_messages(broken, component("api", "db"))) == 1


def test_number_of_components_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "MAX_COMPONENTS", 3)
    assert len(_load(*(component(f"c{n}") for n in range(3)), default_name="M").components) == 3
    assert _messages(*(component(f"c{n}") for n in range(4))) == [
        ":1:1: found 4 components, expected at most 3 components"
    ]
