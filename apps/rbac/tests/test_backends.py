"""`user.has_perm(perm, object)`: the resolver behind Django's own question."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser

from apps.orgs.models import Membership, User
from apps.rbac.selectors import resolve_permissions
from conftest import Cast


@pytest.mark.parametrize(
    ("person", "can_view", "can_create"),
    [
        ("owner", True, True),
        ("operator", True, True),
        ("viewer", True, False),
        ("outsider", False, False),
    ],
)
def test_has_perm_answers_by_membership(cast: Cast, person: str, can_view: bool, can_create: bool) -> None:
    user: User = getattr(cast, person)

    assert user.has_perm("workspace:view", cast.production) is can_view
    assert user.has_perm("workspace:create", cast.production) is can_create


def test_nobody_has_no_permission(cast: Cast) -> None:
    assert not AnonymousUser().has_perm("workspace:view", cast.production)


def test_inactive_person_has_no_permission(cast: Cast) -> None:
    cast.owner.is_active = False
    assert not cast.owner.has_perm("workspace:view", cast.production)
    assert resolve_permissions(cast.owner, cast.acme.pk, ["map:view"]) == {"map:view": False}


@pytest.mark.parametrize("thing", [None, "a text", object()])
def test_has_perm_without_an_object_of_an_organization_is_no(cast: Cast, thing: Any) -> None:
    assert not cast.owner.has_perm("map:view", thing)


def test_permission_ends_with_the_membership(cast: Cast) -> None:
    Membership.objects.filter(user=cast.operator).delete()
    assert not cast.operator.has_perm("workspace:view", cast.production)


def test_permissions_are_those_of_the_organization_asked_about(cast: Cast) -> None:
    assert resolve_permissions(cast.owner, cast.acme.pk, ["map:edit"]) == {"map:edit": True}
    assert resolve_permissions(cast.owner, cast.umbrella.pk, ["map:edit"]) == {"map:edit": False}


def test_many_permissions_cost_one_query(cast: Cast, django_assert_num_queries: Any) -> None:
    perms = [f"component:{n}" for n in range(500)]
    with django_assert_num_queries(1):
        answers = resolve_permissions(cast.viewer, cast.acme.pk, ["component:view", *perms])
    assert [perm for perm, is_allowed in answers.items() if is_allowed] == ["component:view"]


def test_has_perm_costs_one_query(cast: Cast, django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(1):
        assert cast.viewer.has_perm("workspace:view", cast.production)
