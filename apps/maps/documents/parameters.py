"""What a person gives for an action's parameters: checked, and put where it can only ever be a value.

A value becomes one whole argument, what follows the `=` of one option, one environment variable, or one parameter of a
native command. It never becomes part of a text that something else reads again: not of a script, not of a command line,
not of what stands behind `sh -c`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from apps.maps.documents.commands import PreparedCommand, prepare_action
from apps.maps.documents.hints import with_hint
from apps.maps.documents.patterns import MAX_MATCHED_CHARACTERS, matches
from apps.maps.documents.schema.parameters import MAX_VALUE_CHARACTERS

PLACEHOLDER = re.compile(r"(?<![{$])\{([a-z][a-z0-9_]{0,59})\}(?!\})")
"""`{level}`. What a shell (`${level}`) or a template of Go (`{{level}}`) reads is none."""

WHOLE_ARGUMENT = re.compile(r"(--?[A-Za-z0-9][A-Za-z0-9_.-]*=)?\{([a-z][a-z0-9_]{0,59})\}")
"""The forms that an argument with a placeholder may have: `{level}` and `--level={level}`."""

_HOST = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.:-]{0,251}[A-Za-z0-9_])?")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_MASK = "•••"

Value = str | int | float | bool


@dataclass(frozen=True, slots=True)
class ParameterFault:
    """One value that cannot be taken. `found` never shows what is secret."""

    parameter: str
    found: str
    expected: str

    @property
    def message(self) -> str:
        return f"{self.parameter}: found {self.found}, expected {self.expected}"

    def as_json(self) -> dict[str, str]:
        return {
            "parameter": self.parameter,
            "found": self.found,
            "expected": self.expected,
            "message": self.message,
        }


def check_values(
    parameters: Mapping[str, Mapping[str, Any]],
    given: Mapping[str, Any],
    *,
    hosts: Collection[str] | None = None,
) -> tuple[dict[str, Value], list[ParameterFault]]:
    """The values with the defaults filled in, and every fault of them.

    A parameter without a value and without a default has no entry. `hosts` are the hosts that a parameter of type host
    may name, if that is known.
    """
    values: dict[str, Value] = {}
    faults = [
        ParameterFault(name[:80], "an unknown parameter", with_hint(_one_of(parameters), name, parameters))
        for name in given
        if name not in parameters
    ]
    for name, declared in parameters.items():
        value = given.get(name)
        if value is None:
            if "default" in declared:
                values[name] = declared["default"]
            elif declared.get("required", False):
                faults.append(ParameterFault(name, "nothing", "a value"))
            continue
        expected = unmet(declared, value, hosts=hosts)
        if expected:
            faults.append(ParameterFault(name, _found(declared, value), expected))
        else:
            values[name] = value
    return values, faults


def _one_of(parameters: Mapping[str, Any]) -> str:
    return f"one of {', '.join(parameters)}" if parameters else "no parameter: the action has none"


def _found(declared: Mapping[str, Any], value: Any) -> str:
    if declared["type"] == "secret":
        return "a value that is not shown"
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else f"{text[:77]}…"


def unmet(declared: Mapping[str, Any], value: Any, *, hosts: Collection[str] | None = None) -> str | None:
    """What the declaration expects and this value is not, or None if all is well."""
    match declared["type"]:
        case "boolean":
            return None if isinstance(value, bool) else "true or false"
        case "integer" | "number" as kind:
            return _unmet_number(declared, value, kind)
    if not isinstance(value, str):
        return "text"
    if _CONTROL.search(value):
        return "text of one line without control characters"
    match declared["type"]:
        case "enum":
            choices = declared["choices"]
            return None if value in choices else with_hint(f"one of {', '.join(choices)}", value, choices)
        case "host":
            return _unmet_host(value, hosts)
    return _unmet_text(declared, value)


def _unmet_number(declared: Mapping[str, Any], value: Any, kind: str) -> str | None:
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    if kind == "integer" and not is_whole:
        return "a whole number"
    if not is_whole and not (isinstance(value, float) and math.isfinite(value)):
        return "a number"
    if "minimum" in declared and value < declared["minimum"]:
        return f"at least {declared['minimum']}"
    if "maximum" in declared and value > declared["maximum"]:
        return f"at most {declared['maximum']}"
    # Python refuses to write numbers of thousands of digits, and no program reads them.
    return None if abs(value) < 10**300 else "a number of at most 300 digits"


def _unmet_host(value: str, hosts: Collection[str] | None) -> str | None:
    if not _HOST.fullmatch(value):
        return "a hostname or an agent's id"
    if hosts is not None and value not in hosts:
        return with_hint("a host that has an agent", value, hosts)
    return None


def _unmet_text(declared: Mapping[str, Any], value: str) -> str | None:
    most = declared.get("maxLength", MAX_VALUE_CHARACTERS)
    pattern = declared.get("pattern")
    if pattern is not None:
        most = min(most, MAX_MATCHED_CHARACTERS)
    if len(value) > most:
        return f"at most {most} characters"
    if declared.get("required") and not value:
        return "something not empty"
    return f"text like {pattern}" if pattern is not None and not matches(pattern, value) else None


def build_action(
    component_spec: dict[str, Any],
    name: str,
    given: Mapping[str, Any],
    *,
    hosts: Collection[str] | None = None,
) -> tuple[PreparedCommand | None, list[ParameterFault]]:
    """The action `name` of a validated component spec with these values, ready to be queued, or every fault.

    An argument, variable or parameter whose value was not given and has no default is left out.
    """
    declared = component_spec.get("actions", {}).get(name)
    if declared is None:
        return None, [ParameterFault("", f"no action {name[:80]!r}", "an action of this component")]
    parameters = declared.get("parameters", {})
    values, faults = check_values(parameters, given, hosts=hosts)
    filled = fill(declared, values)
    faults += _option_faults(declared, values)
    if faults:
        return None, faults
    return prepare_action(component_spec, name, filled, shown=fill(declared, _masked(parameters, values))), []


def fill(action: Mapping[str, Any], values: Mapping[str, Value]) -> dict[str, Any]:
    """The action with each placeholder replaced by its value; what has none given is left out."""
    filled = {key: value for key, value in action.items() if key != "parameters"}
    parameters = action.get("parameters", {})
    if not parameters:
        return filled
    if "args" in action:
        arguments = (_argument(item, parameters, values) for item in action["args"])
        filled["args"] = [text for text in arguments if text is not None]
    if "env" in action:
        pairs = {name: _argument(text, parameters, values) for name, text in action["env"].items()}
        filled["env"] = {name: text for name, text in pairs.items() if text is not None}
    if "native" in action:
        native = action["native"]
        filled["native"] = {**native, "params": _filled_params(native.get("params", {}), parameters, values)}
    return filled


def _argument(text: str, parameters: Mapping[str, Any], values: Mapping[str, Value]) -> str | None:
    placed = WHOLE_ARGUMENT.fullmatch(text)
    if placed is None or placed[2] not in parameters:
        return text
    return None if placed[2] not in values else f"{placed[1] or ''}{as_text(values[placed[2]])}"


def _filled_params(params: Any, parameters: Mapping[str, Any], values: Mapping[str, Value]) -> dict[str, Any]:
    """A native command takes typed values, so a number stays one."""
    filled = {}
    for name, value in params.items():
        placed = WHOLE_ARGUMENT.fullmatch(value) if isinstance(value, str) else None
        if placed is None or placed[1] or placed[2] not in parameters:
            filled[name] = value
        elif placed[2] in values:
            filled[name] = values[placed[2]]
    return filled


def as_text(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _option_faults(action: Mapping[str, Any], values: Mapping[str, Value]) -> Iterator[ParameterFault]:
    """Text that begins with '-' would be an option of the program, unless `--` or the document says otherwise."""
    for text in action.get("args", []):
        if text == "--":
            return
        placed = WHOLE_ARGUMENT.fullmatch(text)
        if placed is None or placed[1] or placed[2] not in values:
            continue
        declared = action.get("parameters", {}).get(placed[2], {})
        value = values[placed[2]]
        is_free = declared.get("type") in {"string", "host"} and "pattern" not in declared
        if is_free and isinstance(value, str) and value.startswith("-"):
            yield ParameterFault(placed[2], _found(declared, value), "text that does not begin with '-'")


def _masked(parameters: Mapping[str, Any], values: Mapping[str, Value]) -> dict[str, Value]:
    return {name: _MASK if parameters[name]["type"] == "secret" else value for name, value in values.items()}
