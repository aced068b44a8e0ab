"""A folder of documents to one Map: read, validate, and check what only the whole can tell."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from apps.maps.documents.faults import DocumentFault
from apps.maps.documents.hints import with_hint
from apps.maps.documents.reading import Path, RawDocument, SourceFile, read_documents
from apps.maps.documents.validation import validate_document
from apps.maps.planning.graph import find_cycle

MAX_COMPONENTS = 50_000
MAX_FAULTS = 1_000
"""More than a person reads; whoever sends 50,000 broken documents gets an answer of bounded size."""


@dataclass(frozen=True, slots=True)
class ParsedDependency:
    needs: str
    kind: str


@dataclass(frozen=True, slots=True)
class ParsedComponent:
    name: str
    labels: dict[str, str]
    spec: dict[str, Any]
    dependencies: tuple[ParsedDependency, ...]


@dataclass(frozen=True, slots=True)
class ParsedGroup:
    name: str
    title: str


@dataclass(frozen=True, slots=True)
class ParsedMap:
    """A Map as its documents say it, before any database."""

    name: str
    description: str
    groups: tuple[ParsedGroup, ...]
    components: tuple[ParsedComponent, ...]
    requires_reason: bool = False
    permissions: tuple[dict[str, Any], ...] = ()
    """The grants of all documents of kind Permissions, each as validated (SPEC 7.3)."""


@dataclass(slots=True)
class _Collected:
    maps: list[RawDocument] = field(default_factory=list)
    components: list[RawDocument] = field(default_factory=list)
    permissions: list[RawDocument] = field(default_factory=list)
    faults: list[DocumentFault] = field(default_factory=list)
    is_complete: bool = True
    """Whether every component's name is known: no file is unreadable and no document refused."""

    def of_kind(self, kind: str) -> list[RawDocument]:
        return {"Map": self.maps, "Component": self.components, "Permissions": self.permissions}[kind]


def load_map(sources: Iterable[SourceFile], *, default_name: str = "") -> tuple[ParsedMap | None, list[DocumentFault]]:
    """The Map in these files, or every fault found in them.

    `default_name` names a Map whose folder has no document of kind Map.
    """
    collected = _collect(sources)
    _check_whole(collected)
    if collected.faults:
        return None, _bounded(collected.faults)
    header: dict[str, Any] = collected.maps[0].data if collected.maps else {"metadata": {"name": default_name}}
    spec = header.get("spec") or {}
    components = tuple(_component(document.data) for document in collected.components)
    parsed = ParsedMap(
        name=header["metadata"]["name"],
        description=spec.get("description", ""),
        requires_reason=spec.get("requireReason", False),
        groups=tuple(_groups(spec.get("groups", []), components)),
        components=components,
        permissions=tuple(
            grant for document in collected.permissions for grant in document.data["spec"]["permissions"]
        ),
    )
    return parsed, []


def _bounded(faults: list[DocumentFault]) -> list[DocumentFault]:
    rest = len(faults) - MAX_FAULTS
    if rest <= 0:
        return faults
    return [*faults[:MAX_FAULTS], DocumentFault("", 1, 1, "", f"{rest} further faults", "documents without faults")]


def _collect(sources: Iterable[SourceFile]) -> _Collected:
    collected = _Collected()
    for source in sources:
        if PurePosixPath(source.path).suffix not in {".yaml", ".yml"}:
            continue
        documents, faults = read_documents(source)
        collected.faults += faults
        collected.is_complete &= not faults
        for document in documents:
            document_faults = validate_document(document)
            collected.faults += document_faults
            collected.is_complete &= not document_faults
            if not document_faults:
                collected.of_kind(document.data["kind"]).append(document)
    return collected


