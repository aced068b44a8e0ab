"""The doors to Maps and components. Missing, foreign and forbidden-to-see all answer 404."""

from __future__ import annotations

import uuid

from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404

from apps.maps.models import Component, Map
from apps.orgs.models import User


def access_map(user: User, map_id: uuid.UUID, *, perm: str = "map:view") -> Map:
    """The Map with this id.

    Raises:
        Http404: there is none, or the person may not see it.
        PermissionDenied: the person sees it but may not `perm`.
    """
    return _opened(user, Map.objects.filter(pk=map_id), perm)


def access_map_by_path(user: User, organization: str, workspace: str, slug: str, *, perm: str = "map:view") -> Map:
    """The Map at `organization/workspace/slug`; the same answers as `access_map`."""
    maps = Map.objects.filter(organization__slug=organization, workspace__slug=workspace, slug=slug)
    return _opened(user, maps, perm)


def access_component(user: User, component_id: uuid.UUID, *, perm: str = "component:view") -> Component:
    """The component with this id; the same answers as `access_map`."""
    component = (
        Component.objects.select_related("map__organization", "map__workspace", "group")
        .filter(pk=component_id, organization__memberships__user=user.pk)
        .first()
    )
    if component is None or not user.has_perm("component:view", component):
        raise Http404
    if perm != "component:view" and not user.has_perm(perm, component):
        raise PermissionDenied(f"You may not do this on {component.name} ({perm}).")
    return component


def _opened(user: User, maps: QuerySet[Map], perm: str) -> Map:
    found = (
        maps.select_related("organization", "workspace")
        .defer("documents")
        .filter(organization__memberships__user=user.pk)
        .first()
    )
    if found is None or not user.has_perm("map:view", found):
        raise Http404
    if perm != "map:view" and not user.has_perm(perm, found):
        raise PermissionDenied(f"You may not do this on {found.name} ({perm}).")
    return found
