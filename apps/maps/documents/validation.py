"""Schema errors as faults: file, line, key, what was found and what was expected."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from apps.maps.documents.faults import DocumentFault
from apps.maps.documents.reading import Path, RawDocument
from apps.maps.documents.schema import COMMAND_KINDS, SCHEMA

_VALIDATOR = Draft202012Validator(SCHEMA)

_TYPE_WORDS = {
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "object": "a mapping",
    "null": "nothing",
}


def validate_document(document: RawDocument) -> list[DocumentFault]:
    """Every fault of one document against the schema, in the order of its lines."""
    faults: dict[tuple[str, str], DocumentFault] = {}
    for error in _VALIDATOR.iter_errors(document.data):
        for leaf in _leaves(error):
            for fault in _faults_of(document, leaf):
                faults.setdefault((fault.key, fault.expected), fault)
    for fault in _command_faults(document):
        faults.setdefault((fault.key, fault.expected), fault)
    return sorted(faults.values(), key=lambda fault: (fault.line, fault.column, fault.key))


def _leaves(error: ValidationError) -> Iterator[ValidationError]:
    """`if/then` and `allOf` wrap the errors that matter."""
    if error.context:
        for inner in error.context:
            yield from _leaves(inner)
    else:
        yield error


def _faults_of(document: RawDocument, error: ValidationError) -> Iterator[DocumentFault]:
    path: Path = tuple(error.absolute_path)
    if error.validator == "additionalProperties" and isinstance(error.instance, dict):
        known = sorted(error.schema["properties"])  # type: ignore[index]
        for key in sorted(set(error.instance) - set(known)):
            yield document.fault((*path, key), found="an unknown key", expected=f"one of {', '.join(known)}")
    elif error.validator == "required" and isinstance(error.validator_value, list):
        missing = next(key for key in error.validator_value if repr(key) in error.message)
        yield document.fault(path, found=f"no key {missing!r}", expected=f"the key {missing!r}")
    else:
        yield document.fault(path, found=shown(error.instance), expected=_expectation(error))


def _expectation(error: ValidationError) -> str:
    value: Any = error.validator_value
    match error.validator:
        case "type":
            names = [value] if isinstance(value, str) else value
            return " or ".join(_TYPE_WORDS[name] for name in names)
        case "enum":
            return f"one of {', '.join(map(str, value))}"
        case "const":
            return f"{value!r}"
        case "pattern":
            return str(error.schema.get("description", f"text like {value}"))  # type: ignore[union-attr]
        case "minimum":
            return f"at least {value}"
        case "maximum":
            return f"at most {value}"
        case "minLength" | "minItems" | "minProperties":
            return "something not empty"
        case "maxItems":
            return f"at most {value} items"
        case "maxLength":
            return f"at most {value} characters"
    return error.message


def shown(value: Any) -> str:
    """A value as a person would recognise it, cut short."""
    if value is None:
        return "nothing"
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else f"{text[:77]}…"


def _command_faults(document: RawDocument) -> Iterator[DocumentFault]:
    """What the schema cannot say in one clear sentence: each command is exactly one kind."""
    spec = document.data.get("spec") if isinstance(document.data, dict) else None
    if not isinstance(spec, dict):
        return
    for section in ("commands", "actions"):
        commands = spec.get(section)
        for name, command in commands.items() if isinstance(commands, dict) else ():
            if not isinstance(command, dict):
                continue
            yield from _line_faults(document, ("spec", section, name, "command"), command.get("command"))
            yield from _script_faults(document, ("spec", section, name, "script"), command.get("script"))
            if sum(kind in command for kind in COMMAND_KINDS) != 1:
                found = [kind for kind in COMMAND_KINDS if kind in command]
                yield document.fault(
                    ("spec", section, name),
                    found=" and ".join(found) if found else "none of them",
                    expected=f"exactly one of {', '.join(COMMAND_KINDS)}",
                )
    if "host" in spec and "hostSelector" in spec:
        yield document.fault(("spec", "hostSelector"), found="host and hostSelector", expected="only one of the two")


def _line_faults(document: RawDocument, path: Path, line: Any) -> Iterator[DocumentFault]:
    """A command line must split into a program and its arguments."""
    if not isinstance(line, str) or not line:
        return
    try:
        words = shlex.split(line)
    except ValueError as error:
        yield document.fault(
            path, found=f"{shown(line)} ({str(error).lower()})", expected="a program and its arguments"
        )
        return
    if not words:
        yield document.fault(path, found=shown(line), expected="a program and its arguments")


def _script_faults(document: RawDocument, path: Path, script: Any) -> Iterator[DocumentFault]:
    """A script is a file on the host or its text."""
    if isinstance(script, dict) and ("path" in script) == ("content" in script):
        found = "both" if "path" in script else "neither of them"
        yield document.fault(path, found=found, expected="either path or content")
