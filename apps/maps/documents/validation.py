"""Schema errors as faults: file, line, key, what was found and what was expected."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from apps.maps.documents.faults import DocumentFault
from apps.maps.documents.hints import with_hint
from apps.maps.documents.reading import Path, RawDocument, shown
from apps.maps.documents.rules import rule_faults
from apps.maps.documents.schema import SCHEMA

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
    for fault in rule_faults(document):
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
            expected = with_hint(f"one of {', '.join(known)}", key, known)
            yield document.fault((*path, key), found="an unknown key", expected=expected)
    elif error.validator == "required" and isinstance(error.validator_value, list):
        missing = next(key for key in error.validator_value if repr(key) in error.message)
        yield document.fault(path, found=f"no key {missing!r}", expected=f"the key {missing!r}")
    else:
        if "propertyNames" in error.absolute_schema_path:
            path = (*path, str(error.instance))  # The error is about a key, which its own path does not have.
        yield document.fault(path, found=shown(error.instance), expected=_expectation(error))


def _expectation(error: ValidationError) -> str:
    value: Any = error.validator_value
    match error.validator:
        case "type":
            names = [value] if isinstance(value, str) else value
            return " or ".join(_TYPE_WORDS[name] for name in names)
        case "enum":
            return with_hint(f"one of {', '.join(map(str, value))}", str(error.instance), [str(item) for item in value])
        case "const":
            return f"{value!r}"
        case "pattern":
            return str(error.schema.get("expected", f"text like {value}"))  # type: ignore[union-attr]
        case "minimum":
            return f"at least {value}"
        case "maximum":
            return f"at most {value}"
        case "minLength" | "minItems" | "minProperties":
            return "something not empty"
        case "maxItems":
            return f"at most {value} items"
        case "maxProperties":
            return f"at most {value} keys"
        case "uniqueItems":
            return "each item once"
        case "maxLength":
            return f"at most {value} characters"
    return error.message
