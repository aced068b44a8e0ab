"""From bytes to plain data with positions: no tags, no aliases, bounded size and depth."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml
from yaml.error import MarkedYAMLError, YAMLError
from yaml.events import (
    CollectionEndEvent,
    CollectionStartEvent,
    DocumentEndEvent,
    DocumentStartEvent,
    Event,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
)
from yaml.reader import ReaderError

from apps.maps.documents.faults import DocumentFault

MAX_DOCUMENT_BYTES = 1024 * 1024
MAX_DEPTH = 50

Path = tuple[str | int, ...]

# What YAML can write with an escape, and neither PostgreSQL nor UTF-8 can hold.
_UNSTORABLE = re.compile("[\\x00\\ud800-\\udfff]")

_HALF = re.compile("[\ud800-\udfff]")
BYTE_ORDER_MARK = "\ufeff"

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The parser in C where PyYAML has it, some twenty times as fast; only its events are used, which are the same."""

_CONSTANTS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INTEGER = re.compile(r"[-+]?(?:0b[01_]+|0o[0-7_]+|0x[0-9a-fA-F_]+|[0-9][0-9_]*)")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9][0-9_]*|[0-9][0-9_]*(?:\.[0-9_]*)?)(?:[eE][-+]?[0-9]+)?")


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


def shown(value: Any) -> str:
    """A value as a person would recognise it, cut short."""
    if value is None:
        return "nothing"
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else f"{text[:77]}…"


