"""What each role may (SPEC 7.2). Pure: names in, answer out."""

from __future__ import annotations

from fnmatch import fnmatchcase

from apps.orgs.enums import MembershipRole

VIEWER = frozenset({"map:view", "component:view", "component:logs", "workspace:view", "agent:view"})

PERMISSIONS_BY_MEMBERSHIP: dict[str, frozenset[str]] = {
    MembershipRole.OWNER: frozenset({"*"}),
    MembershipRole.ADMIN: frozenset({"*"}),
    # Members see; what more they may comes with grants.
    MembershipRole.MEMBER: VIEWER,
}


def allows(patterns: frozenset[str], perm: str) -> bool:
    """Whether any of the permission patterns (`*`, `action:*:execute`) covers the permission."""
    return perm in patterns or any(fnmatchcase(perm, pattern) for pattern in patterns if "*" in pattern)
