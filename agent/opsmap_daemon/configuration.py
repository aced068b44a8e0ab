"""YAML files into nested frozen dataclasses, with every fault told at once and where it stands.

A configuration is described by dataclasses whose field names are the keys of the file; the types and the
rules given with `setting()` are all that is checked. Unknown keys are faults, because a misspelled limit is a
limit that is off. An empty value (`key:`) means the same as an absent key.
"""

from __future__ import annotations

import dataclasses
import difflib
import ipaddress
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeVar, Union
from urllib.parse import urlsplit

from opsmap_daemon.yaml_nodes import Entry, Mapping, Node, Scalar, Sequence, YamlError, read_apart

T = TypeVar("T")
Rule = Callable[[Any], str | None]
"""Looks at a value of the right type; returns what was expected instead, or None when it is fine."""

RULE = "rule"
"""The key of a rule in the metadata of a dataclass field; `setting()` puts it there."""
_INVALID = object()
_SCALARS: dict[Any, tuple[str, tuple[str, ...]]] = {
    str: ("a string", ("str",)),
    Path: ("a path", ("str",)),
    int: ("an integer", ("int",)),
    float: ("a number", ("float", "int")),
    bool: ("true or false", ("bool",)),
}


class ConfigurationError(Exception):
    """What is wrong with a configuration, one line a fault."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


def load(path: Path, cls: type[T], *, apart: bool = False) -> T:
    """The configuration in a file. With `apart` a child process reads it, for daemons that shall stay small.

    Relative paths in fields of type `Path` are taken from the folder of the file. A dataclass may check rules
    between its keys in `__post_init__` and raise `ValueError` with a message for people.

    Raises:
        ConfigurationError: with every fault, as "agent.yaml:12: network.bind_port: expected an integer, found
        'x'".
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ConfigurationError([f"{path}: cannot be read: {reason}"]) from None
    reader = _Reader(path)
    value = reader.read_root(text, cls, apart=apart)
    if reader.faults:
        raise ConfigurationError([line for _, line in sorted(reader.faults, key=lambda fault: fault[0])])
    return typing.cast(T, value)


def setting(
    default: Any = dataclasses.MISSING,
    *,
    default_factory: Any = dataclasses.MISSING,
    rule: Rule | None = None,
) -> Any:
    """A dataclass field with a rule. For a list the rule sees each item; an absent value is not looked at."""
    metadata = {RULE: rule}
    if default_factory is not dataclasses.MISSING:
        return dataclasses.field(default_factory=default_factory, metadata=metadata)
    if default is not dataclasses.MISSING:
        return dataclasses.field(default=default, metadata=metadata)
    return dataclasses.field(metadata=metadata)


# Rules


def at_least(minimum: float) -> Rule:
    return lambda value: None if value >= minimum else f"at least {minimum}"


def between(minimum: float, maximum: float) -> Rule:
    return lambda value: None if minimum <= value <= maximum else f"from {minimum} to {maximum}"


def not_empty(value: str) -> str | None:
    return None if value.strip() else "a text that is not empty"


def websocket_url(value: str) -> str | None:
    """Only wss: every link is mutual TLS."""
    try:
        parts = urlsplit(value)
        is_fine = parts.scheme == "wss" and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is not a number
        is_fine = False
    is_fine = is_fine and not (parts.username or parts.query or parts.fragment)
    return None if is_fine else "a URL like wss://host:port"


def listen_address(value: str) -> str | None:
    try:
        split_address(value)
    except ValueError:
        return "an address like 127.0.0.1:8443"
    return None


def loopback_address(value: str) -> str | None:
    """For what anybody may ask who can reach it: only this machine may."""
    expected = "an address of this machine alone, like 127.0.0.1:9091"
    try:
        host, _ = split_address(value)
        return None if host == "localhost" or ipaddress.ip_address(host).is_loopback else expected
    except ValueError:
        return expected


def split_address(value: str) -> tuple[str, int]:
    """Host and port of "host:port" or "[ipv6]:port". Raises ValueError."""
    host, colon, port = value.rpartition(":")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"not host:port: {value!r}")
    if host.startswith("[") and host.endswith("]"):
        return host[1:-1], int(port)
    if ":" in host:
        raise ValueError(f"an IPv6 address is written in brackets: {value!r}")
    return host, int(port)


