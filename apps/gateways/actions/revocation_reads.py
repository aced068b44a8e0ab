"""What links ask about revocations: of those who come, and of those who are there."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import connection
from django.db.models import Q

from apps.gateways.models import Agent, Certificate
from opsmap_protocol.enums import PeerRole

MAX_NEWS = 1000
MAX_PRINTS = 100
"""Certificates of one agent that a gateway is told of: those that it could still show, the newest first."""


@dataclass(frozen=True, slots=True)
class Revoked:
    """An agent some or all of whose certificates do not count any more."""

    agent_id: str
    fingerprints: list[str]
    reason: str


def find_revoked(organization_id: uuid.UUID, shown: Mapping[str, str]) -> dict[str, Revoked]:
    """Of agents that have come, by agent id and the fingerprint they showed: those that must go.

    Either the agent was revoked, or this very certificate.
    """
    gone = set(
        Agent.objects.filter(
            organization_id=organization_id, agent_id__in=list(shown), revoked_at__isnull=False
        ).values_list("agent_id", flat=True)
    )
    listed = Certificate.objects.filter(
        Q(fingerprint__in=list(shown.values())) | Q(role=PeerRole.AGENT, name__in=gone),
        organization_id=organization_id,
        revoked_at__isnull=False,
    ).order_by("-not_after")
    found: dict[str, Revoked] = {}
    for agent_id, print_, reason in listed.values_list("name", "fingerprint", "revocation_reason"):
        known = found.setdefault(agent_id, Revoked(agent_id, [], reason))
        if len(known.fingerprints) < MAX_PRINTS:
            known.fingerprints.append(print_)
    for agent_id in gone:
        found.setdefault(agent_id, Revoked(agent_id, [], "the agent was revoked"))
        if shown[agent_id] not in found[agent_id].fingerprints:
            # Shown for the first time after the agent was revoked.
            found[agent_id].fingerprints.append(shown[agent_id])
    return found


@dataclass(frozen=True, slots=True)
class RevokedCertificate:
    """One certificate of an agent, and since when it does not count any more."""

    agent_id: str
    fingerprint: str
    reason: str
    revoked_at: datetime


def revoked_since(organization_id: uuid.UUID, moment: datetime, told: Sequence[str]) -> list[RevokedCertificate]:
    """What agents lost after `moment`, by the database's clock: the oldest `MAX_NEWS`, without what was `told`."""
    rows = (
        Certificate.objects.filter(organization_id=organization_id, role=PeerRole.AGENT, revoked_at__gt=moment)
        .exclude(fingerprint__in=told)
        .order_by("revoked_at", "id")
        .values_list("name", "fingerprint", "revocation_reason", "revoked_at")
    )
    return [
        RevokedCertificate(agent_id, print_, reason, revoked_at)
        for agent_id, print_, reason, revoked_at in rows[:MAX_NEWS]
        if revoked_at is not None
    ]


def by_agent(certificates: Sequence[RevokedCertificate]) -> list[Revoked]:
    found: dict[str, Revoked] = {}
    for each in certificates:
        revoked = found.setdefault(each.agent_id, Revoked(each.agent_id, [], each.reason))
        revoked.fingerprints.append(each.fingerprint)
    return list(found.values())


def database_time() -> datetime:
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        moment: datetime = cursor.fetchone()[0]
    return moment


def long_enough_ago(moment: datetime) -> datetime:
    """A transaction may commit so much later than the clock it wrote."""
    return moment - timedelta(seconds=15)
