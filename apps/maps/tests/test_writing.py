"""The canonical form: what is written is read again as it was, and its bytes are always the same."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.maps.documents.loading import load_map
from apps.maps.documents.reading import SourceFile, read_documents
from apps.maps.documents.writing import component_files, map_file, scalar, to_yaml

TEXT = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0") | st.sampled_from("\n :#-'\"{}[],&*!|>%@`\t"),
    max_size=30,
)
SCALARS = TEXT | st.integers(-(10**12), 10**12) | st.booleans() | st.none() | st.floats(-1e9, 1e9, allow_nan=False)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4), max_leaves=12
)


def _read(text: str) -> Any:
    documents, faults = read_documents(SourceFile("a.yaml", text))
    assert faults == []
    [document] = documents
    return document.data


@given(st.dictionaries(TEXT, VALUES, min_size=1, max_size=5))
def test_whatever_is_written_is_read_again(value: dict[str, Any]) -> None:
    text = to_yaml(value)
    assert _read(text) == value
    assert to_yaml(_read(text)) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("systemctl start api", "systemctl start api"),
        ("17", '"17"'),
        ("1e999", '"1e999"'),
        ("yes", '"yes"'),
        ("Null", '"Null"'),
        ("a: b", '"a: b"'),
        ("a #b", '"a #b"'),
        ("http://localhost:8080/health", "http://localhost:8080/health"),
        ("", '""'),
        ("- x", '"- x"'),
        ("x ", '"x "'),
        ("\x85\u2028\ufeff", '"\\u0085\\u2028\\ufeff"'),
        (17, "17"),
        (True, "true"),
        (None, "null"),
    ],
)
def test_text_is_plain_only_where_no_reader_takes_it_for_something_else(value: Any, text: str) -> None:
    assert scalar(value) == text


def test_canonical_form_of_a_map() -> None:
    files = [
        map_file(
            "Trading Platform", description="Takes orders.", groups=["databases", {"name": "web", "title": "Web"}]
        ),
        *component_files(
            [
                (
                    "api",
                    {"team": "trading"},
                    {
                        "healthcheck": {"type": "http", "url": "http://localhost/health", "interval_ms": 30000},
                        "type": "service",
                        "dependsOn": ["db", {"component": "cache", "kind": "weak"}],
                        "host": "",
                        "commands": {"start": {"script": {"content": "#!/bin/sh\nexec run\n"}}},
                    },
                ),
                ("cache", {}, {"type": "cache"}),
                ("db", {}, {"type": "database", "technology": {"name": "postgresql", "version": "17"}}),
            ]
        ),
    ]

    assert [file.path for file in files] == [
        "map.yaml",
        "components/api.yaml",
        "components/cache.yaml",
        "components/db.yaml",
    ]
    head = "# yaml-language-server: $schema=https://opsmap.io/schemas/v1/map-document.json\napiVersion: opsmap.io/v1\n"
    assert files[0].content == head + (
        "kind: Map\nmetadata: {name: Trading Platform}\nspec:\n  description: Takes orders.\n"
        "  groups:\n    - databases\n    - {name: web, title: Web}\n"
    )
    assert files[1].content == head + (
        "kind: Component\nmetadata:\n  name: api\n  labels: {team: trading}\nspec:\n  type: service\n"
        "  dependsOn:\n    - db\n    - {component: cache, kind: weak}\n"
        "  commands:\n    start:\n      script:\n        content: |\n          #!/bin/sh\n          exec run\n"
        "  healthcheck:\n    type: http\n    url: http://localhost/health\n    interval_ms: 30000\n"
    )
    parsed, faults = load_map(files)
    assert faults == []
    assert parsed is not None
    assert [item.name for item in parsed.components] == ["api", "cache", "db"]


def test_many_components_share_files() -> None:
    files = component_files([(f"c{number}", {}, {"type": "service"}) for number in range(2_001)])
    assert [file.path for file in files] == [f"components/{number:04}.yaml" for number in range(1, 6)]
    assert sum(file.content.count("kind: Component") for file in files) == 2_001
