"""Gateways, agents and single certificates that do not count any more.

The record decides, for every connection that begins. Those that are there are ended by the links, which look for what
was revoked every second: a lost hint costs no more than that.
"""

from __future__ import annotations

import uuid

from django.db import transaction
from django.db.models import QuerySet
from django.db.models.functions import Now
from django.utils import timezone

from apps.audit.actions import record_event
from apps.audit.actor import Actor
from apps.gateways.actions.commands import change_state
from apps.gateways.actions.sessions import close_gateway_session
from apps.gateways.dispatch import wake_gateway_on_commit
from apps.gateways.enums import OPEN_STATES, CommandState
from apps.gateways.models import Agent, AgentSession, Certificate, Command, Gateway
from apps.gateways.signals import agents_lost
from opsmap_protocol.enums import PeerRole
from opsmap_protocol.identity import Identity

_MAX_REASON = 300


@transaction.atomic
def revoke_agent(*, agent: Agent, actor: Actor, reason: str) -> None:
    """Cut the agent off, for good until it is enrolled anew: its sessions and open commands end, and nothing that it
    says is believed from then on. Doing it twice is doing it once; `agent` knows it from here on.
    """
    row = Agent.objects.select_for_update(no_key=True).get(pk=agent.pk)
    if row.revoked_at is None:
        row.revoked_at = timezone.now()
        row.save(update_fields=["revoked_at"])
        identity = Identity(str(row.organization_id), PeerRole.AGENT, row.agent_id)
        prints = _revoke_all(identity, reason)
        _end_agent_sessions(row, f"agent {row.agent_id} was revoked")
        _end_commands(row, reason)
        record_event(
            "agent.revoked",
            actor=actor,
            organization_id=row.organization_id,
            target={"type": "agent", "agentId": row.agent_id},
            details={"reason": reason[:_MAX_REASON], "certificates": prints},
        )
    agent.refresh_from_db(fields=["revoked_at", "session_id", "token"])


@transaction.atomic
def revoke_gateway(*, gateway: Gateway, actor: Actor, reason: str) -> None:
    """Cut the gateway off, for good until it is enrolled anew. Its agents go over to their other gateways, or are out
    of reach. Doing it twice is doing it once; `gateway` knows it from here on.
    """
    row = Gateway.objects.select_for_update(no_key=True).get(pk=gateway.pk)
    if row.revoked_at is None:
        row.revoked_at = timezone.now()
        row.save(update_fields=["revoked_at"])
        prints = _revoke_all(Identity(str(row.organization_id), PeerRole.GATEWAY, row.gateway_id), reason)
        _end_gateway_session(row)
        record_event(
            "gateway.revoked",
            actor=actor,
            organization_id=row.organization_id,
            target={"type": "gateway", "gatewayId": row.gateway_id},
            details={"reason": reason[:_MAX_REASON], "certificates": prints},
        )
    gateway.refresh_from_db(fields=["revoked_at", "session_id"])


@transaction.atomic
def revoke_certificate(*, certificate: Certificate, actor: Actor, reason: str) -> None:
    """This one does not count any more; its owner may come with another one, and is disconnected for that.

    Doing it twice is doing it once; `certificate` knows it from here on.
    """
    identity = Identity(str(certificate.organization_id), PeerRole(certificate.role), certificate.name)
    _lock_owner(identity)
    if _revoke(Certificate.objects.filter(pk=certificate.pk), reason):
        _disconnect(identity)
        record_event(
            "certificate.revoked",
            actor=actor,
            organization_id=certificate.organization_id,
            target={"type": str(identity.role), f"{identity.role}Id": identity.name},
            details={"reason": reason[:_MAX_REASON], "certificateSha256": certificate.fingerprint},
        )
    certificate.refresh_from_db(fields=["revoked_at", "revocation_reason"])


