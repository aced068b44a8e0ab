"""The doors to workspaces and tokens: missing, foreign and forbidden look the same."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import AnonymousUser
from django.http import Http404

from apps.orgs.access import access_workspace
from apps.orgs.selectors import list_organization_ids
from conftest import Cast


@pytest.mark.parametrize("person", ["owner", "operator"])
def test_workspace_opens_for_who_may(cast: Cast, person: str) -> None:
    found = access_workspace(getattr(cast, person), cast.production.pk, perm="workspace:create")
    assert found == cast.production


def test_workspace_opens_for_a_viewer_only_to_look(cast: Cast) -> None:
    assert access_workspace(cast.viewer, cast.production.pk, perm="workspace:view") == cast.production
    with pytest.raises(Http404):
        access_workspace(cast.viewer, cast.production.pk, perm="workspace:create")


def test_workspace_of_another_organization_is_not_there(cast: Cast) -> None:
    for nobody in (cast.outsider, AnonymousUser()):
        with pytest.raises(Http404):
            access_workspace(nobody, cast.production.pk, perm="workspace:view")
    with pytest.raises(Http404):
        access_workspace(cast.owner, cast.acme.pk, perm="workspace:view")


def test_superuser_outside_an_organization_is_outside(cast: Cast) -> None:
    cast.outsider.is_superuser = True
    cast.outsider.save()
    with pytest.raises(Http404):
        access_workspace(cast.outsider, cast.production.pk, perm="workspace:view")


def test_organizations_of_a_person_are_those_of_their_memberships(cast: Cast) -> None:
    assert list_organization_ids(cast.viewer) == [cast.acme.pk]
    assert list_organization_ids(cast.outsider) == [cast.umbrella.pk]
