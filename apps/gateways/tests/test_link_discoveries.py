"""Discoveries by the link: batches of a gateway, and questions to its agents."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from apps.gateways.actions.discoveries import request_discovery
from apps.gateways.models import AgentDiscovery
from apps.gateways.tests.factories import AT, SYSTEM
from apps.gateways.tests.sockets import LinkedAgent, LinkPki, connected, hear, in_database, say
from conftest import Cast
from opsmap_protocol import messages

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def agent(cast: Cast, pki: LinkPki) -> LinkedAgent:
    return LinkedAgent(pki, cast.acme.pk)


def discovery(agent: LinkedAgent, number: int, at: Any, **fields: Any) -> dict[str, Any]:
    findings = {"ports": [{"key": "tcp:0.0.0.0:5432", "port": 5432, "nul": "\0"}]}
    return agent.sealer.seal_object(messages.DiscoveryResult(agent.agent_id, f"d-{number}", at, findings, **fields))


async def test_a_question_reaches_the_agent_under_the_seal(gateway_pem: str, agent: LinkedAgent, pki: LinkPki) -> None:
    async with connected(gateway_pem) as communicator:
        await agent.come_in(communicator)
        row = await in_database(lambda: agent.row)
        discovery_id = await in_database(request_discovery, agent=row, types=["ports"], actor=SYSTEM)
        question = await hear(communicator, "discover", of="srv-1")
        assert (question["discovery_id"], question["discover_types"]) == (discovery_id, ["ports"])
        assert not question.get("is_full")
        pki.check_backend_seal(question, agent.organization_id, agent.trusted)


async def test_a_lost_base_is_asked_for_at_once(gateway_pem: str, agent: LinkedAgent) -> None:
    async with connected(gateway_pem) as communicator:
        await agent.come_in(communicator)
        lost = discovery(agent, 2, AT, base_id="d-1")
        await say(communicator, messages.DiscoveryBatch("gw-1", "batch-1", [lost]))
        question = await hear(communicator, "discover", of="srv-1")
        assert question["is_full"]


async def test_discoveries_are_kept_if_sealed_and_newer_and_acknowledged_in_any_case(
    cast: Cast, gateway_pem: str, agent: LinkedAgent, caplog: pytest.LogCaptureFixture
) -> None:
    stranger = LinkedAgent(agent.pki, agent.organization_id, "srv-9")
    other = LinkedAgent(agent.pki, agent.organization_id, "srv-2")
    async with connected(gateway_pem) as communicator:
        await agent.come_in(communicator)
        await other.come_in(communicator)
        newest, older = discovery(agent, 2, AT), discovery(agent, 1, AT - timedelta(hours=1))
        forged = discovery(other, 3, AT) | {"agent_id": "srv-1"}
        changed = discovery(other, 4, AT) | {"discovery_id": "d-5"}
        found = [newest, older, forged, changed, discovery(stranger, 6, AT), {"agent_id": 7}]
        await say(communicator, messages.DiscoveryBatch("gw-1", "batch-1", found))
        assert (await hear(communicator, "discovery_ack"))["batch_id"] == "batch-1"
        stored = await in_database(AgentDiscovery.objects.select_related("agent").get)
        assert (stored.agent.agent_id, stored.discovery_id) == ("srv-1", "d-2")
        key = "tcp:0.0.0.0:5432"
        assert stored.findings == {"ports": {key: {"key": key, "port": 5432, "nul": "\ufffd"}}}
    assert caplog.text.count("a discovery does not count") == 4