def _check_whole(collected: _Collected) -> None:
    faults = collected.faults
    for extra in collected.maps[1:]:
        faults.append(extra.fault(("kind",), found="a second Map", expected="one document of kind Map in a folder"))
    if not collected.components and not faults:
        faults.append(DocumentFault("", 1, 1, "", "no component", "at least one document of kind Component"))
    if len(collected.components) > MAX_COMPONENTS:
        found = f"{len(collected.components)} components"
        faults.append(DocumentFault("", 1, 1, "", found, f"at most {MAX_COMPONENTS} components"))
    by_name: dict[str, RawDocument] = {}
    for document in collected.components:
        name = document.data["metadata"]["name"]
        if name in by_name:
            found = f"{name!r}, which {by_name[name].file} has too"
            faults.append(document.fault(("metadata", "name"), found=found, expected="a name of its own"))
        by_name.setdefault(name, document)
    faults += _dependency_faults(by_name, is_complete=collected.is_complete)
    faults += _cycle_faults(by_name)
    if collected.is_complete:
        for document in collected.permissions:
            faults += _override_faults(document, by_name)


def _dependency_faults(by_name: dict[str, RawDocument], *, is_complete: bool) -> Iterator[DocumentFault]:
    for name, document in by_name.items():
        seen: set[str] = set()
        for path, dependency in _dependencies(document.data):
            if dependency.needs == name:
                yield document.fault(path, found=f"{name!r} itself", expected="another component")
            elif is_complete and dependency.needs not in by_name:
                # Otherwise a name may be missing only because its document has faults of its own.
                yield document.fault(
                    path, found=f"{dependency.needs!r}", expected=_a_component(dependency.needs, by_name)
                )
            elif dependency.needs in seen:
                yield document.fault(path, found=f"{dependency.needs!r} twice", expected="each dependency once")
            seen.add(dependency.needs)


def _a_component(name: str, by_name: dict[str, RawDocument]) -> str:
    return with_hint("a component of this Map", name, by_name.keys())


def _override_faults(document: RawDocument, by_name: dict[str, RawDocument]) -> Iterator[DocumentFault]:
    """Overrides that are about a component or an action that the Map does not have: they would protect nothing."""
    for position, grant in enumerate(document.data["spec"]["permissions"]):
        for index, override in enumerate(grant.get("overrides", [])):
            path: Path = ("spec", "permissions", position, "overrides", index)
            name = override["component"]
            if name not in by_name:
                yield document.fault((*path, "component"), found=f"{name!r}", expected=_a_component(name, by_name))
                continue
            actions = by_name[name].data["spec"].get("actions", {})
            for action in override.get("actions", {}):
                if action not in actions:
                    expected = with_hint(f"an action of {name}", action, actions)
                    yield document.fault((*path, "actions", action), found=f"{action!r}", expected=expected)


def _cycle_faults(by_name: dict[str, RawDocument]) -> Iterator[DocumentFault]:
    needs = {
        # A component that needs itself has been told so already.
        name: [link.needs for _, link in _dependencies(document.data) if link.needs != name]
        for name, document in by_name.items()
    }
    cycle = find_cycle(needs)
    if cycle:
        found = f"a cycle: {' → '.join([*cycle, cycle[0]])}"
        yield by_name[cycle[0]].fault(("spec", "dependsOn"), found=found, expected="dependencies without a cycle")


def _dependencies(data: dict[str, Any]) -> Iterator[tuple[Path, ParsedDependency]]:
    for index, item in enumerate(data["spec"].get("dependsOn", [])):
        path: Path = ("spec", "dependsOn", index)
        if isinstance(item, str):
            yield path, ParsedDependency(item, "strong")
        else:
            yield path, ParsedDependency(item["component"], item.get("kind", "strong"))


def _component(data: dict[str, Any]) -> ParsedComponent:
    return ParsedComponent(
        name=data["metadata"]["name"],
        labels=data["metadata"].get("labels", {}),
        spec=data["spec"],
        dependencies=tuple(dependency for _, dependency in _dependencies(data)),
    )


def _groups(declared: list[Any], components: tuple[ParsedComponent, ...]) -> Iterator[ParsedGroup]:
    """The declared groups in their order, then those that components name without a declaration."""
    seen: set[str] = set()
    for item in declared:
        group = ParsedGroup(item, "") if isinstance(item, str) else ParsedGroup(item["name"], item.get("title", ""))
        if group.name not in seen:
            seen.add(group.name)
            yield group
    for component in components:
        name = component.spec.get("group")
        if name and name not in seen:
            seen.add(name)
            yield ParsedGroup(name, "")
