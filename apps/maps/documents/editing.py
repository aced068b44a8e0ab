"""A change of a document that a person wrote, as the smallest change of its text.

Comments, order, quotes and line ends of everything else stay as they are, byte for byte. Each edit is read again: where
a small one would not say what was meant, the value around it is written anew, in the worst case the whole document.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from enum import Enum
from typing import Any

from apps.maps.documents.reading import Path, SourceFile, read_documents
from apps.maps.documents.tree import Node, read_trees
from apps.maps.documents.writing import entry_lines, flow, list_lines, to_yaml


class EditError(ValueError):
    """The text cannot be edited: it is not readable, or has no such document."""


class _Kind(Enum):
    SET = "set"
    """The value at the path, which may not be there yet."""
    REMOVE = "remove"
    INSERT = "insert"
    """A new item of a list, before the one that has this place now."""


@dataclass(frozen=True, slots=True)
class _Change:
    kind: _Kind
    path: Path
    value: Any = None


class _TooLargeError(Exception):
    """This change cannot be made by so small an edit."""


def rewrite(text: str, data: dict[str, Any], *, document: int = 0) -> str:
    """The text with its `document`-th document saying `data`, and otherwise as it was.

    Raises:
        EditError: the text is not readable.
    """
    known = _read(text, document)
    for _ in range(10_000):
        change = next(_changes(known, data, ()), None)
        if change is None:
            return text
        text, known = _applied(text, known, change, data, document)
    raise EditError("the documents differ in too much")


def _read(text: str, document: int) -> Any:
    documents, faults = read_documents(SourceFile("", text))
    if faults or document >= len(documents):
        raise EditError(faults[0].message if faults else f"there is no document {document}")
    return documents[document].data


def _changes(old: Any, new: Any, path: Path) -> Iterator[_Change]:
    """What differs, nearest to the leaves."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in old:
            if key not in new:
                yield _Change(_Kind.REMOVE, (*path, key))
        for key, value in new.items():
            if key not in old:
                yield _Change(_Kind.SET, (*path, key), value)
            else:
                yield from _changes(old[key], value, (*path, key))
    elif isinstance(old, list) and isinstance(new, list):
        yield from _item_changes(old, new, path)
    elif not _same(old, new):
        yield _Change(_Kind.SET, path, new)


def _item_changes(old: list[Any], new: list[Any], path: Path) -> Iterator[_Change]:
    before, after = ([json.dumps(item, sort_keys=True) for item in items] for items in (old, new))
    for tag, start, end, other, other_end in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if tag == "replace" and end - start == other_end - other:
            for index in range(start, end):
                yield from _changes(old[index], new[other + index - start], (*path, index))
        elif tag != "equal" and end > start:
            yield _Change(_Kind.REMOVE, (*path, start))
        elif tag != "equal":
            yield _Change(_Kind.INSERT, (*path, start), new[other])


