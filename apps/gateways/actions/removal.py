"""Taking gateways and agents out of sight that are not coming back.

Their rows stay, and with them what was run on them: a command, an operation and the audit trail must go on saying where
something happened. What is removed is revoked first, so that nothing comes back that nobody sees; one that is enrolled
anew and connects is there again, with its history.
"""

from __future__ import annotations

from datetime import timedelta

from django.db import transaction
from django.utils import timezone

from apps.audit.actions import record_event
from apps.audit.actor import Actor
from apps.gateways.actions.revocation import revoke_agent, revoke_gateway
from apps.gateways.exceptions import StillInUseError
from apps.gateways.models import Agent, Gateway

LONG_GONE = timedelta(days=30)
_REASON = "It was removed."


@transaction.atomic
def remove_agent(*, agent: Agent, actor: Actor) -> bool:
    """Revoke it if it is not, and show it no more. Returns False if it was removed before.

    Raises:
        StillInUseError: it is neither revoked nor long gone.
    """
    locked = Agent.objects.select_for_update(no_key=True).get(pk=agent.pk)
    if locked.removed_at is not None:
        return False
    _check_is_gone(locked, locked.agent_id)
    if locked.revoked_at is None:
        revoke_agent(agent=locked, actor=actor, reason=_REASON)
    Agent.objects.filter(pk=agent.pk).update(removed_at=timezone.now())
    record_event(
        "agent.removed",
        actor=actor,
        organization_id=locked.organization_id,
        target={"type": "agent", "id": str(locked.pk), "agentId": locked.agent_id},
    )
    return True


@transaction.atomic
def remove_gateway(*, gateway: Gateway, actor: Actor) -> bool:
    """As `remove_agent`. Its agents stay: they come by other gateways, or are offline."""
    locked = Gateway.objects.select_for_update(no_key=True).get(pk=gateway.pk)
    if locked.removed_at is not None:
        return False
    _check_is_gone(locked, locked.gateway_id)
    if locked.revoked_at is None:
        revoke_gateway(gateway=locked, actor=actor, reason=_REASON)
    Gateway.objects.filter(pk=gateway.pk).update(removed_at=timezone.now())
    record_event(
        "gateway.removed",
        actor=actor,
        organization_id=locked.organization_id,
        target={"type": "gateway", "id": str(locked.pk), "gatewayId": locked.gateway_id},
    )
    return True


def _check_is_gone(peer: Agent | Gateway, name: str) -> None:
    last_seen = peer.last_seen_at
    is_long_gone = not peer.is_online and (last_seen is None or last_seen < timezone.now() - LONG_GONE)
    if peer.revoked_at is None and not is_long_gone:
        raise StillInUseError(
            f"{name} was here within the last {LONG_GONE.days} days. Revoke it first, if it must not come back."
        )
