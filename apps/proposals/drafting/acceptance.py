"""The documents of a Map with what a person accepted, as the person could have written it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from apps.maps.documents.editing import EditError, rewrite
from apps.maps.documents.reading import SourceFile, read_documents
from apps.maps.documents.writing import component_files


class NoDocumentError(ValueError):
    """A component has no document that can be edited; the message names it."""


@dataclass(slots=True)
class Accepted:
    """`components` are new ones, by name. `needs` are further dependencies by the name of who needs, each the name of
    what is needed and whether strongly. `versions` are new ones of components that are there already.
    """

    components: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    needs: dict[str, dict[str, bool]] = field(default_factory=dict)
    versions: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Technology and version."""


def with_accepted(sources: Sequence[SourceFile], accepted: Accepted) -> list[SourceFile]:
    """The sources with new files for new components, and the smallest edits for the others.

    Raises:
        NoDocumentError: one that is to be changed is in no document.
    """
    to_edit = {name for name in [*accepted.needs, *accepted.versions] if name not in accepted.components}
    edited = _edited(sources, to_edit, accepted)
    new: list[tuple[str, dict[str, str], dict[str, Any]]] = [
        (name, {}, _with_needs(spec, accepted.needs.get(name, {}))) for name, spec in accepted.components.items()
    ]
    return [*edited, *_at_free_paths(component_files(new) if new else [], {source.path for source in edited})]


def _edited(sources: Sequence[SourceFile], names: set[str], accepted: Accepted) -> list[SourceFile]:
    missing = set(names)
    edited = []
    for source in sources:
        text = source.content
        # Reading 50,000 documents takes seconds, finding words in them does not.
        if any(name in text for name in missing):
            for index, name, data in _components(source):
                if name in missing:
                    missing.remove(name)
                    text = _rewritten(text, _changed(name, data, accepted), index, name)
        edited.append(SourceFile(source.path, text))
    if missing:
        raise NoDocumentError(f"{min(missing)} is in none of the Map's documents.")
    return edited


def _components(source: SourceFile) -> Iterator[tuple[int, str, dict[str, Any]]]:
    documents, _ = read_documents(source)
    for index, document in enumerate(documents):
        data = document.data
        if isinstance(data, dict) and data.get("kind") == "Component":
            yield index, str(data["metadata"]["name"]), data


def _rewritten(text: str, data: dict[str, Any], index: int, name: str) -> str:
    try:
        return rewrite(text, data, document=index)
    except EditError as error:
        raise NoDocumentError(f"The document of {name} cannot be edited: {error}.") from None


def _changed(name: str, data: dict[str, Any], accepted: Accepted) -> dict[str, Any]:
    spec: dict[str, Any] = _with_needs(data["spec"], accepted.needs.get(name, {}))
    if name in accepted.versions:
        technology, version = accepted.versions[name]
        spec = spec | {"technology": {**(spec.get("technology") or {"name": technology}), "version": version}}
    return {**data, "spec": spec}


def _with_needs(spec: Mapping[str, Any], needs: Mapping[str, bool]) -> dict[str, Any]:
    """What is said already stays as it is, also if it is weaker or stronger than what was found."""
    depends = list(spec.get("dependsOn") or [])
    said = {item if isinstance(item, str) else item.get("component") for item in depends}
    depends += [
        name if is_strong else {"component": name, "kind": "weak"}
        for name, is_strong in sorted(needs.items())
        if name not in said
    ]
    return {**spec, "dependsOn": depends} if depends else dict(spec)


def _at_free_paths(files: Sequence[SourceFile], taken: set[str]) -> Iterator[SourceFile]:
    """A person may have another document at the path that a new one would have."""
    for file in files:
        path, number = file.path, 2
        while path in taken:
            path = f"{file.path.removesuffix('.yaml')}-{number}.yaml"
            number += 1
        taken.add(path)
        yield SourceFile(path, file.content)
