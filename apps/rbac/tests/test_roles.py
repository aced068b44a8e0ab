"""What each membership may, name by name (SPEC 7.1), and how patterns match."""

from __future__ import annotations

import pytest

from apps.orgs.enums import MembershipRole
from apps.rbac.roles import PERMISSIONS_BY_MEMBERSHIP, allows

SEEING = ["map:view", "component:view", "component:logs", "workspace:view", "agent:view"]
DOING = [
    "map:edit",
    "map:delete",
    "map:share",
    "map:admin",
    "component:start",
    "component:stop",
    "component:restart",
    "component:edit",
    "action:clear_cache:execute",
    "workspace:create",
    "workspace:admin",
    "agent:command",
    "agent:execute",
    "agent:admin",
    "gateway:admin",
    "enrolment:admin",
    "org:admin",
    "org:users",
    "org:billing",
]


@pytest.mark.parametrize("role", MembershipRole.values)
@pytest.mark.parametrize("perm", [*SEEING, *DOING])
def test_owners_and_admins_do_everything_and_members_look(role: str, perm: str) -> None:
    is_expected = role != MembershipRole.MEMBER or perm in SEEING
    assert allows(PERMISSIONS_BY_MEMBERSHIP[role], perm) is is_expected


def test_every_role_has_its_permissions() -> None:
    assert PERMISSIONS_BY_MEMBERSHIP.keys() == set(MembershipRole.values)


@pytest.mark.parametrize(
    ("pattern", "perm", "is_allowed"),
    [
        ("action:*:execute", "action:clear_cache:execute", True),
        ("action:*:execute", "action:clear_cache:edit", False),
        ("action:*:execute", "component:start", False),
        ("component:*", "component:start", True),
        ("component:*", "Component:start", False),
        ("component:start", "component:start", True),
        ("component:start", "component:started", False),
        ("component:s?op", "component:stop", False),
        ("*", "anything", True),
    ],
)
def test_pattern_allows_what_it_covers(pattern: str, perm: str, is_allowed: bool) -> None:
    assert allows(frozenset({pattern}), perm) is is_allowed


def test_star_in_the_question_is_no_wildcard() -> None:
    assert not allows(frozenset({"component:start"}), "component:*")


def test_nothing_granted_allows_nothing() -> None:
    assert not allows(frozenset(), "map:view")