def key_of(path: Path) -> str:
    """`("spec", "dependsOn", 0)` as `spec.dependsOn[0]`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


class RefusedError(Exception):
    """`place` is the line and column, from 1, where a person should look."""

    def __init__(self, place: tuple[int, int], found: str, expected: str) -> None:
        super().__init__(found)
        self.place, self.found, self.expected = place, found, expected

    def fault(self, file: str) -> DocumentFault:
        return DocumentFault(file, *self.place, "", self.found, self.expected)


def read_documents(source: SourceFile) -> tuple[list[RawDocument], list[DocumentFault]]:
    """All documents of one file (`---` separates them), or the one fault that stops reading it."""
    documents: list[RawDocument] = []
    try:
        for event in checked_events(source.content):
            if isinstance(event, DocumentStartEvent):
                builder = _Builder(RawDocument(source.path, None))
            elif isinstance(event, DocumentEndEvent):
                documents.append(builder.document)
            elif isinstance(event, NodeEvent | CollectionEndEvent):
                builder.take(event)
    except RefusedError as error:
        return [], [error.fault(source.path)]
    return documents, []


def checked_events(text: str, *, has_aliases: bool = False, tags: frozenset[str] = frozenset()) -> Iterator[Event]:
    """The events of a YAML text of bounded size and depth; nothing is expanded, and what is refused is refused early:
    an anchor before anything could use it, deep nesting before it costs.

    Raises:
        RefusedError: it is no YAML, too much, or has what documents must not have.
    """
    size = len(text.encode(errors="surrogatepass"))
    if size > MAX_DOCUMENT_BYTES:
        raise RefusedError((1, 1), f"{size} bytes", f"at most {MAX_DOCUMENT_BYTES} bytes")
    text = text.removeprefix(BYTE_ORDER_MARK)
    depth = 0
    try:
        for event in yaml.parse(_encodable(text), Loader=_LOADER):
            if isinstance(event, CollectionEndEvent):
                depth -= 1
            elif isinstance(event, NodeEvent):
                _check_event(event, depth, has_aliases=has_aliases, tags=tags)
                depth += isinstance(event, CollectionStartEvent)
            yield event
    except YAMLError as error:
        raise _as_refusal(error, text) from None


def _encodable(text: str) -> str:
    """The text, if it can be written as bytes: the parser takes half of a character for an error of the program."""
    half = _HALF.search(text)
    if half:
        raise RefusedError(_place_in(text, half.start()), "half of a character", "text in UTF-8")
    return text


def _place_in(text: str, position: int) -> tuple[int, int]:
    return text.count("\n", 0, position) + 1, position - text.rfind("\n", 0, position)


def _check_event(event: NodeEvent, depth: int, *, has_aliases: bool, tags: frozenset[str]) -> None:
    if event.anchor is not None and not has_aliases:
        raise RefusedError(place_of(event), "an anchor or alias", "every value written out")
    if isinstance(event, ScalarEvent | CollectionStartEvent) and event.tag is not None and str(event.tag) not in tags:
        raise RefusedError(place_of(event), f"the tag {event.tag}", "a value without a tag")
    if depth > MAX_DEPTH:
        raise RefusedError(place_of(event), "deeper nesting", f"at most {MAX_DEPTH} levels")


def _as_refusal(error: YAMLError, text: str) -> RefusedError:
    if isinstance(error, MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        if mark is None:
            return RefusedError((1, 1), error.problem or "something that is not YAML", "valid YAML")
        return RefusedError((mark.line + 1, mark.column + 1), *_in_words(error.problem or "", text, mark.index))
    if isinstance(error, ReaderError):
        place = _place_in(text, error.position)
        if text[error.position : error.position + 1] == "\0":
            # Every other byte of UTF-16 that was read as something else.
            return RefusedError(place, "a NUL character", "text in UTF-8")
        return RefusedError(place, str(error).splitlines()[0], "valid YAML")
    return RefusedError((1, 1), str(error).splitlines()[0], "valid YAML")


def _in_words(problem: str, text: str, position: int) -> tuple[str, str]:
    """What the parser found and expected: it says the one or the other, in its own terms."""
    here = repr(text[position]) if position < len(text) else "the end of the file"
    if here == repr("\t") or "tab character" in problem:
        return "a tab", "spaces where lines are indented"
    if problem.startswith("did not find expected"):
        return here, problem.removeprefix("did not find expected").strip()
    if problem.endswith("cannot start any token"):
        return f"{here}, which begins no value", "valid YAML"
    if problem.startswith("mapping values are not allowed"):
        return f"{here} behind a value", "one key and its value, or quotes around the text"
    return problem.removeprefix("found ").replace("unexpected end of stream", "the end of the file"), "valid YAML"


class _Builder:
    """One document out of its events: `_open` are the collections that the next value is inside of."""

    def __init__(self, document: RawDocument) -> None:
        self.document = document
        self._open: list[tuple[Path, dict[str, Any] | list[Any]]] = []
        self._key: str | None = None
        """The key of the innermost mapping whose value comes next."""

    def take(self, event: Event) -> None:
        if isinstance(event, CollectionEndEvent):
            self._open.pop()
        elif self._open and isinstance(self._open[-1][1], dict) and self._key is None:
            self._take_key(event)
        else:
            self._take_value(event)

    def _take_key(self, event: Event) -> None:
        path, mapping = self._open[-1]
        if not isinstance(event, ScalarEvent):
            raise RefusedError(place_of(event), "a key that is not text", "a text key")
        key = text_of(event)
        if key in mapping:
            raise RefusedError(place_of(event), f"the key {key!r} twice", "each key once")
        # A fault about a key's value points at the key: that is where a person looks.
        self.document.positions[(*path, key)] = place_of(event)
        self._key = key

    def _take_value(self, event: Event) -> None:
        value: Any = scalar_of(event) if isinstance(event, ScalarEvent) else _empty_for(event)
        path = self._place(value)
        self.document.positions.setdefault(path, place_of(event))
        if isinstance(event, CollectionStartEvent):
            self._open.append((path, value))

    def _place(self, value: Any) -> Path:
        """Put a value where it belongs. Its path."""
        if not self._open:
            self.document.data = value
            return ()
        path, parent = self._open[-1]
        if isinstance(parent, list):
            parent.append(value)
            return (*path, len(parent) - 1)
        assert self._key is not None
        key, self._key = self._key, None
        parent[key] = value
        return (*path, key)


def _empty_for(event: Event) -> dict[str, Any] | list[Any]:
    return {} if isinstance(event, MappingStartEvent) else []


def place_of(event: Event) -> tuple[int, int]:
    """Line and column of an event's beginning, both from 1."""
    mark: Any = event.start_mark
    return mark.line + 1, mark.column + 1


def text_of(event: ScalarEvent) -> str:
    text = str(event.value)
    if _UNSTORABLE.search(text):
        raise RefusedError(place_of(event), "a character that cannot be stored", "text without NUL and surrogates")
    return text


def scalar_of(event: ScalarEvent) -> Any:
    """A scalar by YAML 1.2's core schema; what is quoted or looks like nothing else is text."""
    text = text_of(event)
    return plain_value(text) if event.implicit[0] else text


def plain_value(text: str) -> Any:
    """What a plain scalar means."""
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if text[0] not in "-+.0123456789":
        return text
    if _INTEGER.fullmatch(text):
        return _number(int, text)
    return _number(float, text) if _FLOAT.fullmatch(text) else text


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
