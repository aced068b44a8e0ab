"""Dataclasses to JSON and back, strictly: a wrong shape is an error that names the field, an unknown field is ignored.

Converters are compiled once per type. The registry is closed: the name in `type` selects among the classes a caller
lists, never an import or an attribute.
"""

from __future__ import annotations

import dataclasses
import json
import re
import types
import typing
from collections.abc import Callable
from datetime import UTC, datetime
from enum import Enum
from functools import cache
from typing import Any, TypeVar, Union

from opsmap_protocol import MAX_FRAME_BYTES
from opsmap_protocol.errors import FrameTooLargeError, MalformedMessageError, UnknownMessageError

T = TypeVar("T")
Converter = Callable[[Any, str], Any]

_SURROGATE = re.compile("[\ud800-\udfff]")
_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")
_MAX_DEPTH = 40
"""Nested `all`/`any` checks deeper than this are an attack, not a configuration."""


def encode(message: Any) -> str:
    """The frame of a message. Keys with null stay out: absent and null mean the same.

    Halves of surrogate pairs become U+FFFD: Python reads odd file names with them, and no socket takes them.
    """
    frame = json.dumps(to_plain(message), separators=(",", ":"), ensure_ascii=False)
    return frame if frame.isascii() else _SURROGATE.sub("\ufffd", frame)


