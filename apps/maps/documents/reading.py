"""From bytes to plain data with positions: no tags, no aliases, bounded size and depth."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import StringIO
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import CollectionEndEvent, CollectionStartEvent, Event, NodeEvent, ScalarEvent
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError

from apps.maps.documents.faults import DocumentFault

MAX_DOCUMENT_BYTES = 1024 * 1024
MAX_DEPTH = 50

Path = tuple[str | int, ...]

# What YAML can write with an escape, and neither PostgreSQL nor UTF-8 can hold.
_UNSTORABLE = re.compile("[\\x00\\ud800-\\udfff]")


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A document file as it came: a path relative to the Map's folder, and its text."""

    path: str
    content: str


@dataclass(slots=True)
class RawDocument:
    """One YAML document as plain data, and where each of its values stands."""

    file: str
    data: Any
    positions: dict[Path, tuple[int, int]] = field(default_factory=dict)

    def fault(self, path: Path, *, found: str, expected: str) -> DocumentFault:
        """A fault at `path`, or at the nearest place above it that exists."""
        place = path
        while place and place not in self.positions:
            place = place[:-1]
        line, column = self.positions.get(place, (1, 1))
        return DocumentFault(self.file, line, column, key_of(path), found, expected)


def key_of(path: Path) -> str:
    """`("spec", "dependsOn", 0)` as `spec.dependsOn[0]`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


class _RefusedError(Exception):
    """`place` is the node or event whose beginning a person should look at."""

    def __init__(self, place: Node | Event, found: str, expected: str) -> None:
        super().__init__(found)
        self.found, self.expected = found, expected
        self.line, self.column = place.start_mark.line + 1, place.start_mark.column + 1


def read_documents(source: SourceFile) -> tuple[list[RawDocument], list[DocumentFault]]:
    """All documents of one file (`---` separates them), or the one fault that stops reading it."""
    if len(source.content.encode()) > MAX_DOCUMENT_BYTES:
        found = f"{len(source.content.encode())} bytes"
        return [], [DocumentFault(source.path, 1, 1, "", found, f"at most {MAX_DOCUMENT_BYTES} bytes")]
    documents: list[RawDocument] = []
    try:
        for node in _compose(source.content):
            document = RawDocument(source.path, None)
            document.data = _plain(node, (), document.positions)
            documents.append(document)
    except _RefusedError as error:
        return [], [DocumentFault(source.path, error.line, error.column, "", error.found, error.expected)]
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        found = error.problem or error.context or "something that is not YAML"
        return [], [DocumentFault(source.path, line, column, "", found, "valid YAML")]
    except ReaderError as error:
        before = source.content[: error.position]
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        return [], [DocumentFault(source.path, line, column, "", str(error).splitlines()[0], "valid YAML")]
    except YAMLError as error:
        return [], [DocumentFault(source.path, 1, 1, "", str(error).splitlines()[0], "valid YAML")]
    return documents, []


def _compose(text: str) -> Iterator[Node]:
    """The node trees, after a look at the events: an anchor is refused before anything could expand it, and deep
    nesting before it costs anything (the scanner's time grows with its square).
    """
    depth = 0
    for event in YAML(typ="safe", pure=True).parse(StringIO(text)):
        if isinstance(event, CollectionEndEvent):
            depth -= 1
        elif isinstance(event, NodeEvent):
            _check_event(event, depth)
            depth += isinstance(event, CollectionStartEvent)
    yield from (node for node in YAML(typ="safe", pure=True).compose_all(StringIO(text)) if node is not None)


def _check_event(event: NodeEvent, depth: int) -> None:
    if event.anchor is not None:
        raise _RefusedError(event, "an anchor or alias", "every value written out")
    if isinstance(event, ScalarEvent | CollectionStartEvent) and event.tag is not None:
        raise _RefusedError(event, f"the tag {event.tag}", "a value without a tag")
    if depth > MAX_DEPTH:
        raise _RefusedError(event, "deeper nesting", f"at most {MAX_DEPTH} levels")


def _plain(node: Node, path: Path, positions: dict[Path, tuple[int, int]]) -> Any:
    positions.setdefault(path, (node.start_mark.line + 1, node.start_mark.column + 1))
    if isinstance(node, MappingNode):
        return _plain_mapping(node, path, positions)
    if isinstance(node, SequenceNode):
        return [_plain(item, (*path, index), positions) for index, item in enumerate(node.value)]
    return _plain_scalar(node)


def _plain_mapping(node: MappingNode, path: Path, positions: dict[Path, tuple[int, int]]) -> dict[str, Any]:
    mapping: dict[str, Any] = {}
    for key_node, value_node in node.value:
        if not isinstance(key_node, ScalarNode):
            raise _RefusedError(key_node, "a key that is not text", "a text key")
        key = _text(key_node)
        if key in mapping:
            raise _RefusedError(key_node, f"the key {key!r} twice", "each key once")
        # A fault about a key's value points at the key: that is where a person looks.
        positions[(*path, key)] = (key_node.start_mark.line + 1, key_node.start_mark.column + 1)
        mapping[key] = _plain(value_node, (*path, key), positions)
    return mapping


def _plain_scalar(node: Node) -> Any:
    """A scalar by YAML 1.2's core schema; what looks like nothing else is text."""
    value = _text(node)
    match str(node.tag).rpartition(":")[2]:
        case "null":
            return None
        case "bool":
            return {"true": True, "false": False}.get(value.lower(), value)
        case "int":
            return _number(int, value)
        case "float":
            return _number(float, value)
    return value


def _text(node: Node) -> str:
    text = str(node.value)
    if _UNSTORABLE.search(text):
        raise _RefusedError(node, "a character that cannot be stored", "text without NUL and surrogates")
    return text


def _number(kind: type[int] | type[float], value: str) -> Any:
    """The number, or the text where it is none that JSON has: `.inf`, `1e999`, or more digits than Python reads."""
    digits = value.replace("_", "")
    try:
        if kind is int:
            return int(digits, 0)
        number = float(digits)
    except ValueError:
        return value
    return number if math.isfinite(number) else value
