"""What hosts found out about themselves, as it comes in batches through their gateways.

Most of it is the difference to what the host told before, and is merged by the database. A difference to something
that we do not have counts for nothing, and the agent is asked for everything.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Protocol

from django.db import DataError, connection, transaction
from django.utils import timezone

from apps.gateways import signals
from apps.gateways.actions.discoveries import close_request, request_everything
from apps.gateways.dispatch import storable
from apps.gateways.models import Agent, Gateway
from opsmap_protocol import codec, messages
from opsmap_protocol.enums import DiscoveryKind
from opsmap_protocol.errors import InvalidIdentityError, MalformedMessageError, ProtocolError
from opsmap_trust.inspection import CertifiedKey
from opsmap_trust.keys import VerifyingKey
from opsmap_trust.seals import SealError, check_seal, signer_of

MAX_STORED_BYTES = 4 * 1024 * 1024
"""What all differences together may amount to; an agent keeps the whole of its findings below 1 MiB."""

_MAX_FINDINGS = 20_000
_MAX_KEY = 512
_MAX_ID = 64
_MAX_FAULT = 500
_MAX_AHEAD = timedelta(hours=24)
"""The newest counts, so one that a wrong clock has dated far ahead would keep out all that follow."""


class Certificates(Protocol):
    """Knows what agents' certificates say."""

    def inspect(self, encoded: str) -> CertifiedKey: ...


_REPLACE = """
INSERT INTO gateways_agentdiscovery AS d (agent_id, organization_id, discovery_id, discovered_at, findings, faults)
VALUES (%(agent)s, %(organization)s, %(id)s, %(at)s, %(findings)s, %(faults)s)
ON CONFLICT (agent_id) DO UPDATE
SET discovery_id = excluded.discovery_id, discovered_at = excluded.discovered_at, findings = excluded.findings,
    faults = excluded.faults
WHERE d.discovered_at < excluded.discovered_at
"""

# Whoever waits for the row's lock looks at its new version afterwards: of two differences to one base one counts.
_MERGE = """
UPDATE gateways_agentdiscovery d
SET discovery_id = %(id)s, discovered_at = %(at)s, faults = %(faults)s, findings = d.findings || (
    SELECT COALESCE(jsonb_object_agg(kind, merged), '{}')
    FROM jsonb_object_keys(%(findings)s::jsonb || %(removed)s::jsonb) AS kind
    CROSS JOIN LATERAL (
        SELECT (COALESCE(d.findings -> kind, '{}') - ARRAY(
            SELECT jsonb_array_elements_text(COALESCE(%(removed)s::jsonb -> kind, '[]'))
        )) || COALESCE(%(findings)s::jsonb -> kind, '{}') AS merged
    ) AS each
)
WHERE d.agent_id = %(agent)s AND d.discovery_id = %(base)s AND d.discovered_at < %(at)s
RETURNING octet_length(d.findings::text)
"""

_IS_NEWS = "SELECT NOT EXISTS (SELECT FROM gateways_agentdiscovery WHERE agent_id = %s AND discovered_at >= %s)"


class _LostBaseError(Exception):
    """We do not have what a difference builds on, or it has grown beyond all bounds."""


@transaction.atomic
def store_discoveries(
    *, gateway: Gateway, discoveries: Sequence[dict[str, Any]], certificates: Certificates
) -> list[str]:
    """Keep the newest of each agent, if the agent sealed it. Returns what is wrong with those that do not count."""
    names = {name for each in discoveries if isinstance(name := each.get("agent_id"), str)}
    agents = Agent.objects.filter(organization_id=gateway.organization_id, agent_id__in=names, revoked_at=None)
    columns = ("pk", "agent_id", "certificate", "organization_id", "gateway_id")
    known = {agent.agent_id: agent for agent in agents.only(*columns)}
    complaints: list[str] = []
    # In one order, so that two batches cannot wait for each other. Those of one agent stay in theirs.
    for data in sorted(discoveries, key=lambda each: str(each.get("agent_id"))):
        try:
            agent = known.get(str(data.get("agent_id")))
            if agent is None:
                raise InvalidIdentityError(f"the agent {str(data.get('agent_id'))[:127]!r} is unknown")
            _check_sealed(data, agent, certificates)
            found = codec.from_plain(storable(data), messages.DiscoveryResult)
            _check_bounds(found)
            _take(agent, found)
        except ProtocolError as error:
            complaints.append(str(error))
        except DataError as error:
            complaints.append(f"it cannot be stored: {str(error).splitlines()[0]}")
    return complaints


