"""What a schema cannot say in one clear sentence about one document."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from apps.maps.documents.faults import DocumentFault
from apps.maps.documents.hints import with_hint
from apps.maps.documents.parameters import PLACEHOLDER, WHOLE_ARGUMENT, unmet
from apps.maps.documents.patterns import pattern_fault
from apps.maps.documents.reading import Path, RawDocument, shown
from apps.maps.documents.schema import COMMAND_KINDS

_SHELLS = re.compile(
    r"(?:ba|da|z|k|c|tc|fi|a)?sh|python[0-9.]*|perl|ruby|node|php|lua|pwsh|powershell|cmd|awk|ssh|su|eval"
)
_JOINING = {"ssh", "su", "eval", "watch", "xargs", "parallel"}
"""Programs that put all their arguments together into a line for a shell, here or elsewhere."""

_CODE_FOLLOWS = re.compile(r"-[A-Za-z]*[ceErC]|/[cC]|--(?:command|eval|execute|print)|-Command")
_LOADER = re.compile(r"PATH|IFS|ENV|LD_.*|DYLD_.*|BASH_.*|PYTHON.*|PERL.*|RUBY.*|NODE_.*|JAVA_TOOL_OPTIONS|_JAVA_.*")
"""Variables that make a program load or run something else; the agent has the full list and refuses by it."""


def rule_faults(document: RawDocument) -> Iterator[DocumentFault]:
    """Every fault that is not one of the schema. Whatever has the wrong shape is passed over: the schema has told."""
    spec = document.data.get("spec") if isinstance(document.data, dict) else None
    if not isinstance(spec, dict):
        return
    if document.data.get("kind") == "Permissions":
        yield from _permission_faults(document, spec)
        return
    for section in ("commands", "actions"):
        commands = spec.get(section)
        for name, command in commands.items() if isinstance(commands, dict) else ():
            if isinstance(command, dict):
                yield from _command_faults(document, ("spec", section, name), command)
    if "host" in spec and "hostSelector" in spec:
        yield document.fault(("spec", "hostSelector"), found="host and hostSelector", expected="only one of the two")


def _command_faults(document: RawDocument, path: Path, command: dict[str, Any]) -> Iterator[DocumentFault]:
    yield from _line_faults(document, (*path, "command"), command.get("command"))
    yield from _script_faults(document, (*path, "script"), command.get("script"))
    kinds = [kind for kind in COMMAND_KINDS if kind in command]
    if len(kinds) != 1:
        yield document.fault(
            path,
            found=" and ".join(kinds) if kinds else "none of them",
            expected=f"exactly one of {', '.join(COMMAND_KINDS)}",
        )
    parameters = command.get("parameters")
    if isinstance(parameters, dict) and parameters:
        yield from _parameter_faults(document, (*path, "parameters"), parameters)
        yield from _placeholder_faults(document, path, command, parameters)


def _line_faults(document: RawDocument, path: Path, line: Any) -> Iterator[DocumentFault]:
    """A command line must split into a program and its arguments."""
    if not isinstance(line, str) or not line:
        return
    try:
        words = shlex.split(line)
    except ValueError as error:
        found = f"{shown(line)} ({str(error).lower()})"
        yield document.fault(path, found=found, expected="a program and its arguments")
        return
    if not words or not words[0]:
        yield document.fault(path, found=shown(line), expected="a program and its arguments")


def _script_faults(document: RawDocument, path: Path, script: Any) -> Iterator[DocumentFault]:
    """A script is a file on the host or its text."""
    if isinstance(script, dict) and ("path" in script) == ("content" in script):
        found = "both" if "path" in script else "neither of them"
        yield document.fault(path, found=found, expected="either path or content")


def _parameter_faults(document: RawDocument, path: Path, parameters: dict[str, Any]) -> Iterator[DocumentFault]:
    for name, declared in parameters.items():
        if not isinstance(declared, dict):
            continue
        here = (*path, name)
        pattern = declared.get("pattern")
        fault = pattern_fault(pattern) if isinstance(pattern, str) else None
        if fault:
            expected = "a simple pattern: at most 3 repetitions, and none of a group"
            yield document.fault((*here, "pattern"), found=f"{shown(pattern)} ({fault})", expected=expected)
        low, high = declared.get("minimum"), declared.get("maximum")
        if low is not None and high is not None and _is_number(low) and _is_number(high) and low > high:
            yield document.fault((*here, "maximum"), found=str(high), expected=f"at least the minimum, {low}")
        elif "default" in declared and not fault:
            yield from _default_faults(document, here, declared)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _default_faults(document: RawDocument, path: Path, declared: dict[str, Any]) -> Iterator[DocumentFault]:
    try:
        expected = unmet(declared, declared["default"])
    except (KeyError, TypeError):
        return  # The declaration itself has the wrong shape.
    if expected:
        yield document.fault((*path, "default"), found=shown(declared["default"]), expected=expected)
    elif declared.get("required") is True:
        yield document.fault((*path, "default"), found="a default of what is required", expected="one of the two")


def _placeholder_faults(
    document: RawDocument, path: Path, command: dict[str, Any], parameters: dict[str, Any]
) -> Iterator[DocumentFault]:
    execution = json.dumps(command.get("execution", {}))
    for name in dict.fromkeys(PLACEHOLDER.findall(execution)):
        if name in parameters:
            found = f"the placeholder {{{name}}}"
            yield document.fault((*path, "execution"), found=found, expected="checks that are the same for all values")
    for place, text in _texts(command):
        for name in dict.fromkeys(PLACEHOLDER.findall(text)):
            if name in parameters:
                fault = _misplaced(command, place, text, name, parameters[name])
                if fault:
                    yield document.fault((*path, *place), found=fault[0], expected=fault[1])
            elif place[0] in {"args", "env"}:
                expected = with_hint(f"one of {', '.join(parameters)}", name, parameters)
                yield document.fault((*path, *place), found=f"the placeholder {{{name}}}", expected=expected)


def _texts(command: dict[str, Any]) -> Iterator[tuple[Path, str]]:
    """Every text of a command in which a person might write a placeholder, and where it stands."""
    for key, value in command.items():
        if key in {"description", "parameters", "execution"}:
            continue
        if isinstance(value, str):
            yield (key,), value
        items: Any = enumerate(value) if isinstance(value, list) else value.items() if isinstance(value, dict) else ()
        for inner, item in items:
            if isinstance(item, str):
                yield (key, inner), item
            elif key == "native" and inner == "params" and isinstance(item, dict):
                yield from (((key, inner, name), text) for name, text in item.items() if isinstance(text, str))


def _misplaced(command: dict[str, Any], place: Path, text: str, name: str, declared: Any) -> tuple[str, str] | None:
    """Found and expected if the placeholder may not stand there."""
    found = f"the placeholder {{{name}}}"
    if place[0] not in {"args", "env"} and place[:2] != ("native", "params"):
        return (
            f"{found} in {'.'.join(map(str, place))}",
            f'it in args or env, where it stays a value: env: {{{name.upper()}: "{{{name}}}"}}',
        )
    placed = WHOLE_ARGUMENT.fullmatch(text)
    if placed is None or (placed[1] and place[0] != "args"):
        return f"{found} within {text[:60]!r}", f"{{{name}}} alone or --option={{{name}}}"
    if place[0] == "args":
        if isinstance(declared, dict) and declared.get("type") == "secret":
            return f"the secret {{{name}}} as an argument, which every process can see", "a secret in env"
        if _is_code(command, place[1]):
            return f"{found} as text that a shell or interpreter runs", "it as a further argument or in env"
    if place[0] == "env" and _LOADER.fullmatch(str(place[1])):
        return f"{found} in {place[1]}, which makes programs load other code", "another variable"
    return None


def _is_code(command: dict[str, Any], index: int | str) -> bool:
    """Whether this argument is what a shell or interpreter runs: what stands behind `sh -c`."""
    line = command.get("command")
    try:
        words = shlex.split(line) if isinstance(line, str) else []
    except ValueError:
        return False
    arguments = [*words, *(item for item in command.get("args", []) if isinstance(item, str))]
    position = len(words) + int(index)
    before = arguments[:position]
    programs = [word.rpartition("/")[2] for word in before]
    if any(program in _JOINING for program in programs):
        return True
    has_shell = any(_SHELLS.fullmatch(program) for program in programs)
    return has_shell and (not before[1:] or bool(_CODE_FOLLOWS.fullmatch(before[-1])))


def _permission_faults(document: RawDocument, spec: dict[str, Any]) -> Iterator[DocumentFault]:
    grants = spec.get("permissions")
    seen: set[tuple[str, str]] = set()
    for index, grant in enumerate(grants if isinstance(grants, list) else ()):
        if not isinstance(grant, dict):
            continue
        path: Path = ("spec", "permissions", index)
        subjects = [key for key in ("user", "group") if key in grant]
        if len(subjects) != 1:
            yield document.fault(
                path,
                found=" and ".join(subjects) if subjects else "none of them",
                expected="exactly one of user, group",
            )
        for subject in subjects:
            yield from _subject_faults(document, (*path, subject), subject, grant[subject], seen)
        yield from _expiry_faults(document, (*path, "expiresAt"), grant.get("expiresAt"))
        yield from _override_faults(document, (*path, "overrides"), grant.get("overrides"))


def _subject_faults(
    document: RawDocument, path: Path, kind: str, name: Any, seen: set[tuple[str, str]]
) -> Iterator[DocumentFault]:
    if not isinstance(name, str) or not name:
        return
    if kind == "user" and not re.fullmatch(r"[^@\s]+@[^@\s]+", name):
        yield document.fault(path, found=shown(name), expected="an email")
    if (kind, name.lower()) in seen:
        yield document.fault(path, found=f"{name!r} twice", expected="each person and group once")
    seen.add((kind, name.lower()))


def _expiry_faults(document: RawDocument, path: Path, moment: Any) -> Iterator[DocumentFault]:
    if not isinstance(moment, str):
        return
    try:
        is_exact = datetime.fromisoformat(moment).tzinfo is not None
    except ValueError:
        is_exact = False
    if not is_exact:
        expected = "a moment with its offset, such as 2027-01-31T18:00:00+01:00"
        yield document.fault(path, found=shown(moment), expected=expected)


def _override_faults(document: RawDocument, path: Path, overrides: Any) -> Iterator[DocumentFault]:
    seen: set[str] = set()
    for index, override in enumerate(overrides if isinstance(overrides, list) else ()):
        if not isinstance(override, dict):
            continue
        both = _both(override)
        if both:
            yield document.fault(
                (*path, index), found=f"{', '.join(both)} allowed and denied", expected="each only once"
            )
        if "component" in override and not override.keys() & {"allow", "deny", "actions"}:
            yield document.fault((*path, index), found="nothing that differs", expected="one of allow, deny, actions")
        component = override.get("component")
        if isinstance(component, str):
            if component in seen:
                yield document.fault(
                    (*path, index, "component"), found=f"{component!r} twice", expected="each component once"
                )
            seen.add(component)


def _both(override: dict[str, Any]) -> list[str]:
    lists = [override.get("allow"), override.get("deny")]
    allowed, denied = (
        {item for item in given if isinstance(item, str)} if isinstance(given, list) else set() for given in lists
    )
    return sorted(allowed & denied)