def replace_former(*, identity: Identity, reason: str) -> list[str]:
    """Its owner gets a new certificate by enrolment: the former ones do not count any more. Returns their fingerprints.

    In the caller's transaction, which tells of it.
    """
    _lock_owner(identity)
    prints = _revoke_all(identity, reason)
    _disconnect(identity)
    return prints


# What is revoked


def _lock_owner(identity: Identity) -> None:
    """Before its certificates, as everybody does it: two revocations at once must not wait for each other."""
    list(_owners(identity).select_for_update(no_key=True).values_list("pk", flat=True))


def _owners(identity: Identity) -> QuerySet[Gateway] | QuerySet[Agent]:
    if identity.role is PeerRole.GATEWAY:
        return Gateway.objects.filter(organization_id=identity.organization_id, gateway_id=identity.name)
    return Agent.objects.filter(organization_id=identity.organization_id, agent_id=identity.name)


def _revoke_all(identity: Identity, reason: str) -> list[str]:
    found = Certificate.objects.filter(organization_id=identity.organization_id, role=identity.role, name=identity.name)
    prints = _revoke(found, reason)
    _wake_gateways(identity.organization_id)
    return prints


def _revoke(certificates: QuerySet[Certificate], reason: str) -> list[str]:
    """The fingerprints of those that counted until now. By the database's clock: links look for what is new by it."""
    counting = list(certificates.filter(revoked_at=None).values_list("fingerprint", flat=True))
    if not counting:
        return []
    revoked = Certificate.objects.filter(fingerprint__in=counting, revoked_at=None)
    revoked.update(revoked_at=Now(), revocation_reason=reason[:_MAX_REASON])
    return counting


# What ends by it


def _disconnect(identity: Identity) -> None:
    """Whoever it is comes again, and is asked for a certificate that counts."""
    for owner in _owners(identity):
        if isinstance(owner, Gateway):
            _end_gateway_session(owner)
        else:
            _end_agent_sessions(owner, f"a certificate of agent {owner.agent_id} was revoked")
    _wake_gateways(identity.organization_id)


def _end_gateway_session(gateway: Gateway) -> None:
    if gateway.session_id is not None:
        close_gateway_session(gateway=gateway, session_id=gateway.session_id)
    wake_gateway_on_commit(gateway.pk)


def _end_agent_sessions(agent: Agent, reason: str) -> None:
    """The agent is locked.

    What it has said and a gateway still holds does not count either: its key is believed again when its certificate is
    shown and looked at again.
    """
    AgentSession.objects.filter(agent=agent).delete()
    was_online = agent.session_id is not None
    Agent.objects.filter(pk=agent.pk).update(session_id=None, token="", certificate="", changed_at=Now())
    agent.session_id, agent.token = None, ""
    if was_online:
        agents_lost.send(sender=Agent, agents=[agent], reason=reason)


def _end_commands(agent: Agent, reason: str) -> None:
    """What was not sent never will be; of what was sent nobody will hear any more."""
    now = timezone.now()
    for command_id in _open_commands(agent):
        cancelled = change_state(
            command_id,
            CommandState.CANCELLED,
            from_states={CommandState.QUEUED},
            detail=f"The agent was revoked before this was sent: {reason}"[:_MAX_REASON],
            finished_at=now,
        )
        if not cancelled:
            change_state(
                command_id,
                CommandState.UNKNOWN,
                detail=f"The agent was revoked; this may have run: {reason}"[:_MAX_REASON],
                finished_at=now,
            )


def _open_commands(agent: Agent) -> list[uuid.UUID]:
    return list(Command.objects.filter(agent=agent, state__in=sorted(OPEN_STATES)).values_list("pk", flat=True))


def _wake_gateways(organization_id: str) -> None:
    """Every gateway of the organization: each of them may let the revoked one in."""
    here = Gateway.objects.filter(organization_id=organization_id, session_id__isnull=False)
    for gateway_id in here.values_list("pk", flat=True):
        wake_gateway_on_commit(gateway_id)
