"""Dataclasses to JSON and back, strictly: a wrong shape is an error that names the field, an unknown field is ignored.

Converters are compiled once per type. The registry is closed: the name in `type` selects among the classes a caller
lists, never an import or an attribute.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import types
import typing
from collections.abc import Callable
from datetime import UTC, datetime
from enum import Enum
from functools import cache
from typing import Any, TypeVar, Union

from opsmap_protocol import MAX_FRAME_BYTES, MAX_NESTING
from opsmap_protocol.errors import FrameTooLargeError, MalformedMessageError, UnknownMessageError

T = TypeVar("T")
Converter = Callable[[Any, str], Any]

_SURROGATE = re.compile("[\ud800-\udfff]")
_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")
_MAX_DEPTH = 40
"""Nested `all`/`any` checks deeper than this are an attack, not a configuration."""

_MAX_INTEGER_DIGITS = 40
"""Room for any counter of any kernel; reading thousands of digits costs time that grows with their square."""

_SHOWN_KEY = 200
_INT64 = range(-(2**63), 2**63)
_EARLIEST, _LATEST = datetime(1970, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC)
"""Times of a frame are between these, so that nobody's arithmetic or database overflows with them."""

_write = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode
_write_sorted = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False, sort_keys=True).encode


def encode(message: Any) -> str:
    """The frame of a message. Keys with null stay out: absent and null mean the same."""
    return _write(to_plain(message))


def canonical(data: dict[str, Any]) -> str:
    """The one way to write an object: sorted keys, no spaces, no escapes beyond what JSON demands.

    What is signed is this form of what was *understood*, so a signature holds however the frame was written, and
    whatever its reader makes of it is what was signed. `data` comes from `parse` or `to_plain`.
    """
    return _write_sorted(data)


def to_plain(value: Any) -> Any:
    """Dataclasses, enums and datetimes as what JSON knows. Datetimes must be aware; they travel as UTC.

    What JSON does not know and a host may say all the same becomes what it does: half a surrogate pair, as Python
    reads odd file names, U+FFFD, and a number that is none null.
    """
    # Most values are one of these: asking for the exact type is the quickest question.
    kind = type(value)
    if kind is int or kind is bool or (kind is str and value.isascii()):
        return value
    # Before str and float, which some enums are.
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, str):
        return value if value.isascii() else _SURROGATE.sub("\ufffd", value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {to_plain(str(key)): to_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(item) for item in value]
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _dataclass_to_plain(value)
    return value


def _dataclass_to_plain(value: Any) -> dict[str, Any]:
    plain: dict[str, Any] = {}
    kind: Any = type(value)
    type_name = getattr(kind, "type", None)
    if isinstance(type_name, str):
        plain["type"] = type_name
    for name in _names_of_fields(kind):
        item = getattr(value, name)
        if item is not None:
            plain[name] = to_plain(item)
    return plain


@cache
def _names_of_fields(kind: type[Any]) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(kind))


def parse(frame: str | bytes, max_nesting: int = MAX_NESTING) -> dict[str, Any]:
    """The JSON object of a frame, unchecked but for what no later step could stand, and that it has a `type`.

    Stricter than JSON where its readers disagree or choke: no name twice in an object, no NaN or Infinity, no number
    that only they could hold, integers of at most 40 digits, no half surrogate pair, no endless nesting.

    Raises:
        FrameTooLargeError: more than `MAX_FRAME_BYTES`.
        MalformedMessageError: not such a JSON object with a string `type`.
    """
    if len(frame) > MAX_FRAME_BYTES:
        raise FrameTooLargeError(f"frame of {len(frame)} bytes, at most {MAX_FRAME_BYTES} are accepted")
    try:
        text = frame if isinstance(frame, str) else frame.decode()
        data = _decoder.decode(text)
    except (ValueError, RecursionError) as error:
        raise MalformedMessageError(f"not JSON: {error}") from None
    if not isinstance(data, dict) or not isinstance(data.get("type"), str):
        raise MalformedMessageError("a frame is a JSON object with a string 'type'")
    # There cannot be more levels than brackets, and most frames have few.
    if text.count("{") + text.count("[") > max_nesting:
        _check_nesting(data, max_nesting)
    _check_is_text(text, data)
    return data


def _read_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) != len(pairs):
        raise MalformedMessageError("an object has a name twice")
    return data


def _read_integer(digits: str) -> int:
    if len(digits) > _MAX_INTEGER_DIGITS:
        raise MalformedMessageError(f"an integer of more than {_MAX_INTEGER_DIGITS} digits")
    return int(digits)


def _read_float(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise MalformedMessageError(f"{digits[:40]} is beyond what a number can hold")
    return number


def _refuse_constant(name: str) -> typing.NoReturn:
    raise MalformedMessageError(f"{name} is not JSON")


_decoder = json.JSONDecoder(
    object_pairs_hook=_read_object,
    parse_int=_read_integer,
    parse_float=_read_float,
    parse_constant=_refuse_constant,
)


def _check_nesting(data: Any, max_nesting: int) -> None:
    level = [data]
    for _ in range(max_nesting):
        level = [
            child
            for parent in level
            for child in (parent.values() if type(parent) is dict else parent)
            if type(child) is dict or type(child) is list
        ]
        if not level:
            return
    raise MalformedMessageError(f"nested too deeply: at most {max_nesting} levels are accepted")


def _check_is_text(text: str, data: dict[str, Any]) -> None:
    # Half a pair can be written in JSON, but neither sent on nor stored: it must not get past the door.
    if not _SURROGATE_ESCAPE.search(text) and (text.isascii() or not _SURROGATE.search(text)):
        return
    if _SURROGATE.search(_write(data)):
        raise MalformedMessageError("a text holds half of a surrogate pair")


def decode(frame: str | bytes, among: Any) -> Any:
    """The message in a frame, one of the union `among`.

    Raises:
        UnknownMessageError: a type outside `among`.
        ProtocolError: anything else wrong with it.
    """
    return from_plain(parse(frame), among)


def from_plain(data: Any, among: Any) -> Any:
    """The message in an already parsed object; for callers that looked at the `type` first."""
    kind = data.get("type")
    member = _members_by_type(among).get(kind) if isinstance(kind, str) else None
    if member is None:
        raise UnknownMessageError(str(kind)[:80])
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
        if moment.tzinfo is None:
            _fail(path, "a time with an offset", value)
        moment = moment.astimezone(UTC)
    except ValueError:
        _fail(path, "an ISO 8601 time", value)
    except OverflowError:
        _fail(path, "a time of our era", value)
    if not _EARLIEST <= moment < _LATEST:
        _fail(path, "a time of our era", value)
    return moment


def _scalar(kind: type, expected: str, also: tuple[type, ...] = ()) -> Converter:
    def convert(value: Any, path: str) -> Any:
        # bool is a subclass of int: true must not pass for a port.
        if isinstance(value, bool) is not (kind is bool) or not isinstance(value, (kind, *also)):
            _fail(path, expected, value)
        if type(value) is int and value not in _INT64:
            _fail(path, f"{expected} of 64 bits", value)
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
        kind = value.get("type")
        member = by_type.get(kind) if isinstance(kind, str) else None
        if member is None:
            _fail(f"{path}.type".lstrip("."), f"one of {', '.join(sorted(by_type))}", kind)
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
        # Cut, because whatever is below repeats it: a long key over many items would be copied for each.
        return {key: inner(item, f"{path}.{key[:_SHOWN_KEY]}") for key, item in value.items()}

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
