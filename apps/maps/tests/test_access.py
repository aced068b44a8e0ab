"""The doors to Maps and components: 404 for what one may not see, 403 for what one sees and may not do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser
from django.core.exceptions import PermissionDenied
from django.http import Http404

from apps.maps.access import access_component, access_map, access_map_by_path
from apps.maps.models import Map
from apps.maps.tests.factories import make_map
from apps.orgs.models import Membership
from conftest import Cast

Door = Callable[..., Any]


@pytest.fixture
def map(cast: Cast) -> Map:
    return make_map(cast.production, cast.owner)


@pytest.fixture(params=["map", "path", "component"])
def door(request: pytest.FixtureRequest, map: Map) -> Door:
    """Each door to the same Map."""
    db = map.components.get(name="db")
    return {
        "map": lambda user, **perm: access_map(user, map.pk, **perm),
        "path": lambda user, **perm: access_map_by_path(user, "acme", "production", "trading-platform", **perm),
        "component": lambda user, **perm: access_component(user, db.pk, **perm),
    }[request.param]


@pytest.mark.parametrize("person", ["owner", "operator", "viewer"])
def test_members_see(cast: Cast, door: Door, person: str) -> None:
    assert door(getattr(cast, person)).organization_id == cast.acme.pk


@pytest.mark.parametrize("perm", ["map:edit", "component:start"])
def test_members_do_what_they_may(cast: Cast, door: Door, perm: str) -> None:
    assert door(cast.owner, perm=perm) == door(cast.operator, perm=perm)
    with pytest.raises(PermissionDenied, match=rf"You may not do this on .+ \({perm}\)\."):
        door(cast.viewer, perm=perm)


@pytest.mark.parametrize("perm", ["map:view", "component:view", "map:edit"])
def test_others_find_nothing(cast: Cast, door: Door, perm: str) -> None:
    for nobody in (cast.outsider, AnonymousUser()):
        with pytest.raises(Http404):
            door(nobody, perm=perm)


def test_former_member_finds_nothing(cast: Cast, door: Door) -> None:
    Membership.objects.filter(user=cast.viewer).delete()
    with pytest.raises(Http404):
        door(cast.viewer)


def test_superuser_of_another_organization_finds_nothing(cast: Cast, door: Door) -> None:
    cast.outsider.is_superuser = True
    with pytest.raises(Http404):
        door(cast.outsider)


def test_missing_map_is_like_a_foreign_one(cast: Cast, map: Map) -> None:
    with pytest.raises(Http404):
        access_map(cast.owner, cast.acme.pk)
    with pytest.raises(Http404):
        access_component(cast.owner, cast.acme.pk)
    for path in (("umbrella", "production"), ("acme", "test")):
        with pytest.raises(Http404):
            access_map_by_path(cast.owner, *path, "trading-platform")


def test_documents_are_not_read_with_every_map(cast: Cast, map: Map) -> None:
    """They may be megabytes."""
    assert "documents" in access_map(cast.owner, map.pk).get_deferred_fields()
