"""Reading YAML, with the library for it.

python -m opsmap_daemon.yaml_reading   < a document   > what it says, as JSON
"""

from __future__ import annotations

import json
import sys
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, ScalarNode, SequenceNode

from opsmap_daemon.yaml_nodes import Entry, Mapping, Node, Scalar, Sequence, YamlError, to_plain

MAX_DEPTH = 30
MAX_NODES = 100_000
"""Aliases can make a small file large, or endless."""

_TAG = "tag:yaml.org,2002:"
_VALUES = {"int", "float", "bool"}


def read(text: str) -> Node | None:
    """The document in a text, None for an empty one. Raises YamlError."""
    yaml = YAML(typ="safe", pure=True)
    try:
        root = yaml.compose(text)
        return None if root is None else _Converter(yaml).convert(root, 0)
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise YamlError(line, f"not valid YAML: {error.problem}") from None
    except YAMLError as error:
        raise YamlError(1, f"not valid YAML: {str(error).splitlines()[0]}") from None


class _Converter:
    def __init__(self, yaml: YAML) -> None:
        self._yaml = yaml
        self._count = 0

    def convert(self, node: Any, depth: int) -> Node:
        line = node.start_mark.line + 1
        self._count += 1
        if depth > MAX_DEPTH or self._count > MAX_NODES:
            raise YamlError(line, f"more than {MAX_DEPTH} levels or {MAX_NODES} values")
        if isinstance(node, SequenceNode):
            return Sequence(line, tuple(self.convert(item, depth + 1) for item in node.value))
        if isinstance(node, MappingNode):
            return Mapping(line, tuple(self._entry(name, value, depth) for name, value in node.value))
        return self._scalar(node, line)

    def _entry(self, name: Any, value: Any, depth: int) -> Entry:
        return Entry(str(name.value), name.start_mark.line + 1, self.convert(value, depth + 1))

    def _scalar(self, node: ScalarNode, line: int) -> Scalar:
        kind = str(node.tag).removeprefix(_TAG)
        text = str(node.value)
        value = self._yaml.constructor.construct_object(node) if kind in _VALUES else None
        return Scalar(line, kind, text, text if kind == "str" else value)


def main() -> None:
    try:
        node = read(sys.stdin.buffer.read().decode("utf-8"))
        answer: dict[str, Any] = {"node": None if node is None else to_plain(node)}
    except YamlError as error:
        answer = {"fault": str(error), "line": error.line}
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    main()