def _check_sealed(data: dict[str, Any], agent: Agent, certificates: Certificates) -> None:
    certified = certificates.inspect(agent.certificate)
    if signer_of(data) != certified.key_id:
        raise SealError(f"a discovery of {agent.agent_id} is sealed with another key")
    check_seal(data, VerifyingKey(certified.public_bytes, "agent"))


def _check_bounds(found: messages.DiscoveryResult) -> None:
    """Raises MalformedMessageError for what no agent of ours would say."""
    kinds = {*found.findings, *found.removed, *found.faults}
    if unknown := kinds - set(DiscoveryKind):
        raise MalformedMessageError(f"{found.agent_id} discovered the unknown kind {min(unknown)[:40]!r}")
    if not 0 < len(found.discovery_id) <= _MAX_ID:
        raise MalformedMessageError(f"a discovery of {found.agent_id} has no id of 1 to {_MAX_ID} characters")
    if found.discovered_at > timezone.now() + _MAX_AHEAD:
        raise MalformedMessageError(f"a discovery of {found.agent_id} is dated more than a day ahead: see its clock")
    if sum(map(len, found.findings.values())) + sum(map(len, found.removed.values())) > _MAX_FINDINGS:
        raise MalformedMessageError(f"a discovery of {found.agent_id} has more than {_MAX_FINDINGS} findings")
    for kind, findings in found.findings.items():
        for finding in findings:
            key = finding.get("key")
            if not isinstance(key, str) or not 0 < len(key) <= _MAX_KEY:
                raise MalformedMessageError(f"one of the {kind} of {found.agent_id} has no key of its own")


def _take(agent: Agent, found: messages.DiscoveryResult) -> None:
    values: dict[str, Any] = {
        "agent": agent.pk,
        "organization": agent.organization_id,
        "id": found.discovery_id,
        "at": found.discovered_at,
        "base": found.base_id,
        "findings": json.dumps({kind: {each["key"]: each for each in all_} for kind, all_ in found.findings.items()}),
        "removed": json.dumps(found.removed),
        "faults": json.dumps({kind: fault[:_MAX_FAULT] for kind, fault in found.faults.items()}),
    }
    try:
        with transaction.atomic():
            is_stored = _replace(values) if found.base_id is None else _merge(values)
    except _LostBaseError:
        request_everything(agent)
        return
    if is_stored:
        close_request(agent.pk, found.discovery_id, is_full=found.base_id is None)
        # A difference that only proves that somebody has looked is no news.
        if found.base_id is None or found.findings or found.removed:
            kinds = sorted({*found.findings, *found.removed})
            signals.agent_discovered.send(sender=None, agent=agent, discovery_id=found.discovery_id, kinds=kinds)


def _replace(values: dict[str, Any]) -> bool:
    with connection.cursor() as cursor:
        cursor.execute(_REPLACE, values)
        return bool(cursor.rowcount == 1)


def _merge(values: dict[str, Any]) -> bool:
    """False if it is known already, or older than what is.

    Raises:
        _LostBaseError: everything has to come again.
    """
    with connection.cursor() as cursor:
        cursor.execute(_MERGE, values)
        merged = cursor.fetchone()
        if merged is not None:
            if merged[0] > MAX_STORED_BYTES:
                raise _LostBaseError
            return True
        cursor.execute(_IS_NEWS, [values["agent"], values["at"]])
        row = cursor.fetchone()
    if row is not None and row[0]:
        raise _LostBaseError
    return False
