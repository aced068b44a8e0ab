"""Every write to Maps and their structure."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from django.db import transaction
from django.db.models import F, ProtectedError
from django.utils.text import slugify

from apps.audit.actions import record_event
from apps.audit.actor import Actor
from apps.maps.documents.loading import ParsedComponent, ParsedMap, load_map
from apps.maps.documents.reading import SourceFile
from apps.maps.exceptions import DocumentsError, MapBusyError, NameTakenError
from apps.maps.models import Component, ComponentGroup, Dependency, Map
from apps.maps.signals import map_structure_changed
from apps.orgs.models import User, Workspace


def bump_version(map_id: uuid.UUID, *, is_structure: bool = False) -> int:
    """The Map's next version. Locks the Map's row until the transaction ends, so versions commit in their order."""
    changes = {"version": F("version") + 1}
    if is_structure:
        changes["structure_version"] = F("version") + 1
    Map.objects.filter(pk=map_id).update(**changes)
    return Map.objects.values_list("version", flat=True).get(pk=map_id)


@transaction.atomic
def create_map(*, workspace: Workspace, sources: Sequence[SourceFile], owner: User, actor: Actor) -> Map:
    """A Map from its documents.

    Raises:
        DocumentsError: with every fault.
        NameTakenError: the workspace has a Map of this name.
    """
    parsed = _load(sources)
    slug = slugify(parsed.name)[:80] or "map"
    # Two Maps of one name at the same time: the second waits here and then finds the first.
    Workspace.objects.select_for_update(no_key=True).get(pk=workspace.pk)
    if Map.objects.filter(workspace=workspace, slug=slug).exists():
        raise NameTakenError(f"This workspace already has a Map named {parsed.name!r}.")
    created = Map.objects.create(
        organization=workspace.organization, workspace=workspace, name=parsed.name, slug=slug, owner=owner
    )
    _write_structure(created, parsed, sources)
    _record("map.created", created, actor, parsed)
    return created


@transaction.atomic
def apply_documents(*, map: Map, sources: Sequence[SourceFile], actor: Actor) -> bool:
    """Make a Map what its documents say; components keep their identity and state by name. False if nothing differs.

    Raises:
        DocumentsError: with every fault; the Map stays as it was.
        MapBusyError: an operation holds a component that the documents no longer have.
    """
    parsed = _load(sources, default_name=map.name)
    locked = Map.objects.select_for_update(no_key=True).get(pk=map.pk)
    if locked.documents == _stored(sources):
        return False
    _write_structure(locked, parsed, sources)
    _record("map.documents_applied", locked, actor, parsed)
    return True


@transaction.atomic
def delete_map(*, map: Map, actor: Actor) -> None:
    """The Map and all that is on it.

    Raises:
        MapBusyError: an operation holds one of its components.
    """
    # The Map first, as everything that changes one begins: a report about its components waits instead of colliding.
    Map.objects.select_for_update().filter(pk=map.pk).first()
    record_event(
        "map.deleted",
        actor=actor,
        organization_id=map.organization_id,
        target={"type": "map", "mapId": str(map.pk)},
        details={"name": map.name},
    )
    map_id, organization_id = map.pk, map.organization_id
    with _refused_if_held():
        map.delete()
    map_structure_changed.send(sender=Map, map_id=map_id, organization_id=organization_id)


@contextmanager
def _refused_if_held() -> Iterator[None]:
    """The app above protects components that an operation holds from deletion."""
    try:
        yield
    except ProtectedError:
        raise MapBusyError("An operation holds a component that would go: wait for it to end, or cancel it.") from None


def _load(sources: Sequence[SourceFile], default_name: str = "Map") -> ParsedMap:
    parsed, faults = load_map(sources, default_name=default_name)
    if parsed is None:
        raise DocumentsError(faults)
    return parsed


def _stored(sources: Iterable[SourceFile]) -> list[dict[str, str]]:
    return [{"path": source.path, "content": source.content} for source in sources]


def _write_structure(map: Map, parsed: ParsedMap, sources: Sequence[SourceFile]) -> None:
    Map.objects.filter(pk=map.pk).update(
        name=parsed.name,
        description=parsed.description,
        requires_reason=parsed.requires_reason,
        documents=_stored(sources),
    )
    version = bump_version(map.pk, is_structure=True)
    groups = _write_groups(map, parsed)
    components = _write_components(map, parsed.components, groups, version)
    Dependency.objects.filter(map=map).delete()
    Dependency.objects.bulk_create(
        Dependency(map=map, component=components[item.name], needs=components[link.needs], kind=link.kind)
        for item in parsed.components
        for link in item.dependencies
    )
    map_structure_changed.send(sender=Map, map_id=map.pk, organization_id=map.organization_id)


def _write_groups(map: Map, parsed: ParsedMap) -> dict[str, ComponentGroup]:
    ComponentGroup.objects.filter(map=map).exclude(name__in=[group.name for group in parsed.groups]).delete()
    ComponentGroup.objects.bulk_create(
        [
            ComponentGroup(map=map, name=group.name, title=group.title, position=position)
            for position, group in enumerate(parsed.groups)
        ],
        update_conflicts=True,
        unique_fields=["map", "name"],
        update_fields=["title", "position"],
    )
    return {group.name: group for group in ComponentGroup.objects.filter(map=map)}


def _write_components(
    map: Map, parsed: Sequence[ParsedComponent], groups: dict[str, ComponentGroup], version: int
) -> dict[str, Component]:
    with _refused_if_held():
        Component.objects.filter(map=map).exclude(name__in=[item.name for item in parsed]).delete()
    Component.objects.bulk_create(
        [_component(map, item, groups, version) for item in parsed],
        update_conflicts=True,
        unique_fields=["map", "name"],
        update_fields=["group", "type", "host", "labels", "technology", "spec", "version"],
        batch_size=1000,
    )
    return {component.name: component for component in Component.objects.filter(map=map).only("pk", "name")}


def _component(map: Map, item: ParsedComponent, groups: dict[str, ComponentGroup], version: int) -> Component:
    spec = item.spec
    return Component(
        organization_id=map.organization_id,
        map=map,
        group=groups.get(spec.get("group", "")),
        name=item.name,
        type=spec["type"],
        host=spec.get("host", ""),
        labels=item.labels,
        technology=spec.get("technology"),
        spec=spec,
        version=version,
    )


def _record(action: str, map: Map, actor: Actor, parsed: ParsedMap) -> None:
    record_event(
        action,
        actor=actor,
        organization_id=map.organization_id,
        target={"type": "map", "mapId": str(map.pk)},
        details={"name": parsed.name, "components": len(parsed.components)},
    )
