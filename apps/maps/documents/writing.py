"""Documents that OpsMap writes itself, in one canonical form.

The form is ours and not that of a library, so that the same content gives the same bytes after every upgrade: keys in
the order of the schema, two spaces a level, text plain where no reader could take it for something else and otherwise
as JSON writes it, which is YAML too. Documents that a person wrote are never written anew (see `editing`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from apps.maps.documents.reading import MAX_DOCUMENT_BYTES, SourceFile
from apps.maps.documents.schema import API_VERSION, SCHEMA_ID

_PLAIN = re.compile(r"[A-Za-z_/](?:[A-Za-z0-9_./@+=~-]|:(?=[A-Za-z0-9_/.@-])|[ ,](?=[A-Za-z0-9_./@+=~-]))*")
_WORDS = {"null", "true", "false", "yes", "no", "on", "off", "y", "n"}
"""What some reader of YAML takes for a value that is no text."""

_UNPRINTABLE = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ud800-\udfff\ufffe\uffff]")
_MAX_PLAIN = 200
_MAX_LINE = 110
_SPEC_ORDER = (
    *("type", "description", "host", "hostSelector", "group", "technology", "dependsOn"),
    *("commands", "actions", "healthcheck"),
)

DOCUMENTS_IN_A_FILE = 500
MANY_COMPONENTS = 2_000
"""From here on components share files: nobody looks through a folder of 50,000."""


def map_file(
    name: str, *, description: str = "", groups: list[Any] | None = None, schema_url: str = SCHEMA_ID
) -> SourceFile:
    """The document of kind Map."""
    spec: dict[str, Any] = {}
    if description:
        spec["description"] = description
    if groups:
        spec["groups"] = groups
    return SourceFile("map.yaml", _headed(schema_url) + _document("Map", {"name": name}, spec))


def component_files(
    components: Sequence[tuple[str, Mapping[str, str], Mapping[str, Any]]], *, schema_url: str = SCHEMA_ID
) -> list[SourceFile]:
    """The documents of components, each given as its name, labels and spec: one file each, or of many some hundred."""
    texts = [
        (
            name,
            _document("Component", {"name": name, **({"labels": dict(labels)} if labels else {})}, ordered_spec(spec)),
        )
        for name, labels, spec in components
    ]
    if len(texts) <= MANY_COMPONENTS:
        return [SourceFile(f"components/{name}.yaml", _headed(schema_url) + text) for name, text in texts]
    return [
        SourceFile(f"components/{number:04}.yaml", _headed(schema_url) + "---\n".join(chunk))
        for number, chunk in enumerate(_chunks([text for _, text in texts]), start=1)
    ]


def _chunks(texts: list[str]) -> Iterator[list[str]]:
    chunk: list[str] = []
    size = 0
    for text in texts:
        length = len(text.encode()) + 4
        if chunk and (len(chunk) == DOCUMENTS_IN_A_FILE or size + length > MAX_DOCUMENT_BYTES // 2):
            yield chunk
            chunk, size = [], 0
        chunk.append(text)
        size += length
    if chunk:
        yield chunk


def ordered_spec(spec: Mapping[str, Any]) -> dict[str, Any]:
    """A component's spec with its keys in the order of the canonical form; what says nothing is left out."""
    known = {key: spec[key] for key in _SPEC_ORDER if key in spec}
    rest = {key: value for key, value in spec.items() if key not in known}
    return {key: value for key, value in {**known, **rest}.items() if value not in (None, "", [], {})}


def _headed(schema_url: str) -> str:
    """The line by which editors find the schema."""
    return f"# yaml-language-server: $schema={schema_url}\n"


def _document(kind: str, metadata: dict[str, Any], spec: dict[str, Any]) -> str:
    document = {"apiVersion": API_VERSION, "kind": kind, "metadata": metadata, **({"spec": spec} if spec else {})}
    return to_yaml(document)


def to_yaml(value: Mapping[str, Any]) -> str:
    """A mapping of plain data as YAML in block form. Reading it gives the same data again."""
    return "".join(f"{line}\n" for line in _mapping_lines(value))


def _mapping_lines(mapping: Mapping[str, Any]) -> Iterator[str]:
    for key, value in mapping.items():
        yield from entry_lines(f"{scalar(str(key))}:", value)


def entry_lines(head: str, value: Any) -> Iterator[str]:
    """One entry of a mapping: on its line if it is short, else the value below it."""
    inline = _inline(value, len(head))
    if inline is not None:
        yield f"{head} {inline}"
    elif isinstance(value, str):
        yield f"{head} |{'' if value.endswith(chr(10)) else '-'}"
        yield from (f"  {line}" if line else "" for line in value.removesuffix("\n").split("\n"))
    else:
        yield head
        lines = _mapping_lines(value) if isinstance(value, Mapping) else list_lines(value)
        yield from (f"  {line}" if line else "" for line in lines)


def list_lines(items: list[Any]) -> Iterator[str]:
    for item in items:
        inline = _inline(item, 2)
        if inline is not None:
            yield f"- {inline}"
            continue
        lines = _mapping_lines(item) if isinstance(item, Mapping) else list_lines(item)
        first, *rest = lines
        yield f"- {first}"
        yield from (f"  {line}" if line else "" for line in rest)


def _inline(value: Any, taken: int) -> str | None:
    """The value on one line, or None if it is better read on several."""
    if isinstance(value, str):
        return None if _is_block(value) and taken > 2 else scalar(value)
    if isinstance(value, Mapping):
        if any(isinstance(item, Mapping | list) or _is_block(item) for item in value.values()):
            return None
        text = "{" + ", ".join(f"{scalar(str(key))}: {flow(item)}" for key, item in value.items()) + "}"
        return text if len(text) + taken <= _MAX_LINE / 2 or not value else None
    if isinstance(value, list):
        if any(isinstance(item, Mapping | list) for item in value):
            return None
        text = "[" + ", ".join(flow(item) for item in value) + "]"
        return text if len(text) + taken <= _MAX_LINE or not value else None
    return scalar(value)


def flow(value: Any) -> str:
    """A scalar within brackets, where a comma ends a plain one."""
    text = scalar(value)
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) and "," in text and text[0] != '"' else text


def _is_block(text: Any) -> bool:
    """Whether it is a text of lines that a literal block holds unchanged."""
    if not isinstance(text, str):
        return False
    lines = text.removesuffix("\n").split("\n")
    return (
        len(lines) > 1
        and bool(lines[0])
        and bool(lines[-1])
        and not lines[0].startswith(" ")
        and not _UNPRINTABLE.search(text)
        and all(line == line.rstrip() and not any(character < " " for character in line) for line in lines)
    )


def scalar(value: Any) -> str:
    """One value on one line."""
    if not isinstance(value, str):
        return json.dumps(value)
    if len(value) <= _MAX_PLAIN and _PLAIN.fullmatch(value) and value.lower() not in _WORDS:
        return value
    quoted = json.dumps(value, ensure_ascii=False)
    return _UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", quoted)
