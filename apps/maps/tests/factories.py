"""Documents as tests write them, and the examples of the specification as files."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from apps.audit.actor import Actor
from apps.maps.actions import create_map
from apps.maps.documents.reading import SourceFile
from apps.maps.models import Map
from apps.orgs.models import User, Workspace

DOCUMENTS = Path(__file__).parent / "documents"
ACTOR = Actor.system("test")
# JSON in PostgreSQL cannot hold a NUL: the audit of whatever this actor does fails, in the real database.
UNWRITABLE = Actor.system("\0")


def folder(name: str) -> list[SourceFile]:
    """The files of one folder of example documents."""
    root = DOCUMENTS / name
    return [SourceFile(str(path.relative_to(root)), path.read_text()) for path in sorted(root.rglob("*.yaml"))]


def component(name: str, *needs: str | Mapping[str, str], **spec: Any) -> SourceFile:
    """A component's document. JSON is YAML, too."""
    return _file(f"components/{name}.yaml", "Component", name, {"type": "service", "dependsOn": list(needs)} | spec)


def map_document(name: str, **spec: Any) -> SourceFile:
    return _file("map.yaml", "Map", name, spec)


def trading(*extra: SourceFile) -> list[SourceFile]:
    """web → api → db, and api needs a cache for order only."""
    return [
        map_document("Trading Platform", description="Trades.", groups=["databases", {"name": "web", "title": "Web"}]),
        component("db", type="database", group="databases", host="srv-1"),
        component("cache", group="caches"),
        component("api", "db", {"component": "cache", "kind": "weak"}, group="services"),
        component("web", "api", group="web"),
        *extra,
    ]


def make_map(workspace: Workspace, owner: User, sources: Iterable[SourceFile] | None = None) -> Map:
    return create_map(workspace=workspace, sources=list(sources or trading()), owner=owner, actor=ACTOR)


def as_body(sources: Iterable[SourceFile]) -> list[dict[str, str]]:
    """Documents as the API takes them."""
    return [{"path": source.path, "content": source.content} for source in sources]


def _file(path: str, kind: str, name: str, spec: Mapping[str, Any]) -> SourceFile:
    document = {"apiVersion": "opsmap.io/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}
    return SourceFile(path, json.dumps(document, ensure_ascii=False))
