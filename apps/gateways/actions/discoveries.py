"""What hosts found out about themselves, as it comes in batches through their gateways."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from typing import Any, Protocol

from django.db import DataError, connection, transaction

from apps.gateways.dispatch import storable
from apps.gateways.models import Agent, Gateway
from opsmap_protocol import codec, messages
from opsmap_protocol.errors import InvalidIdentityError, ProtocolError
from opsmap_trust.inspection import CertifiedKey
from opsmap_trust.keys import VerifyingKey
from opsmap_trust.seals import SealError, check_seal, signer_of


class Certificates(Protocol):
    """Knows what agents' certificates say."""

    def inspect(self, encoded: str) -> CertifiedKey: ...


_STORE = """
INSERT INTO gateways_agentdiscovery AS d (agent_id, organization_id, discovery_id, discovered_at, findings)
VALUES (%s, %s, %s, %s, %s)
ON CONFLICT (agent_id) DO UPDATE
SET discovery_id = excluded.discovery_id, discovered_at = excluded.discovered_at, findings = excluded.findings
WHERE d.discovered_at < excluded.discovered_at
"""


@transaction.atomic
def store_discoveries(
    *, gateway: Gateway, discoveries: Sequence[dict[str, Any]], certificates: Certificates
) -> list[str]:
    """Keep the newest of each agent, if the agent sealed it. Returns what is wrong with those that do not count."""
    names = {name for each in discoveries if isinstance(name := each.get("agent_id"), str)}
    agents = Agent.objects.filter(organization_id=gateway.organization_id, agent_id__in=names)
    known = {agent.agent_id: agent for agent in agents.only("pk", "agent_id", "certificate", "organization_id")}
    complaints: list[str] = []
    # In one order, so that two batches cannot wait for each other.
    for data in sorted(discoveries, key=lambda each: str(each.get("agent_id"))):
        try:
            agent = known.get(str(data.get("agent_id")))
            if agent is None:
                raise InvalidIdentityError(f"the agent {str(data.get('agent_id'))[:127]!r} is unknown")
            _check(data, agent, certificates)
            with transaction.atomic():
                _store(agent.pk, gateway.organization_id, codec.from_plain(storable(data), messages.DiscoveryResult))
        except ProtocolError as error:
            complaints.append(str(error))
        except DataError as error:
            complaints.append(f"it cannot be stored: {str(error).splitlines()[0]}")
    return complaints


def _check(data: dict[str, Any], agent: Agent, certificates: Certificates) -> None:
    certified = certificates.inspect(agent.certificate)
    if signer_of(data) != certified.key_id:
        raise SealError(f"a discovery of {agent.agent_id} is sealed with another key")
    check_seal(data, VerifyingKey(certified.public_bytes, "agent"))


def _store(agent_pk: uuid.UUID, organization_id: uuid.UUID, found: messages.DiscoveryResult) -> None:
    with connection.cursor() as cursor:
        findings = json.dumps(found.findings)
        values: list[Any] = [agent_pk, organization_id, found.discovery_id[:64], found.discovered_at, findings]
        cursor.execute(_STORE, values)
