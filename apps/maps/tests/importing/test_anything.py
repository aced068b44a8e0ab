"""Whatever is sent, an importer answers with documents that make a Map, or with faults that say why not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from apps.maps.documents.loading import load_map
from apps.maps.importing.drafts import ImportResult
from apps.maps.importing.requests import ImportKind, import_content

COMPOSE = [path.read_text() for path in sorted((Path(__file__).parent / "compose").glob("*.yml"))]
WORDS = st.sampled_from(
    [
        "a",
        "b",
        "a:b",
        "80:80",
        "1m",
        "CMD",
        "NONE",
        "curl http://localhost/",
        "${A:-x}",
        "service:b",
        "-1",
        "",
        "redis:7",
    ]
)
ODD = st.recursive(
    WORDS | st.integers(-5, 10**6) | st.booleans() | st.none() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=6,
)
KNOWN = ("image", "ports", "depends_on", "healthcheck", "profiles", "deploy", "scale", "extends", "links")
OTHERS = (
    "network_mode",
    "volumes_from",
    "container_name",
    "stop_grace_period",
    "restart",
    "environment",
    "build",
    "x-y",
)
SERVICE_KEYS = st.sampled_from([*KNOWN, *OTHERS])
HEALTH = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("test", "interval", "timeout", "retries", "start_period", "disable"), ODD)
)
SERVICE = st.dictionaries(SERVICE_KEYS, ODD, max_size=5) | st.fixed_dictionaries(
    {"image": WORDS, "healthcheck": HEALTH}
)
PROJECT = st.fixed_dictionaries(
    {"services": st.dictionaries(st.sampled_from(["a", "b", "C", "a b", "-x"]), SERVICE, max_size=4) | ODD},
    optional={"name": ODD, "include": ODD, "volumes": ODD},
)
UNIT = st.fixed_dictionaries(
    {"name": st.sampled_from(["a", "b.service", "c@1", "ssh.service"]) | st.text(max_size=5)},
    optional={
        key: st.lists(st.sampled_from(["a.service", "b.service", "x.target", ""]), max_size=3) | ODD
        for key in ("requires", "wants", "after", "part_of", "binds_to", "is_enabled", "description")
    },
)
CELL = st.sampled_from(["a", "b", "c;a", "a:weak", "weak", "80", "x'", '"', "k=v", ""]) | st.text(max_size=6)


def _holds(result: ImportResult) -> None:
    json.dumps(result.report.as_json()).encode()
    assert bool(result.sources) != bool(result.faults)
    for fault in result.faults:
        assert fault.found
        assert fault.expected
    if result.sources:
        assert [fault.message for fault in load_map(result.sources)[1]] == []


@settings(max_examples=300, deadline=None)
@given(PROJECT)
def test_any_project(project: dict[str, Any]) -> None:
    _holds(import_content(ImportKind.COMPOSE, json.dumps(project), {"host": "srv-1"}))


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(COMPOSE), st.integers(0, 3_000), st.integers(0, 60), st.text(max_size=5))
def test_any_damage_to_a_real_project(text: str, place: int, length: int, instead: str) -> None:
    _holds(import_content(ImportKind.COMPOSE, text[:place] + instead + text[place + length :], {"host": "srv-1"}))


@settings(max_examples=200, deadline=None)
@given(st.lists(UNIT, max_size=6) | ODD, st.lists(st.sampled_from(["a", "b"]), max_size=1))
def test_any_units(units: Any, chosen: list[str]) -> None:
    _holds(import_content(ImportKind.SYSTEMD, units, {"units": chosen}))


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.sampled_from(["name", "needs", "kind", "type", "host", "health", "labels", "start", "group", "version"])
    ),
    st.lists(st.lists(CELL, max_size=6), max_size=8),
    st.sampled_from(",;\t"),
)
def test_any_table(columns: list[str], rows: list[list[str]], separator: str) -> None:
    text = "\n".join(separator.join(row) for row in [["name", *columns], *rows])
    _holds(import_content(ImportKind.CSV, text, {}))


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(list(ImportKind)), ODD, st.dictionaries(st.sampled_from(["host", "name", "units", "folder"]), ODD)
)
def test_any_request(kind: ImportKind, content: Any, options: dict[str, Any]) -> None:
    _holds(import_content(kind, content, options))