def _same(one: Any, other: Any) -> bool:
    """Equal also in type: true is not 1, and 1 is not 1.0."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def _applied(text: str, known: Any, change: _Change, goal: Any, document: int) -> tuple[str, Any]:
    """The text after a change, and what it says then: the first edit that says what is meant, from small to large."""
    wanted = _changed(known, change)
    edits = [change]
    path = change.path[:-1]
    while path:
        edits.append(_Change(_Kind.SET, path, _at(wanted, path)))
        path = path[:-1]
    for edit in edits:
        try:
            result = _Editor(text, document).edit(edit)
            if _same(_read(result, document), wanted):
                return result, wanted
        except (_TooLargeError, EditError):
            continue
    return _Editor(text, document).whole(goal), goal


def _changed(data: Any, change: _Change) -> Any:
    changed = copy.deepcopy(data)
    if not change.path:
        return change.value
    parent = _at(changed, change.path[:-1])
    last: Any = change.path[-1]
    if change.kind is _Kind.REMOVE:
        del parent[last]
    elif change.kind is _Kind.INSERT:
        parent.insert(last, change.value)
    else:
        parent[last] = change.value
    return changed


def _at(data: Any, path: Path) -> Any:
    for part in path:
        data = data[part]
    return data


class _Editor:
    """Edits of one text, by the places of its nodes."""

    def __init__(self, text: str, document: int) -> None:
        self._text = text
        self._newline = "\r\n" if "\r\n" in text else "\n"
        roots = read_trees(text)
        if document >= len(roots):
            raise EditError(f"there is no document {document}")
        self._root = roots[document]

    def edit(self, change: _Change) -> str:
        chain = self._chain(change.path[:-1])
        parent, last = chain[-1], change.path[-1]
        if any(node.is_flow for node in chain):
            return self._edit_flow(chain, change)
        if change.kind is _Kind.REMOVE:
            return self._remove(parent, parent.position_of(last))
        position = parent.position_of(last) if change.kind is _Kind.SET else None
        if position is not None:
            return self._replace(parent, position, change.value)
        return self._add(parent, last, change.value)

    def whole(self, data: dict[str, Any]) -> str:
        """The document written anew."""
        body = to_yaml(data).replace("\n", self._newline)
        if self._root.is_flow:
            body = body.removesuffix(self._newline)
        return self._text[: self._root.start] + body + self._text[self._root.end :].removeprefix(self._newline)

    def _chain(self, path: Path) -> list[Node]:
        chain = [self._root]
        for part in path:
            position = chain[-1].position_of(part)
            if position is None:
                raise _TooLargeError
            chain.append(chain[-1].values[position])
        return chain

    def _edit_flow(self, chain: list[Node], change: _Change) -> str:
        """Within brackets a scalar is replaced in place; anything else writes the brackets anew."""
        parent = chain[-1]
        position = parent.position_of(change.path[-1])
        if change.kind is _Kind.SET and position is not None and not parent.values[position].values:
            node = parent.values[position]
            if node.end > node.start:
                return self._text[: node.start] + flow(change.value) + self._text[node.end :]
        raise _TooLargeError

    def _replace(self, parent: Node, position: int, value: Any) -> str:
        node = parent.values[position]
        is_scalar = not isinstance(value, dict | list)
        if is_scalar and node.is_plain_line(self._text):
            lines = self._lines(parent, position, value)
            head = self._head(parent, position)
            if len(lines) == 1:
                return self._text[: node.start] + lines[0].removeprefix(head).lstrip() + self._text[node.end :]
        start, end = parent.entry_start(position), node.end
        line_end = self._line_end(end)
        # What stands behind a value of several lines is a remark about its last line; it goes with it.
        behind = self._text[end:line_end] if "\n" not in self._text[start:end] else ""
        first, *rest = self._lines(parent, position, value)
        indent = " " * parent.column
        block = self._newline.join([first + behind, *(f"{indent}{line}" if line else "" for line in rest)])
        return self._text[:start] + block + self._text[line_end:]

    def _head(self, parent: Node, position: int) -> str:
        if parent.keys is None:
            return "-"
        key = parent.keys[position]
        return f"{self._text[key.start : key.end]}:"

    def _lines(self, parent: Node, position: int, value: Any) -> list[str]:
        if parent.keys is None:
            return list(list_lines([value]))
        return list(entry_lines(self._head(parent, position), value))

    def _add(self, parent: Node, key: str | int, value: Any) -> str:
        """A new entry: of a mapping at its end, of a list before the item that has its place."""
        if not parent.values:
            raise _TooLargeError
        lines = list(list_lines([value]) if isinstance(key, int) else entry_lines(f"{flow(key)}:", value))
        indent = " " * parent.column
        block = self._newline.join(f"{indent}{line}" if line else "" for line in lines)
        if isinstance(key, int) and key < len(parent.values):
            start = self._line_start(parent.entry_start(key))
            if self._text[start : parent.entry_start(key)].strip():
                raise _TooLargeError
            return self._text[:start] + block + self._newline + self._text[start:]
        place = self._line_end(parent.end)
        return self._text[:place] + self._newline + block + self._text[place:]

    def _remove(self, parent: Node, position: int | None) -> str:
        if position is None or len(parent.values) == 1:
            raise _TooLargeError
        entry = parent.entry_start(position)
        start = self._line_start(entry)
        if self._text[start:entry].strip():
            if position + 1 == len(parent.values):
                raise _TooLargeError
            # The first key behind a dash: the next one takes its place.
            return self._text[:entry] + self._text[parent.entry_start(position + 1) :]
        end = self._line_end(parent.values[position].end, is_after=True)
        return self._text[:start] + self._text[end:]

    def _line_start(self, place: int) -> int:
        return self._text.rfind("\n", 0, place) + 1

    def _line_end(self, place: int, *, is_after: bool = False) -> int:
        """Where the line of `place` ends: before its line break, or after it."""
        end = self._text.find("\n", place)
        if end < 0:
            return len(self._text)
        if is_after:
            return end + 1
        return end - 1 if self._text[end - 1 : end] == "\r" and end > place else end
