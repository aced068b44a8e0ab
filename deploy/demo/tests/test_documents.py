"""The documents of the demonstration: what they say, and that they agree with the table of what really runs."""

from __future__ import annotations

import shlex
import sys
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from deploy.demo import PORT_NAMES, render
from deploy.demo.components import COMPONENTS, Kind
from deploy.demo.tests.stage import discard_outside

PORTS = {name: 17100 + number for number, name in enumerate(PORT_NAMES)}


def render_to(root: Path) -> dict[str, Any]:
    """Render below `root` and load every document by its path."""
    target = root / "demo" / "documents"
    render(target, python=Path(sys.executable), state=root / "demo" / "run", ports=PORTS, lease=root / "lease")
    return {str(path.relative_to(target)): YAML(typ="safe").load(path) for path in sorted(target.rglob("*.yaml"))}


@pytest.fixture(scope="module")
def documents(shared_root: Path) -> dict[str, Any]:
    return render_to(shared_root)


@pytest.fixture(scope="module")
def components(documents: dict[str, Any]) -> dict[str, Any]:
    return {
        document["metadata"]["name"]: document["spec"]
        for document in documents.values()
        if document["kind"] == "Component"
    }


def test_one_document_for_each_component_and_one_for_the_map(documents: dict[str, Any]) -> None:
    assert set(documents) == {"map.yaml", *(f"components/{name}.yaml" for name in COMPONENTS)}
    for path, document in documents.items():
        assert document["apiVersion"] == "opsmap.io/v1"
        assert path == "map.yaml" or document["metadata"]["name"] == Path(path).stem


def test_at_least_twelve_components_in_four_groups_on_two_hosts(
    documents: dict[str, Any], components: dict[str, Any]
) -> None:
    assert len(components) >= 12
    groups = {group["name"] for group in documents["map.yaml"]["spec"]["groups"]}
    assert {spec["group"] for spec in components.values()} == groups
    assert len(groups) == 4
    assert {spec["host"] for spec in components.values()} == {"srv-data-01", "srv-app-01"}


def test_dependencies_exist_form_no_cycle_and_are_those_of_the_processes(components: dict[str, Any]) -> None:
    strong: dict[str, list[str]] = {}
    weak: dict[str, list[str]] = {}
    for name, spec in components.items():
        entries = spec.get("dependsOn", [])
        strong[name] = [entry for entry in entries if isinstance(entry, str)]
        weak[name] = [entry["component"] for entry in entries if not isinstance(entry, str)]
        assert all(entry["kind"] == "weak" for entry in entries if not isinstance(entry, str))
    assert strong == {name: list(component.needs) for name, component in COMPONENTS.items()}
    assert weak == {name: list(component.uses) for name, component in COMPONENTS.items()}
    assert any(weak.values())
    order = list(TopologicalSorter({name: [*strong[name], *weak[name]] for name in components}).static_order())
    assert set(order) == set(components)


def test_port_names_start_nothing_before_what_it_needs() -> None:
    for position, name in enumerate(PORT_NAMES):
        assert {*COMPONENTS[name].needs, *COMPONENTS[name].uses} <= set(PORT_NAMES[:position])


@pytest.mark.parametrize("name", PORT_NAMES)
def test_commands_and_checks_speak_of_the_component_itself(name: str, components: dict[str, Any]) -> None:
    spec, port = components[name], PORTS[name]
    for action in ("start", "stop", "status"):
        words = shlex.split(spec["commands"][action]["command"])
        assert words[0] == sys.executable
        assert Path(words[1]).name == "control.py"
        assert words[2:4] == [action, name]
    start, stop = spec["commands"]["start"]["execution"], spec["commands"]["stop"]["execution"]
    assert (start["mode"], start["poll_interval_ms"], start["max_wait_ms"]) == ("async", 500, 60000)
    opened = {"type": "port_open", "host": "127.0.0.1", "port": port, "should_be_open": True}
    assert stop["completion_check"] == {**opened, "should_be_open": False}
    assert spec["commands"]["status"]["execution"]["mode"] == "sync"
    health, url = spec["healthcheck"], f"http://127.0.0.1:{port}/health"
    assert (health["interval_ms"], health["timeout_ms"], health["failure_threshold"]) == (1000, 800, 2)
    if COMPONENTS[name].kind is Kind.SERVICE:
        assert start["completion_check"]["type"] == "all"
        assert start["completion_check"]["checks"][0] == opened
        assert start["completion_check"]["checks"][1]["url"] == url
        assert (health["type"], health["url"]) == ("http", url)
    else:
        assert start["completion_check"] == opened
        assert (health["type"], health["port"]) == ("tcp", port)


def test_rendering_again_changes_nothing_and_removes_what_is_no_longer_there(root: Path) -> None:
    first = render_to(root)
    folder = root / "demo" / "documents"
    times = {path: path.stat().st_mtime_ns for path in folder.rglob("*.yaml")}
    (folder / "components" / "retired.yaml").write_text("kind: Component\n")
    assert render_to(root) == first
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.yaml")} == times


def test_paths_with_blanks_quotes_and_dollars_reach_the_command_whole(root: Path) -> None:
    odd = root / "it's $HOME, two  blanks: #1"
    odd.mkdir()
    spec = render_to(odd)["components/pricing.yaml"]["spec"]
    discard_outside(odd)
    words = shlex.split(spec["commands"]["start"]["command"])
    assert words[4:] == ["--state", str(odd / "demo" / "run"), "--lease", str(odd / "lease")]


def test_a_path_that_no_command_can_hold_is_refused(root: Path) -> None:
    with pytest.raises(ValueError, match="cannot stand in a document"):
        render_to(root / "two\nlines")


def test_a_missing_port_is_named(root: Path) -> None:
    ports = {name: port for name, port in PORTS.items() if name != "pricing"}
    with pytest.raises(ValueError, match="no port for pricing"):
        render(root, python=Path(sys.executable), state=root / "demo" / "run", ports=ports, lease=root)