def to_plain(value: Any) -> Any:
    """Dataclasses, enums and datetimes as what JSON knows. Datetimes must be aware; they travel as UTC."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        plain: dict[str, Any] = {}
        type_name = getattr(type(value), "type", None)
        if isinstance(type_name, str):
            plain["type"] = type_name
        for field in dataclasses.fields(value):
            item = getattr(value, field.name)
            if item is not None:
                plain[field.name] = to_plain(item)
        return plain
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    if isinstance(value, dict):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(item) for item in value]
    return value


def parse(frame: str | bytes) -> dict[str, Any]:
    """The JSON object of a frame, unchecked but for its size and that it has a `type`.

    Raises:
        FrameTooLargeError: more than `MAX_FRAME_BYTES`.
        MalformedMessageError: not a JSON object with a string `type`, or not all of it text.
    """
    if len(frame) > MAX_FRAME_BYTES:
        raise FrameTooLargeError(f"frame of {len(frame)} bytes, at most {MAX_FRAME_BYTES} are accepted")
    try:
        data = json.loads(frame)
    except (ValueError, RecursionError) as error:
        raise MalformedMessageError(f"not JSON: {error}") from None
    if _SURROGATE_ESCAPE.search(frame if isinstance(frame, str) else frame.decode("latin-1")):
        _check_is_text(data)
    if not isinstance(data, dict) or not isinstance(data.get("type"), str):
        raise MalformedMessageError("a frame is a JSON object with a string 'type'")
    return data


def _check_is_text(data: Any) -> None:
    # Half a pair can be written in JSON, but neither sent on nor stored: it must not get past the door.
    try:
        json.dumps(data, ensure_ascii=False).encode()
    except (UnicodeEncodeError, RecursionError):
        raise MalformedMessageError("a text holds half of a surrogate pair") from None


def decode(frame: str | bytes, among: Any) -> Any:
    """The message in a frame, one of the union `among`.

    Raises:
        UnknownMessageError: a type outside `among`.
        ProtocolError: anything else wrong with it.
    """
    return from_plain(parse(frame), among)


def from_plain(data: Any, among: Any) -> Any:
    """The message in an already parsed object; for callers that looked at the `type` first."""
    members = _members_by_type(among)
    member = members.get(data.get("type"))
    if member is None:
        raise UnknownMessageError(str(data.get("type"))[:80])
    return build(member, data)


def build(cls: Any, data: Any) -> Any:
    """An instance of any protocol type (class or union) from plain data."""
    try:
        return _converter(cls)(data, "")
    except RecursionError:
        raise MalformedMessageError("nested too deeply") from None


@cache
def _members_by_type(among: Any) -> dict[str, Any]:
    members = typing.get_args(among) or (among,)
    return {member.type: member for member in members}


def _fail(path: str, expected: str, found: Any) -> typing.NoReturn:
    shown = json.dumps(found, default=str)
    raise MalformedMessageError(f"{path[:200] or 'message'}: expected {expected}, found {shown[:80]}")


@cache
def _converter(hint: Any) -> Converter:
    origin = typing.get_origin(hint)
    if hint is Any:
        return lambda value, path: value
    if origin in (Union, types.UnionType):
        return _union_converter(hint)
    if origin is list:
        return _list_converter(typing.get_args(hint)[0])
    if origin is dict:
        return _dict_converter(typing.get_args(hint)[1])
    if dataclasses.is_dataclass(hint):
        return _dataclass_converter(hint)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return _enum_converter(hint)
    if hint is datetime:
        return _convert_datetime
    return _SCALARS[hint]


def _convert_datetime(value: Any, path: str) -> datetime:
    if not isinstance(value, str):
        _fail(path, "an ISO 8601 time", value)
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        _fail(path, "an ISO 8601 time", value)
    if moment.tzinfo is None:
        _fail(path, "a time with an offset", value)
    return moment


def _scalar(kind: type, expected: str, also: tuple[type, ...] = ()) -> Converter:
    def convert(value: Any, path: str) -> Any:
        # bool is a subclass of int: true must not pass for a port.
        if isinstance(value, bool) is not (kind is bool) or not isinstance(value, (kind, *also)):
            _fail(path, expected, value)
        return kind(value)

    return convert


_SCALARS: dict[Any, Converter] = {
    str: _scalar(str, "a string"),
    int: _scalar(int, "an integer"),
    float: _scalar(float, "a number", (int,)),
    bool: _scalar(bool, "true or false"),
}


def _union_converter(hint: Any) -> Converter:
    members = [member for member in typing.get_args(hint) if member is not type(None)]
    is_optional = len(members) < len(typing.get_args(hint))
    if len(members) == 1:
        inner = _converter(members[0])
        return lambda value, path: None if value is None else inner(value, path)
    by_type = {member.type: member for member in members}

    def convert(value: Any, path: str) -> Any:
        if value is None and is_optional:
            return None
        if not isinstance(value, dict):
            _fail(path, "an object", value)
        member = by_type.get(value.get("type"))
        if member is None:
            _fail(f"{path}.type".lstrip("."), f"one of {', '.join(sorted(by_type))}", value.get("type"))
        return _converter(member)(value, path)

    return convert


def _list_converter(item_hint: Any) -> Converter:
    def convert(value: Any, path: str) -> Any:
        if not isinstance(value, list):
            _fail(path, "a list", value)
        inner = _converter(item_hint)
        return [inner(item, f"{path}[{index}]") for index, item in enumerate(value)]

    return convert


def _dict_converter(item_hint: Any) -> Converter:
    def convert(value: Any, path: str) -> Any:
        if not isinstance(value, dict):
            _fail(path, "an object", value)
        inner = _converter(item_hint)
        return {key: inner(item, f"{path}.{key}") for key, item in value.items()}

    return convert


def _enum_converter(cls: type[Enum]) -> Converter:
    def convert(value: Any, path: str) -> Any:
        try:
            return cls(value)
        except ValueError:
            _fail(path, f"one of {', '.join(str(member.value) for member in cls)}", value)

    return convert


def _dataclass_converter(cls: Any) -> Converter:
    hints = typing.get_type_hints(cls)
    fields = [(field.name, hints[field.name], _is_required(field)) for field in dataclasses.fields(cls)]

    def convert(value: Any, path: str) -> Any:
        if not isinstance(value, dict):
            _fail(path, "an object", value)
        if path.count(".") + path.count("[") > _MAX_DEPTH:
            _fail(path[:80], "less nesting", "…")
        arguments: dict[str, Any] = {}
        for name, hint, is_required in fields:
            where = f"{path}.{name}".lstrip(".")
            if value.get(name) is not None:
                arguments[name] = _converter(hint)(value[name], where)
            elif is_required:
                _fail(where, "a value", None)
        return cls(**arguments)

    return convert


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
