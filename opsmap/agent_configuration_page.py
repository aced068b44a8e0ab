"""docs/agent-configuration.md, from the dataclasses that `agent.yaml` is read into.

The source is read and not imported: the backend knows nothing of the daemons.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_AGENT = Path(__file__).resolve().parent.parent / "agent"
SOURCES = (
    "opsmap_agent/configuration.py",
    "opsmap_daemon/logs.py",
    "opsmap_daemon/backoff.py",
    "opsmap_daemon/tls.py",
)


@dataclass(frozen=True, slots=True)
class _Key:
    name: str
    type: str
    default: str
    text: str


def agent_configuration_page() -> str:
    classes = {node.name: node for source in SOURCES for node in _classes(_AGENT / source)}
    lines = [
        "# Configuration of an agent",
        "",
        "`/etc/opsmap/agent.yaml`. It is checked as a whole before anything starts: one line for every fault. Unknown",
        "keys are faults, an empty value means the default. `opsmap-agent check-config` does just that, and looks at",
        "what the agent would find. Relative paths are taken from the folder of the file. Two sections are required:",
        "`gateway` and `tls`.",
    ]
    for key in _keys(classes["Configuration"]):
        lines += _section(key.name, classes[key.type], classes)
    return "\n".join([*lines, ""])


def _section(path: str, section: ast.ClassDef, classes: dict[str, ast.ClassDef]) -> list[str]:
    keys = list(_keys(section))
    plain = [key for key in keys if key.type not in classes]
    rows = [f"| `{key.name}` | {_shown(key.type)} | {key.default} | {key.text} |" for key in plain]
    lines = ["", f"## {path}", ""]
    text = ast.get_docstring(section)
    lines += [text, ""] if text else []
    lines += ["| key | type | default | |", "| --- | --- | --- | --- |", *rows]
    for key in keys:
        if key.type in classes:
            lines += _section(f"{path}.{key.name}", classes[key.type], classes)
    return lines


def _named_values() -> dict[str, str]:
    """What the constants and the lists of choices that keys refer to are."""
    values: dict[str, str] = {"list(BUFFERED)": "all three"}
    for source in SOURCES:
        for node in ast.parse((_AGENT / source).read_text(encoding="utf-8")).body:
            if not isinstance(node, ast.Assign) or not isinstance(node.targets[0], ast.Name):
                continue
            text = ast.unparse(node.value)
            if text.startswith("Literal["):
                values[node.targets[0].id] = _choices(text)
            elif text.replace(" * ", "").isdigit():
                values[node.targets[0].id] = str(math.prod(int(factor) for factor in text.split(" * ")))
    return values


def _choices(annotation: str) -> str:
    return annotation.removeprefix("Literal[").removesuffix("]").replace(_QUOTE, "")


def _classes(path: Path) -> Iterator[ast.ClassDef]:
    return (node for node in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(node, ast.ClassDef))


def _keys(section: ast.ClassDef) -> Iterator[_Key]:
    """The annotated names of a class, each with the docstring behind it."""
    for node, following in zip(section.body, [*section.body[1:], None], strict=True):
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        text = ""
        if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
            text = " ".join(str(following.value.value).split())
        yield _Key(node.target.id, ast.unparse(node.annotation), _default(node.value), text)


def _default(value: ast.expr | None) -> str:
    if isinstance(value, ast.Call) and ast.unparse(value.func) in ("setting", "field"):
        factory = next((each.value for each in value.keywords if each.arg == "default_factory"), None)
        if isinstance(factory, ast.Lambda):
            made = ast.unparse(factory.body)
            return f"`{_VALUES.get(made, made)}`"
        if factory is not None:
            return "empty"
        value = value.args[0] if value.args else None
    if value is None:
        return "required"
    shown = ast.unparse(value)
    if shown.startswith("Path("):
        shown = shown.removeprefix("Path(").removesuffix(")")
    shown = _VALUES.get(shown, shown)
    return {"None": "none", "True": "`true`", "False": "`false`", "''": "empty"}.get(shown, f"`{shown.strip(_QUOTE)}`")


def _shown(annotation: str) -> str:
    plain = annotation.removesuffix(" | None")
    if plain.startswith("Literal["):
        plain = _choices(plain)
    return f"`{_VALUES.get(plain, plain)}`".replace("Path", "path")


_QUOTE = "'"
_VALUES = _named_values()
