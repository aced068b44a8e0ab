"""What a YAML file says, with the lines where it says it: all that the configuration needs of a YAML library.

The library takes 2 MB, and a daemon reads its configuration once: `read_apart` has a child process read it.
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from typing import Any

from opsmap_trust.children import child_command

_TIMEOUT_S = 30.0


class YamlError(Exception):
    """Not YAML, or more than a configuration may hold."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(reason)
        self.line = line


@dataclass(frozen=True, slots=True)
class Scalar:
    """`kind` by YAML's rules: str, int, float, bool, null, timestamp. `value` is None for all but the first four."""

    line: int
    kind: str
    text: str
    value: str | float | bool | None


@dataclass(frozen=True, slots=True)
class Sequence:
    line: int
    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """A key, where it stands, and what it has."""

    name: str
    line: int
    node: Node


@dataclass(frozen=True, slots=True)
class Mapping:
    line: int
    entries: tuple[Entry, ...]


Node = Scalar | Sequence | Mapping


def read_apart(text: str) -> Node | None:
    """The document in a text, None for an empty one, read by a child process. Raises OSError or YamlError."""
    try:
        child = subprocess.run(
            child_command("opsmap_daemon.yaml_reading"),
            input=text.encode("utf-8"),
            capture_output=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise YamlError(1, f"it could not be read within {_TIMEOUT_S:g} s") from None
    if child.returncode != 0:
        last = child.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
        raise YamlError(1, f"it could not be read: {last[0] if last else f'exit code {child.returncode}'}")
    answer = json.loads(child.stdout)
    if "fault" in answer:
        raise YamlError(answer["line"], answer["fault"])
    return None if answer["node"] is None else _from_plain(answer["node"])


def to_plain(node: Node) -> list[Any]:
    match node:
        case Scalar():
            return ["scalar", node.line, node.kind, node.text, node.value]
        case Sequence():
            return ["sequence", node.line, [to_plain(item) for item in node.items]]
    return ["mapping", node.line, [[entry.name, entry.line, to_plain(entry.node)] for entry in node.entries]]


def _from_plain(plain: list[Any]) -> Node:
    shape, line, *rest = plain
    match shape:
        case "scalar":
            return Scalar(line, *rest)
        case "sequence":
            return Sequence(line, tuple(_from_plain(item) for item in rest[0]))
    return Mapping(line, tuple(Entry(name, at, _from_plain(value)) for name, at, value in rest[0]))
