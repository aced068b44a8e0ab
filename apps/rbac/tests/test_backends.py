"""`user.has_perm(perm, object)`: the resolver behind Django's own question."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser

from apps.audit.actor import Actor
from apps.orgs.actions import issue_token, token_digest
from apps.orgs.models import Membership, User
from apps.orgs.selectors import get_token_user
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


def _by_token(user: User) -> User:
    _, text = issue_token(user=user, name="ci", actor=Actor.person(user))
    found = get_token_user(token_digest(text))
    assert found is not None
    return found


@pytest.mark.parametrize("person", ["owner", "operator", "viewer", "outsider"])
def test_a_token_gives_no_more_and_no_less_than_its_person_has(cast: Cast, person: str) -> None:
    user: User = getattr(cast, person)
    perms = ["map:view", "agent:execute"]

    for organization in (cast.acme, cast.umbrella):
        by_token = resolve_permissions(_by_token(user), organization.pk, perms)
        assert by_token == resolve_permissions(user, organization.pk, perms)


def test_roles_that_came_with_a_token_are_not_asked_for_again(cast: Cast, django_assert_num_queries: Any) -> None:
    user = _by_token(cast.viewer)
    with django_assert_num_queries(0):
        assert user.has_perm("map:view", cast.production)
        assert not user.has_perm("agent:execute", cast.production)


def test_a_token_has_lost_a_membership_by_its_next_request(cast: Cast) -> None:
    _, text = issue_token(user=cast.operator, name="ci", actor=Actor.person(cast.operator))
    Membership.objects.filter(user=cast.operator).delete()
    user = get_token_user(token_digest(text))
    assert user is not None
    assert not user.has_perm("map:view", cast.production)
