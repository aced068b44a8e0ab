"""Variables in a Compose file: `$NAME`, `${NAME}`, `${NAME:-default}`, `${NAME:?message}`, `${NAME:+instead}`, `$$`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OPERATOR = re.compile(r":?[-?+]")
_MAX_DEPTH = 20
_MAX_CHARACTERS = 20_000


@dataclass(slots=True)
class Interpolation:
    """What became of the variables of one text, for the report."""

    text: str = ""
    defaults: dict[str, str] = field(default_factory=dict)
    """Variables that are not set, with the default that was used."""
    missing: list[str] = field(default_factory=list)
    """Variables that are not set and have no default: nothing stands in their place."""


def interpolate(text: str, environment: Mapping[str, str]) -> Interpolation:
    """The text as Docker Compose would see it. What is no variable stays as it is written."""
    result = Interpolation()
    result.text = _replaced(text[:_MAX_CHARACTERS], environment, result, 0)
    return result


def _replaced(text: str, environment: Mapping[str, str], result: Interpolation, depth: int) -> str:
    parts: list[str] = []
    position = 0
    closing = _closing_braces(text)
    while (dollar := text.find("$", position)) >= 0:
        parts.append(text[position:dollar])
        following = text[dollar + 1 : dollar + 2]
        end = closing.get(dollar + 1)
        name = _NAME.match(text, dollar + 1)
        if following == "$":
            parts.append("$")
            position = dollar + 2
        elif end is not None and depth < _MAX_DEPTH:
            parts.append(_braced(text[dollar + 2 : end], environment, result, depth))
            position = end + 1
        elif name:
            parts.append(_value(name[0], environment, result))
            position = name.end()
        else:
            parts.append("$")
            position = dollar + 1
    return "".join([*parts, text[position:]])


def _closing_braces(text: str) -> dict[int, int]:
    """Where each brace is closed, found in one pass: a text of opening braces alone must not cost its square."""
    closing: dict[int, int] = {}
    opened: list[int] = []
    for position, character in enumerate(text):
        if character == "{":
            opened.append(position)
        elif character == "}" and opened:
            closing[opened.pop()] = position
    return closing


def _value(name: str, environment: Mapping[str, str], result: Interpolation) -> str:
    if name not in environment:
        result.missing.append(name)
    return environment.get(name, "")


def _braced(inner: str, environment: Mapping[str, str], result: Interpolation, depth: int) -> str:
    name = _NAME.match(inner)
    if name is None:
        return ""
    rest = inner[name.end() :]
    operator = _OPERATOR.match(rest)
    if operator is None:
        return _value(name[0], environment, result)
    given = environment.get(name[0])
    is_set = bool(given) if operator[0].startswith(":") else given is not None
    alternative = rest[operator.end() :]
    match operator[0][-1]:
        case "+":
            return _replaced(alternative, environment, result, depth + 1) if is_set else ""
        case "-" if not is_set:
            default = _replaced(alternative, environment, result, depth + 1)
            result.defaults[name[0]] = default
            return default
        case "?" if not is_set:
            result.missing.append(name[0])
            return ""
    return given or ""


def read_environment(text: str) -> dict[str, str]:
    """The variables of a `.env` file: `NAME=value` a line, with or without quotes; what is none is passed over."""
    variables = {}
    for line in text.splitlines()[:10_000]:
        name, equals, value = line.strip().removeprefix("export ").partition("=")
        if not equals or not _NAME.fullmatch(name.strip()):
            continue
        value = value.strip()
        if len(value) >= 2 and value[0] == value[-1] and value[0] in "'\"":
            value = value[1:-1]
        else:
            value = re.split(r"\s#", value, maxsplit=1)[0].strip()
        variables[name.strip()] = value
    return variables
