"""A Compose file as plain data with positions. Unlike documents it may have anchors, aliases and merge keys."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    DocumentEndEvent,
    Event,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
)

from apps.maps.documents.reading import (
    Path,
    RawDocument,
    RefusedError,
    SourceFile,
    checked_events,
    place_of,
    scalar_of,
    text_of,
)

MAX_VALUES = 100_000
"""Values after aliases are expanded. Real files have some thousand."""

_RESET, _OVERRIDE = "!reset", "!override"
_TAGS = frozenset({_RESET, _OVERRIDE})


@dataclass(slots=True)
class _Node:
    """A value as written: text, a list of nodes, or a list of pairs of nodes. Aliases share it."""

    kind: type[str] | type[list[Any]] | type[dict[str, Any]]
    place: tuple[int, int]
    value: Any = None
    text: str = ""
    children: list[_Node] = field(default_factory=list)
    is_reset: bool = False


def read_compose(source: SourceFile) -> RawDocument:
    """The one document of a Compose file; all its positions are those of what an alias stands for.

    Raises:
        RefusedError: it is not readable, or expands to too much.
    """
    roots = list(_trees(source.content))
    if len(roots) > 1:
        raise RefusedError(roots[1].place, "a second document", "one document")
    document = RawDocument(source.path, None)
    if roots:
        document.data = _Expansion(document).plain(roots[0], ())
    if not isinstance(document.data, dict):
        raise RefusedError((1, 1), "no mapping", "a Compose file with the key services")
    return document


def _trees(text: str) -> Iterator[_Node]:
    """The node tree of each document. An alias is the node it stands for, which must be complete before it."""
    anchors: dict[str, _Node] = {}
    open_nodes: list[tuple[_Node, str | None]] = []
    for event in checked_events(text, has_aliases=True, tags=_TAGS):
        if isinstance(event, CollectionEndEvent):
            node, anchor = open_nodes.pop()
            if anchor is not None:
                anchors[anchor] = node
        elif isinstance(event, NodeEvent):
            node = _node(event, anchors)
            if open_nodes:
                open_nodes[-1][0].children.append(node)
            else:
                root = node
            if isinstance(event, ScalarEvent) and event.anchor is not None:
                anchors[event.anchor] = node
            elif not isinstance(event, ScalarEvent | AliasEvent):
                open_nodes.append((node, event.anchor))
        elif isinstance(event, DocumentEndEvent):
            anchors = {}
            yield root


def _node(event: Event, anchors: dict[str, _Node]) -> _Node:
    place = place_of(event)
    if isinstance(event, AliasEvent):
        if event.anchor not in anchors:
            raise RefusedError(place, f"the alias *{event.anchor}", "an anchor that ends before it")
        return anchors[event.anchor]
    is_reset = str(getattr(event, "tag", None)) == _RESET
    if isinstance(event, ScalarEvent):
        return _Node(str, place, scalar_of(event), text_of(event), is_reset=is_reset)
    return _Node(dict if isinstance(event, MappingStartEvent) else list, place, is_reset=is_reset)


class _Expansion:
    def __init__(self, document: RawDocument) -> None:
        self._positions = document.positions
        self._count = 0

    def plain(self, node: _Node, path: Path) -> Any:
        self._count += 1
        if self._count > MAX_VALUES:
            raise RefusedError(node.place, "aliases that stand for more", f"at most {MAX_VALUES} values")
        self._positions.setdefault(path, node.place)
        if node.is_reset:
            return None
        if node.kind is str:
            return node.value
        if node.kind is list:
            return [self.plain(item, (*path, index)) for index, item in enumerate(node.children)]
        return self._mapping(node, path)

    def _mapping(self, node: _Node, path: Path) -> dict[str, Any]:
        """Keys of its own first: they win over those that `<<` brings in."""
        mapping: dict[str, Any] = {}
        merged: list[_Node] = []
        for key, value in zip(node.children[::2], node.children[1::2], strict=True):
            if key.kind is not str:
                raise RefusedError(key.place, "a key that is not text", "a text key")
            if key.text == "<<":
                merged += value.children if value.kind is list else [value]
                continue
            if key.text in mapping:
                raise RefusedError(key.place, f"the key {key.text!r} twice", "each key once")
            self._positions.setdefault((*path, key.text), key.place)
            mapping[key.text] = self.plain(value, (*path, key.text))
        for source in merged:
            if source.kind is not dict:
                raise RefusedError(source.place, "something else than a mapping", "a mapping to merge")
            for name, value in self._mapping(source, path).items():
                mapping.setdefault(name, value)
        return mapping
