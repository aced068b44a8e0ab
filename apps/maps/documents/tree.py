"""Where each value of a YAML text begins and ends, for edits of the text itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from yaml.events import (
    CollectionEndEvent,
    CollectionStartEvent,
    DocumentEndEvent,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
)

from apps.maps.documents.reading import BYTE_ORDER_MARK, checked_events


@dataclass(slots=True)
class Node:
    """A value by its place: `text[start:end]`, without comments and line breaks behind it.

    `keys` are those of a mapping, None for anything else; `values` those of a mapping or list. `column` is where the
    entries of a block collection begin, `dashes` where those of a block list do.
    """

    start: int
    end: int
    column: int
    is_flow: bool = False
    text: str = ""
    keys: list[Node] | None = None
    values: list[Node] = field(default_factory=list)
    dashes: list[int] = field(default_factory=list)

    def position_of(self, part: str | int) -> int | None:
        """The position of a key or item among the values; None if it has none such."""
        if isinstance(part, int):
            return part if self.keys is None and part < len(self.values) else None
        return next((index for index, key in enumerate(self.keys or []) if key.text == part), None)

    def entry_start(self, position: int) -> int:
        """Where an entry begins, with its key or dash."""
        return self.keys[position].start if self.keys is not None else self.dashes[position]

    def is_plain_line(self, text: str) -> bool:
        """Whether it is a scalar on one line, that is there."""
        return (
            self.keys is None and not self.values and self.end > self.start and "\n" not in text[self.start : self.end]
        )


def read_trees(text: str) -> list[Node]:
    """The tree of each document of a text.

    Raises:
        RefusedError: see `checked_events`.
    """
    roots: list[Node] = []
    opened: list[Node] = []
    root: Node | None = None
    # Places are counted without the mark that says how the text is encoded.
    skipped = len(text) - len(text.removeprefix(BYTE_ORDER_MARK))
    for event in checked_events(text):
        if isinstance(event, CollectionEndEvent):
            node = opened.pop()
            _close(node, _marks(event)[1].index + skipped, text)
        elif isinstance(event, NodeEvent):
            node = _node(event, text, skipped)
            if opened:
                _put(opened[-1], node, text)
            else:
                root = node
            if isinstance(event, CollectionStartEvent):
                opened.append(node)
        elif isinstance(event, DocumentEndEvent) and root is not None:
            roots.append(root)
    return roots


def _marks(event: Any) -> tuple[Any, Any]:
    """Where an event begins and ends. A parser always says so, whatever the type of events does."""
    return event.start_mark, event.end_mark


def _node(event: Any, text: str, skipped: int) -> Node:
    first, last = _marks(event)
    start, end = first.index + skipped, last.index + skipped
    if isinstance(event, ScalarEvent):
        # A block of text ends with its line break, and with the empty lines behind it.
        end = start + len(text[start:end].rstrip("\r\n \t")) if event.style in {"|", ">"} else end
        return Node(start, end, first.column, text=str(event.value))
    keys: list[Node] | None = [] if isinstance(event, MappingStartEvent) else None
    return Node(start, end, first.column, is_flow=bool(event.flow_style), keys=keys)


def _put(parent: Node, node: Node, text: str) -> None:
    """Keys and values of a mapping come in turn."""
    if parent.keys is None:
        parent.values.append(node)
    elif len(parent.keys) == len(parent.values):
        parent.keys.append(node)
    else:
        if node.start == node.end:
            # An empty value is marked where the next thing begins; its place is behind its key.
            node.start = node.end = text.find(":", parent.keys[-1].end) + 1
        parent.values.append(node)


def _close(node: Node, end: int, text: str) -> None:
    if node.is_flow:
        node.end = end
        return
    if node.keys is None:
        _find_dashes(node, text)
    if node.values:
        node.end = node.values[-1].end


def _find_dashes(node: Node, text: str) -> None:
    place = node.start
    for item in node.values:
        dash = text.find("-", place) if item.start == item.end else text.rfind("-", place, item.start)
        dash = item.start if dash < 0 else dash
        node.dashes.append(dash)
        if item.start == item.end:
            item.start = item.end = dash + 1
        place = max(item.end, dash + 1)