class _Reader:
    """Walks the node tree of one file beside the type that describes it, and collects the faults."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.faults: list[tuple[int, str]] = []

    def read_root(self, text: str, cls: type[Any], *, apart: bool) -> Any:
        try:
            node = read_apart(text) if apart else _read_here(text)
        except (OSError, YamlError) as error:
            return self._fault(error.line if isinstance(error, YamlError) else 1, "", str(error))
        return self._read_dataclass(cls, node, 1, "")

    def _fault(self, line: int, key: str, text: str) -> Any:
        where = f"{self._path.name}:{line}: "
        self.faults.append((line, f"{where}{key}: {text}" if key else where + text))
        return _INVALID

    def _read(self, hint: Any, node: Node | None, line: int, key: str, rule: Rule | None = None) -> Any:
        origin = typing.get_origin(hint)
        if origin in (Union, types.UnionType):
            inner = next(member for member in typing.get_args(hint) if member is not type(None))
            return self._read(inner, node, line, key, rule)
        if origin is list:
            return self._read_list(typing.get_args(hint)[0], node, line, key, rule)
        if origin is dict:
            return self._read_dict(typing.get_args(hint)[1], node, line, key, rule)
        if origin is Literal:
            return self._read_literal(typing.get_args(hint), node, line, key)
        if dataclasses.is_dataclass(hint):
            return self._read_dataclass(hint, node, line, key)
        value = self._read_scalar(hint, node, line, key)
        expected = rule(value) if rule is not None and value is not _INVALID else None
        return self._expected(expected, node, line, key) if expected else value

    def _read_scalar(self, hint: Any, node: Node | None, line: int, key: str) -> Any:
        expected, tags = _SCALARS[hint]
        if not isinstance(node, Scalar) or node.kind not in tags:
            return self._expected(expected, node, line, key)
        if hint is Path:
            return (self._path.parent / node.text).absolute()
        return hint(node.value)

    def _read_literal(self, choices: tuple[Any, ...], node: Node | None, line: int, key: str) -> Any:
        # The text decides, so that 1.2 without quotes is the version and not a number.
        for choice in choices:
            if isinstance(node, Scalar) and node.text == str(choice):
                return choice
        return self._expected("one of " + ", ".join(str(choice) for choice in choices), node, line, key)

    def _read_list(self, item: Any, node: Node | None, line: int, key: str, rule: Rule | None) -> Any:
        if not isinstance(node, Sequence):
            return self._expected("a list", node, line, key)
        return [self._read(item, child, child.line, f"{key}[{index}]", rule) for index, child in enumerate(node.items)]

    def _read_dict(self, item: Any, node: Node | None, line: int, key: str, rule: Rule | None) -> Any:
        return {
            name: self._read(item, entry.node, entry.line, f"{key}.{name}", rule)
            for name, entry in self._entries(node, line, key).items()
        }

    def _read_dataclass(self, cls: Any, node: Node | None, line: int, key: str) -> Any:
        entries = self._entries(node, line, key)
        faults_before = len(self.faults)
        hints = typing.get_type_hints(cls)
        fields = {field.name: field for field in dataclasses.fields(cls)}
        self._report_unknown(entries, fields, key)
        values: dict[str, Any] = {}
        for name, field in fields.items():
            entry = entries.get(name)
            child, child_line = (None, line) if entry is None else (entry.node, entry.line)
            path = f"{key}.{name}".lstrip(".")
            if child is not None and not _is_null(child):
                values[name] = self._read(hints[name], child, child_line, path, field.metadata.get(RULE))
            elif _is_required(field):
                # A section that is missing is read as an empty one: its own required keys are named one by
                # one.
                is_section = dataclasses.is_dataclass(hints[name])
                values[name] = (
                    self._read_dataclass(hints[name], None, child_line, path)
                    if is_section
                    else self._fault(child_line, path, "is required")
                )
        if len(self.faults) > faults_before:
            return _INVALID
        try:
            return cls(**values)
        except ValueError as error:
            return self._fault(line, key, str(error))

    def _report_unknown(self, entries: dict[str, Entry], fields: dict[str, Any], key: str) -> None:
        for name, entry in entries.items():
            if name not in fields:
                near = difflib.get_close_matches(name, fields, n=1)
                hint = f" (did you mean {near[0]!r}?)" if near else ""
                self._fault(entry.line, f"{key}.{name}".lstrip("."), f"unknown key{hint}")

    def _entries(self, node: Node | None, line: int, key: str) -> dict[str, Entry]:
        """The children of a mapping with the lines of their keys; nothing for a missing or wrong node."""
        if node is None or _is_null(node):
            return {}
        if not isinstance(node, Mapping):
            self._expected("keys with values", node, line, key)
            return {}
        entries: dict[str, Entry] = {}
        for entry in node.entries:
            if entry.name in entries:
                self._fault(entry.line, f"{key}.{entry.name}".lstrip("."), "given twice")
            entries[entry.name] = entry
        return entries

    def _expected(self, expected: str, node: Node | None, line: int, key: str) -> Any:
        if isinstance(node, Scalar):
            found = repr(node.text[:80]) if node.text != "" else "nothing"
        else:
            found = "a list" if isinstance(node, Sequence) else "keys with values"
        return self._fault(line, key, f"expected {expected}, found {found}")


def _read_here(text: str) -> Node | None:
    from opsmap_daemon.yaml_reading import read

    return read(text)


def _is_null(node: Node) -> bool:
    return isinstance(node, Scalar) and node.kind == "null"


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
