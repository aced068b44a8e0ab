"""Fills the documents' templates with this installation's paths and ports."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from string import Template

from deploy.demo.components import COMPONENTS
from deploy.demo.placing import decide_settings

_PACKAGE = Path(__file__).resolve().parent
_TEMPLATES = _PACKAGE / "documents" / "trading-platform"


def render_documents(target: Path, *, python: Path, state: Path, ports: dict[str, int], lease: Path) -> None:
    """See `deploy.demo.render`."""
    if missing := [name for name in COMPONENTS if name not in ports]:
        raise ValueError(f"no port for {', '.join(missing)}")
    values: dict[str, str | int] = {
        "python": _word(python),
        "control": _word(_PACKAGE / "control.py"),
        "state": _word(state),
        "lease": _word(lease),
        "python_version": f"{sys.version_info.major}.{sys.version_info.minor}",
        **{placeholder(name): ports[name] for name in COMPONENTS},
    }
    decide_settings(state.absolute(), {name: ports[name] for name in COMPONENTS}).write(state)
    (target / "components").mkdir(parents=True, exist_ok=True)
    kept = set()
    for template in sorted(_TEMPLATES.rglob("*.yaml")):
        document = target / template.relative_to(_TEMPLATES)
        kept.add(document)
        _write(document, Template(template.read_text(encoding="utf-8")).substitute(values))
    for document in (target / "components").glob("*.yaml"):
        if document not in kept:
            document.unlink()


def placeholder(name: str) -> str:
    """What the templates call the port of component `name`: `port_redis_cache` for redis-cache."""
    return "port_" + name.replace("-", "_")


def _word(path: Path) -> str:
    """`path` as one word of a command, which is split like a shell would, and as text that YAML takes as it is."""
    text = str(path.absolute())
    if not text.isprintable():
        raise ValueError(f"{text!r} cannot stand in a document: it has characters that cannot be printed")
    return shlex.quote(text)


def _write(path: Path, text: str) -> None:
    """Replace `path` in one step, so that a reader never sees half a file; equal text is left alone."""
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return
    draft = path.with_name(path.name + ".new")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)
