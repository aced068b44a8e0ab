"""From bytes to plain data with positions: no tags, no aliases, bounded size and depth."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from io import StringIO
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from apps.maps.documents.faults import DocumentFault

MAX_DOCUMENT_BYTES = 1024 * 1024
MAX_DEPTH = 50

Path = tuple[str | int, ...]


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
    def __init__(self, node: Node | None, found: str, expected: str) -> None:
        super().__init__(found)
        self.node, self.found, self.expected = node, found, expected


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
        mark = error.node.start_mark if error.node is not None else None
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        return [], [DocumentFault(source.path, line, column, "", error.found, error.expected)]
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        found = error.problem or error.context or "something that is not YAML"
        return [], [DocumentFault(source.path, line, column, "", found, "valid YAML")]
    except (YAMLError, RecursionError) as error:
        return [], [DocumentFault(source.path, 1, 1, "", str(error).splitlines()[0], "valid YAML")]
    return documents, []


def _compose(text: str) -> Iterator[Node]:
    """The node trees, after a look at the events: an anchor is refused before anything could expand it."""
    parser = YAML(typ="safe", pure=True)
    for event in parser.parse(StringIO(text)):
        if getattr(event, "anchor", None):
            mark = event.start_mark
            raise MarkedYAMLError(problem="an anchor or alias, which documents may not have", problem_mark=mark)
    yield from (node for node in YAML(typ="safe", pure=True).compose_all(StringIO(text)) if node is not None)


def _plain(node: Node, path: Path, positions: dict[Path, tuple[int, int]]) -> Any:
    if len(path) > MAX_DEPTH:
        raise _RefusedError(node, "deeper nesting", f"at most {MAX_DEPTH} levels")
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
        key = str(key_node.value)
        if key in mapping:
            raise _RefusedError(key_node, f"the key {key!r} twice", "each key once")
        # A fault about a key's value points at the key: that is where a person looks.
        positions[(*path, key)] = (key_node.start_mark.line + 1, key_node.start_mark.column + 1)
        mapping[key] = _plain(value_node, (*path, key), positions)
    return mapping


def _plain_scalar(node: Node) -> Any:
    """A scalar by YAML 1.2's core schema; any other tag is refused."""
    tag = str(node.tag).rpartition(":")[2]
    value = node.value
    if tag == "str" or tag == "timestamp":
        return value
    if tag == "null":
        return None
    if tag == "bool":
        return value.lower() == "true"
    if tag in {"int", "float"}:
        try:
            return int(value.replace("_", ""), 0) if tag == "int" else float(value.replace("_", ""))
        except ValueError:
            return value
    raise _RefusedError(node, f"the tag {node.tag}", "a value without a tag")
