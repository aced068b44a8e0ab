"""The corpus of wrong documents: each file of `documents/wrong` ends with its faults, one `# fault` each."""

from __future__ import annotations

from pathlib import Path

import pytest

from apps.maps.documents import loading
from apps.maps.documents.hints import nearest
from apps.maps.documents.loading import load_map
from apps.maps.documents.reading import SourceFile
from apps.maps.tests.factories import DOCUMENTS, component

WRONG = sorted((DOCUMENTS / "wrong").glob("*.yaml"))
MARK = "# fault "


@pytest.mark.parametrize("path", WRONG, ids=lambda path: path.stem)
def test_wrong_document_has_exactly_these_faults(path: Path) -> None:
    text = path.read_text()
    document, mark, _ = text.partition(MARK)
    expected = [line.removeprefix(MARK) for line in text.splitlines() if line.startswith(MARK)]
    assert mark
    parsed, faults = load_map([SourceFile("x.yaml", document)])
    assert parsed is None
    assert [fault.message.removeprefix("x.yaml:") for fault in faults] == expected


def test_corpus_is_large() -> None:
    assert len(WRONG) >= 100


def test_faults_of_a_whole_folder_come_at_once() -> None:
    """All that are about one document each; what is about the whole is only told once each document is right."""
    sources = [SourceFile(path.name, path.read_text().partition(MARK)[0]) for path in WRONG]
    found = {fault.file for fault in load_map(sources)[1]}
    assert len(found) >= 90


def test_number_of_faults_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "MAX_FAULTS", 3)
    faults = load_map([component(f"c{number}", colour="red") for number in range(5)])[1]
    assert [fault.found for fault in faults] == ["an unknown key"] * 3 + ["2 further faults"]


@pytest.mark.parametrize(
    ("word", "known", "meant"),
    [
        ("depends_on", ["dependsOn", "description"], "dependsOn"),
        ("helthcheck", ["healthcheck", "host"], "healthcheck"),
        ("colour", ["actions", "commands"], None),
        ("x" * 1000, ["x" * 999], None),
        ("postgre-sql", [f"c{number}" for number in range(50_000)] + ["postgresql"], "postgresql"),
        ("postgrsql", [f"c{number}" for number in range(50_000)] + ["postgresql"], None),
    ],
)
def test_nearest_known_word_is_named_where_that_is_cheap(word: str, known: list[str], meant: str | None) -> None:
    assert nearest(word, known) == meant
