"""Reads of the registry: pages of gateways and agents, and one of them with everything about it.

Lists go on from a cursor, which is the place of the last row in the order, so that a page of fifty thousand costs what
the first one costs, and rows that come and go meanwhile are neither shown twice nor jumped over.
"""

from __future__ import annotations

import base64
import binascii
import json
import uuid
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from django.db.models import Prefetch, Q, QuerySet

from apps.gateways.filters import RegistryFilter, certificate_end, filter_agents, filter_gateways
from apps.gateways.models import Agent, AgentSession, Certificate, EnrolmentToken, Gateway
from apps.orgs.models import User
from opsmap_protocol.enums import PeerRole

M = TypeVar("M", Agent, Gateway)
MAX_CERTIFICATES = 20
"""How many of its certificates one gateway or agent shows, those that end last first."""

_NOT_SHOWN = ("health_checks", "certificate", "gateway__labels", "gateway__load")
"""Columns of agents that may be long."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """A place in a list that is ordered by name and id."""

    name: str
    id: uuid.UUID

    def __str__(self) -> str:
        return base64.urlsafe_b64encode(json.dumps([self.name, self.id.hex]).encode()).decode()

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """Raises ValueError."""
        try:
            name, row_id = json.loads(base64.urlsafe_b64decode(text))
            if not isinstance(name, str) or "\0" in name:
                raise ValueError
            name.encode()  # half a surrogate pair is no name either
            return cls(name, uuid.UUID(row_id))
        except (binascii.Error, ValueError, TypeError, AttributeError, RecursionError):
            raise ValueError("no cursor of this list") from None


@dataclass(frozen=True, slots=True)
class Page(Generic[M]):
    rows: list[M]
    next: Cursor | None


def page_of_agents(wanted: RegistryFilter, *, after: Cursor | None, limit: int) -> Page[Agent]:
    """By hostname. Two queries, however many agents there are and however many sessions they have."""
    return _page(_with_sessions(filter_agents(wanted)), "hostname", after, limit)


def page_of_gateways(wanted: RegistryFilter, *, after: Cursor | None, limit: int) -> Page[Gateway]:
    """By gateway id."""
    return _page(filter_gateways(wanted), "gateway_id", after, limit)


def _page(rows: QuerySet[M], name_field: str, after: Cursor | None, limit: int) -> Page[M]:
    if after is not None:
        # The first condition says no more than the second, but is a range of an index.
        rows = rows.filter(**{f"{name_field}__gte": after.name}).filter(
            Q(**{f"{name_field}__gt": after.name}) | Q(pk__gt=after.id)
        )
    found = list(rows.order_by(name_field, "pk")[: limit + 1])
    page = found[:limit]
    has_more = len(found) > limit
    return Page(page, Cursor(getattr(page[-1], name_field), page[-1].pk) if has_more else None)


def _with_sessions(agents: QuerySet[Agent]) -> QuerySet[Agent]:
    sessions = AgentSession.objects.select_related("gateway").order_by("opened_at", "pk")
    sessions = sessions.defer("gateway__labels", "gateway__load")
    return agents.select_related("gateway").defer(*_NOT_SHOWN).prefetch_related(Prefetch("sessions", sessions))


def get_agent(agent_id: uuid.UUID) -> Agent:
    """With what a page of agents has of each."""
    agents = Agent.objects.annotate(certificate_ends_at=certificate_end(PeerRole.AGENT))
    return _with_sessions(agents).get(pk=agent_id)


def get_gateway(gateway_id: uuid.UUID) -> Gateway:
    return Gateway.objects.annotate(certificate_ends_at=certificate_end(PeerRole.GATEWAY)).get(pk=gateway_id)


def list_certificates(peer: Agent | Gateway) -> list[Certificate]:
    """Those of a gateway or agent, revoked ones too."""
    role, name = (PeerRole.AGENT, peer.agent_id) if isinstance(peer, Agent) else (PeerRole.GATEWAY, peer.gateway_id)
    its = Certificate.objects.filter(organization_id=peer.organization_id, role=role, name=name)
    return list(its.order_by("-not_after", "-pk")[:MAX_CERTIFICATES])


def list_enrolment_tokens(
    user: User, *, before: uuid.UUID | None, limit: int
) -> tuple[list[EnrolmentToken], uuid.UUID | None]:
    """A page of the tokens of the person's organizations, newest first, and `before` of the next page."""
    tokens = EnrolmentToken.objects.filter(organization__memberships__user=user).select_related("gateway")
    if before is not None:
        tokens = tokens.filter(pk__lt=before)
    page: list[Any] = list(tokens.order_by("-pk")[: limit + 1])
    return page[:limit], page[limit - 1].pk if len(page) > limit else None
