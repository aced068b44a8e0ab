"""Gateways, agents, certificates and enrolment tokens, as the API shows them (camelCase)."""

from __future__ import annotations

import shlex
from datetime import datetime
from typing import Any

from django.utils import timezone

from apps.gateways.models import Agent, AgentDiscovery, AgentSession, Certificate, EnrolmentToken, Gateway
from apps.gateways.registry import list_certificates
from apps.gateways.selectors import describe_agent_briefly
from opsmap_protocol.enums import PeerRole
from opsmap_protocol.messages import RemoteSettings

SETTINGS = {
    "logLevel": "log_level",
    "heartbeatIntervalSecs": "heartbeat_interval_secs",
    "discoveryIntervalSecs": "discovery_interval_secs",
    "disabledNatives": "disabled_natives",
}
"""The keys of `RemoteSettings` as the API names them."""


def describe_agent(agent: Agent) -> dict[str, Any]:
    """A line of a list. The agent comes from the registry, with its sessions and the end of its certificate."""
    return {
        **describe_agent_briefly(agent),
        "state": agent.standing,
        "gateway": agent.gateway.gateway_id if agent.gateway else None,
        "zone": agent.gateway.zone if agent.gateway else "",
        "os": agent.os,
        "labels": agent.labels,
        "capabilities": agent.capabilities,
        "version": agent.version,
        "load": agent.load,
        "connectedAt": agent.connected_at,
        "lastSeenAt": agent.last_seen_at,
        "certificateEndsAt": certificate_end_of(agent),
        "sessions": [_describe_session(session, agent) for session in agent.sessions.all()],
        "quarantine": _describe_quarantine(agent),
        "revokedAt": agent.revoked_at,
        "removedAt": agent.removed_at,
    }


def describe_agent_fully(agent: Agent) -> dict[str, Any]:
    told = AgentDiscovery.objects.filter(agent=agent).values_list("discovery_id", "discovered_at").first()
    return {
        **describe_agent(agent),
        "certificates": [describe_certificate(each) for each in list_certificates(agent)],
        "settings": describe_settings(agent.settings),
        "lastDiscovery": {"discoveryId": told[0], "discoveredAt": told[1]} if told else None,
        # Events that its full buffer had to drop; never what a command did.
        "lostEvents": {"count": agent.lost_events, "lastAt": agent.lost_events_at},
    }


def _describe_session(session: AgentSession, agent: Agent) -> dict[str, Any]:
    is_in_use = (agent.gateway_id, agent.session_id) == (session.gateway_id, session.session_id)
    return {
        "gateway": session.gateway.gateway_id,
        "since": session.opened_at,
        "isInUse": is_in_use,
        "isPreferred": session.is_preferred,
        "isDraining": session.is_draining,
    }


def _describe_quarantine(agent: Agent) -> dict[str, Any] | None:
    if agent.quarantined_at is None:
        return None
    return {"since": agent.quarantined_at, "reason": agent.quarantine_reason}


def describe_settings(stored: dict[str, Any]) -> dict[str, Any]:
    """All keys; null is what the host's own file says."""
    default = RemoteSettings()
    return {shown: stored.get(name, getattr(default, name)) for shown, name in SETTINGS.items()}


def describe_gateway(gateway: Gateway) -> dict[str, Any]:
    """A line of a list; from the registry, with the end of its certificate."""
    return {
        "id": str(gateway.pk),
        "gatewayId": gateway.gateway_id,
        "state": gateway.standing,
        "zone": gateway.zone,
        "labels": gateway.labels,
        "version": gateway.version,
        "load": gateway.load,
        "isOnline": gateway.is_online,
        "connectedAt": gateway.connected_at,
        "lastSeenAt": gateway.last_seen_at,
        "certificateEndsAt": certificate_end_of(gateway),
        "revokedAt": gateway.revoked_at,
        "removedAt": gateway.removed_at,
    }


def describe_gateway_fully(gateway: Gateway) -> dict[str, Any]:
    return {
        **describe_gateway(gateway),
        "certificates": [describe_certificate(each) for each in list_certificates(gateway)],
    }


def certificate_end_of(peer: Agent | Gateway) -> datetime | None:
    """What the registry's query found; null if no certificate of it counts."""
    end: datetime | None = getattr(peer, "certificate_ends_at")  # noqa: B009 - an annotation, which types do not know
    return end


def describe_certificate(certificate: Certificate) -> dict[str, Any]:
    return {
        "fingerprint": certificate.fingerprint,
        "serial": certificate.serial,
        "notBefore": certificate.not_before,
        "notAfter": certificate.not_after,
        "createdAt": certificate.created_at,
        "enrolmentTokenId": str(certificate.enrolment_token_id) if certificate.enrolment_token_id else None,
        "revokedAt": certificate.revoked_at,
        "revocationReason": certificate.revocation_reason,
    }


def describe_enrolment_token(token: EnrolmentToken) -> dict[str, Any]:
    """Everything but its text, which nobody has."""
    return {
        "id": str(token.pk),
        "organizationId": str(token.organization_id),
        "state": token_state(token),
        "role": token.role,
        "description": token.description,
        "prefix": token.prefix,
        "namePattern": token.name_pattern,
        "gateway": token.gateway.gateway_id if token.gateway else None,
        "zone": token.zone,
        "mayReplace": token.may_replace,
        "maxUses": token.max_uses,
        "useCount": token.use_count,
        "createdBy": token.created_by.get("email") or token.created_by.get("id", ""),
        "createdAt": token.created_at,
        "lastUsedAt": token.last_used_at,
        "expiresAt": token.expires_at,
        "revokedAt": token.revoked_at,
    }


def token_state(token: EnrolmentToken) -> str:
    """Why a token serves no more, or that it does: valid, spent, expired, revoked."""
    if token.revoked_at is not None:
        return "revoked"
    if token.use_count >= token.max_uses:
        return "spent"
    return "expired" if token.expires_at <= timezone.now() else "valid"


def enrolment_commands(token_text: str, token: EnrolmentToken, web_url: str) -> dict[str, str]:
    """What to paste on the new host, as root. The token goes by standard input: anybody there sees command lines.

    An agent comes by a gateway of its zone, whose address only people know: `GATEWAY` stands for it.
    """
    if token.role == PeerRole.GATEWAY:
        words = ["opsmap-gateway", "enroll", "--backend", web_url]
        words += ["--zone", token.zone] if token.zone else []
    else:
        words = ["opsmap-agent", "enroll", "--gateway", "wss://GATEWAY:8444"]
    if not {"*", "?"} & set(token.name_pattern):
        words += ["--id", token.name_pattern]
    return {"enroll": f"{shlex.join([*words, '--token-file', '-'])} <<'TOKEN'\n{token_text}\nTOKEN"}
