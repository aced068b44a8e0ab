"""What is decided about the fleet, as it goes by the link."""

from __future__ import annotations

import pytest
from django.utils import timezone

from apps.gateways.actions.quarantine import quarantine_agent, release_agent
from apps.gateways.actions.settings import change_settings
from apps.gateways.models import Agent, Gateway
from apps.gateways.tests.factories import SYSTEM, command_result, queue
from apps.gateways.tests.sockets import LinkedAgent, LinkPki, connected, hear, hear_nothing, in_database, say
from conftest import Cast
from opsmap_protocol import messages

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def agent(cast: Cast, pki: LinkPki) -> LinkedAgent:
    return LinkedAgent(pki, cast.acme.pk)


async def test_settings_are_told_sealed_and_with_every_session(
    gateway_pem: str, agent: LinkedAgent, pki: LinkPki
) -> None:
    def change(**changes: object) -> list[str]:
        return change_settings(organization_id=agent.organization_id, agents=[agent.row], changes=changes, actor=SYSTEM)

    async with connected(gateway_pem) as communicator:
        await agent.stand_by(communicator)
        first = await hear(communicator, "config_update")
        assert first["settings"] == {"disabled_natives": []}
        await in_database(lambda: change(log_level="debug", disabled_natives=["kill"]))
        second = await hear(communicator, "config_update")
        assert (second["settings"]["log_level"], second["settings"]["disabled_natives"]) == ("debug", ["kill"])
        assert second["revision"] != first["revision"]
        pki.check_backend_seal(second, agent.organization_id, agent.trusted)
        await agent.stand_by(communicator)
        again = await hear(communicator, "config_update")
        assert (again["revision"], again["settings"]) == (second["revision"], second["settings"])
        await in_database(lambda: change(log_level=None, disabled_natives=[]))
        last = await hear(communicator, "config_update")
        assert (last["revision"], last["settings"]) == (first["revision"], first["settings"])


async def test_an_agent_in_quarantine_keeps_its_session_and_gets_no_commands(
    gateway_pem: str, agent: LinkedAgent
) -> None:
    async with connected(gateway_pem) as communicator:
        await agent.come_in(communicator)
        stale = await in_database(lambda: agent.row)
        await in_database(lambda: quarantine_agent(agent=stale, actor=SYSTEM, reason="strange"))
        command = await in_database(lambda: queue(stale))
        await hear_nothing(communicator, "command")
        assert await in_database(lambda: agent.row.is_online)
        await in_database(lambda: release_agent(agent=stale, actor=SYSTEM))
        # The next one wakes the link; what waited comes first.
        await in_database(lambda: queue(agent.row))
        assert (await hear(communicator, "command"))["request_id"] == str(command.pk)


async def test_a_gateway_tells_what_it_carries(gateway_pem: str, agent: LinkedAgent) -> None:
    async with connected(gateway_pem) as communicator:
        await agent.come_in(communicator)
        beat = messages.AggregatedHeartbeat("gw-1", [], timezone.now(), losses={"queue_full": 3})
        await say(communicator, beat)
        command = await in_database(lambda: queue(agent.row))
        await hear(communicator, "command")
        # Frames are stored in the order they come: what is acknowledged is stored after the heartbeat.
        await say(communicator, agent.events(command_result(command)))
        await hear(communicator, "events_ack")
        assert await in_database(lambda: Gateway.objects.get().load) == {"agents": 1, "losses": {"queue_full": 3}}
        assert await in_database(lambda: Agent.objects.get().is_online)
