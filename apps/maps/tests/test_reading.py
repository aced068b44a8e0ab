"""From text to plain data: what YAML may say here, where each value stands, and what is refused before it costs."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from apps.maps.documents.faults import DocumentFault
from apps.maps.documents.reading import MAX_DEPTH, MAX_DOCUMENT_BYTES, SourceFile, key_of, read_documents


def _read(text: str) -> Any:
    documents, faults = read_documents(SourceFile("a.yaml", text))
    assert faults == []
    [document] = documents
    return document.data


def _fault(text: str) -> DocumentFault:
    documents, faults = read_documents(SourceFile("a.yaml", text))
    assert documents == []
    [fault] = faults
    assert fault.file == "a.yaml"
    return fault


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("plain", "plain"),
        ("'17'", "17"),
        ("17", 17),
        ("-5", -5),
        ("1_000", 1000),
        ("0x1f", 31),
        ("0o17", 15),
        ("1.5", 1.5),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("yes", "yes"),
        ("off", "off"),
        ("2026-11-21", "2026-11-21"),
        (".inf", ".inf"),
        (".nan", ".nan"),
        ("1e999", "1e999"),
        ("9" * 5000, "9" * 5000),
        ("1" * 400, int("1" * 400)),
        ('"caf\\u00e9 \\U0001F600"', "café 😀"),
        ("[1, [2, {a: b}]]", [1, [2, {"a": "b"}]]),
        ("|\n  two\n  lines\n", "two\nlines\n"),
    ],
)
def test_values_are_those_of_yaml_1_2_and_json(text: str, value: Any) -> None:
    found = _read(f"key: {text}\n")["key"]
    assert (found, type(found)) == (value, type(value))


def test_yaml_1_1_does_not_turn_yes_into_no() -> None:
    assert _read("%YAML 1.1\n---\nkey: yes\n") == {"key": "yes"}


def test_keys_are_text() -> None:
    assert _read("1: a\ntrue: b\n") == {"1": "a", "true": "b"}


def test_byte_order_mark_and_windows_line_ends_are_read() -> None:
    assert _read("\ufeffa: 1\r\nb: two\r\n") == {"a": 1, "b": "two"}


def test_documents_of_one_file_are_separated() -> None:
    documents, faults = read_documents(SourceFile("a.yaml", "a: 1\n---\na: 2\n...\n"))
    assert [document.data for document in documents] == [{"a": 1}, {"a": 2}]
    assert faults == []


@pytest.mark.parametrize("text", ["", "\n\n", "# only a remark\n"])
def test_empty_file_has_no_document(text: str) -> None:
    assert read_documents(SourceFile("a.yaml", text)) == ([], [])


def test_positions_are_those_of_keys_and_items() -> None:
    text = "spec:\n  dependsOn:\n    - db\n    - component: kafka\n"
    [document], _ = read_documents(SourceFile("a.yaml", text))

    assert document.positions[("spec",)] == (1, 1)
    assert document.positions[("spec", "dependsOn")] == (2, 3)
    assert document.positions[("spec", "dependsOn", 0)] == (3, 7)
    assert document.positions[("spec", "dependsOn", 1, "component")] == (4, 7)


def test_position_in_a_second_document_counts_from_the_top_of_the_file() -> None:
    documents, _ = read_documents(SourceFile("a.yaml", "a: 1\n---\n\nb: 2\n"))
    assert documents[1].positions[("b",)] == (4, 1)


def test_fault_of_a_missing_place_points_at_what_is_there() -> None:
    [document], _ = read_documents(SourceFile("a.yaml", "\nspec:\n  type: x\n"))
    fault = document.fault(("spec", "commands", "start"), found="nothing", expected="something")

    assert (fault.line, fault.column, fault.key) == (2, 1, "spec.commands.start")
    assert fault.message == "a.yaml:2:1: spec.commands.start: found nothing, expected something"


def test_key_of_writes_a_path_as_people_do() -> None:
    assert key_of(("spec", "dependsOn", 0, "kind")) == "spec.dependsOn[0].kind"
    assert key_of(()) == ""


@pytest.mark.parametrize(
    ("text", "line", "column", "found", "expected"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, 1, "the key 'a' twice", "each key once"),
        ("a:\n  1: x\n  '1': y\n", 3, 3, "the key '1' twice", "each key once"),
        ("a: &x 1\nb: *x\n", 1, 4, "an anchor or alias", "every value written out"),
        ("b: 1\na: *x\n", 2, 4, "an anchor or alias", "every value written out"),
        ("a: &x [1]\n", 1, 4, "an anchor or alias", "every value written out"),
        ("a: !secret x\n", 1, 4, "the tag !secret", "a value without a tag"),
        ("a: !secret {b: 1}\n", 1, 4, "the tag !secret", "a value without a tag"),
        ("a: !secret [1]\n", 1, 4, "the tag !secret", "a value without a tag"),
        ("!secret a: 1\n", 1, 1, "the tag !secret", "a value without a tag"),
        ("a: !!str 17\n", 1, 4, "the tag tag:yaml.org,2002:str", "a value without a tag"),
        (
            "a: !!python/object/apply:os.system [id]\n",
            1,
            4,
            "the tag tag:yaml.org,2002:python/object/apply:os.system",
            "a value without a tag",
        ),
        (
            "a: !!python/name:builtins.str x\n",
            1,
            4,
            "the tag tag:yaml.org,2002:python/name:builtins.str",
            "a value without a tag",
        ),
        ("a:\n\tb: 1\n", 2, 1, "a tab", "spaces where lines are indented"),
        ("a\0: \0b\0", 1, 2, "a NUL character", "text in UTF-8"),
        ("a: [1, 2\nb: 3\n", 2, 2, "':'", "',' or ']'"),
        ("? [a, b]\n: 1\n", 1, 3, "a key that is not text", "a text key"),
        ('a: 1\nb: "\\0"\n', 2, 4, "a character that cannot be stored", "text without NUL and surrogates"),
        ('a: "\\ud83d"\n', 1, 7, "invalid Unicode character escape code", "valid YAML"),
        ("a: \ud83d\n", 1, 4, "half of a character", "text in UTF-8"),
        ("a: b: c\n", 1, 5, "':' behind a value", "one key and its value, or quotes around the text"),
        ("a: 1\n  b: 2\n", 2, 4, "':' behind a value", "one key and its value, or quotes around the text"),
        ("a: @x\n", 1, 4, "'@', which begins no value", "valid YAML"),
        ('"a\\0": 1\n', 1, 1, "a character that cannot be stored", "text without NUL and surrogates"),
    ],
)
def test_what_is_refused_says_where_and_why(text: str, line: int, column: int, found: str, expected: str) -> None:
    fault = _fault(text)
    assert (fault.line, fault.column, fault.found, fault.expected) == (line, column, found, expected)


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [
        ('a: 1\nb: "open\n', 3, 1),
        ("a: 1\nb: \x01\n", 2, 4),
        ("%YAML 9.9\n---\na: 1\n", 1, 1),
        ("a: @x\n", 1, 4),
    ],
)
def test_what_is_no_yaml_says_where(text: str, line: int, column: int) -> None:
    fault = _fault(text)
    assert (fault.line, fault.column, fault.expected) == (line, column, "valid YAML")
    assert fault.found


def test_alias_bomb_is_refused_at_its_first_anchor() -> None:
    bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n"
    for before, name in pairwise("abcdefghi"):
        bomb += f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
    fault = _fault(bomb)
    assert (fault.line, fault.column, fault.found) == (1, 4, "an anchor or alias")


def _nested(levels: int) -> str:
    return "a: " + "[" * (levels - 1) + "]" * (levels - 1)


def test_nesting_is_bounded() -> None:
    assert _read(_nested(MAX_DEPTH + 1))
    fault = _fault(_nested(MAX_DEPTH + 2))
    assert (fault.found, fault.expected) == ("deeper nesting", f"at most {MAX_DEPTH} levels")
    assert fault.column == 3 + MAX_DEPTH + 1


@pytest.mark.parametrize("text", ["a: " + "[" * 100_000, "- " * 100_000, "{a: " * 50_000])
def test_very_deep_nesting_is_refused_before_it_costs(text: str) -> None:
    """Unbounded, the first of these alone would keep a process busy for a quarter of an hour."""
    assert _fault(text).found == "deeper nesting"


def test_deep_blocks_are_refused_too() -> None:
    block = "".join(f"{'  ' * level}a:\n" for level in range(MAX_DEPTH + 5))
    fault = _fault(block)
    assert (fault.found, fault.line) == ("deeper nesting", MAX_DEPTH + 1)


def test_size_is_bounded_in_bytes() -> None:
    text = "a: " + "é" * (MAX_DOCUMENT_BYTES // 2)
    fault = _fault(text)
    assert (fault.line, fault.column) == (1, 1)
    assert fault.found == f"{len(text.encode())} bytes"
    assert fault.expected == f"at most {MAX_DOCUMENT_BYTES} bytes"


def test_largest_document_is_read() -> None:
    text = "a: '"
    text += "x" * (MAX_DOCUMENT_BYTES - len(text) - 1) + "'"
    assert len(_read(text)["a"]) == MAX_DOCUMENT_BYTES - 5
