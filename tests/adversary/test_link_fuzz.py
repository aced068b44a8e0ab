"""Whatever comes over a gateway's link, the backend goes on, and nobody who has not proven himself changes a row."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.audit.models import AuditEvent
from apps.gateways.models import Agent, AgentSession, Command, Gateway
from apps.gateways.tests.factories import command_result, queue
from apps.gateways.tests.sockets import Communicator, LinkedAgent, LinkPki, connected, hear, in_database, link, say
from conftest import Cast
from testing_frames import FUZZ, GOLDEN, changed, hostile_frames, watching

pytestmark = pytest.mark.django_db(transaction=True)

OF_GATEWAYS = ["agent_online", "agent_offline", "aggregated_heartbeat", "command_refused", "discovery_batch", "goaway"]
OF_AGENTS = ["presence", "command_received", "events", "job_statuses", "probe_result", "error"]
SEALED = [example for kind in OF_AGENTS[1:-1] for example in GOLDEN[kind]]

Frames = list[str | bytes]


def rows() -> dict[str, Any]:
    """All that a peer could change without being anybody."""
    return {
        "gateways": list(Gateway.objects.values_list("gateway_id", "session_id", "connected_at")),
        "agents": Agent.objects.count(),
        "sessions": AgentSession.objects.count(),
        "commands": list(Command.objects.values_list("pk", "state")),
        "audit": AuditEvent.objects.count(),
    }


async def send_all(communicator: Communicator, frames: Frames) -> None:
    for frame in frames:
        if communicator.future.done():
            return
        await communicator.send_input(
            {"type": "websocket.receive", "text": frame}
            if isinstance(frame, str)
            else {"type": "websocket.receive", "bytes": frame}
        )


async def settled(communicator: Communicator) -> bool:
    """Wait until the link has been through everything; whether it is still open."""
    await send_all(communicator, ['{"type":"settled"}'])
    async with asyncio.timeout(10):
        while True:
            output = await communicator.output_queue.get()
            if output["type"] == "websocket.close":
                return False
            if "settled" in output.get("text", ""):
                # What is stored is stored in order, by another task: give it its turn.
                await asyncio.sleep(0.2)
                return True


async def completes_a_command(agent: LinkedAgent, communicator: Communicator) -> None:
    command = await in_database(lambda: queue(agent.row))
    while (await hear(communicator, "command"))["request_id"] != str(command.pk):
        pass
    await say(communicator, agent.events(command_result(command)))
    await hear(communicator, "events_ack", of=agent.agent_id)
    assert (await in_database(Command.objects.get, pk=command.pk)).state == "succeeded"


@FUZZ
@given(frames=st.lists(hostile_frames(["gateway_register", *OF_GATEWAYS, *OF_AGENTS]), min_size=5, max_size=20))
async def test_nobody_changes_a_row_before_he_is_somebody(
    gateway_pem: str, pki: LinkPki, cast: Cast, frames: Frames
) -> None:
    # A certificate that is not registered, none at all, and one that has not said its name.
    stranger = await in_database(lambda: pki.gateway_pem(cast.acme, "gw-unknown", is_registered=False))
    before = await in_database(rows)
    with watching():
        for pem in (stranger, None):
            communicator = link(pem)
            await communicator.connect(timeout=5)
            await send_all(communicator, frames)
            await communicator.disconnect(timeout=5)
        communicator = link(gateway_pem)
        await communicator.connect(timeout=5)
        await send_all(communicator, [json.dumps({"type": "agent_online"}), *frames])
        with suppress(TimeoutError, asyncio.CancelledError):
            await communicator.disconnect(timeout=5)
    assert await in_database(rows) == before


@FUZZ
@given(frames=st.lists(hostile_frames([*OF_GATEWAYS, *OF_AGENTS]), min_size=20, max_size=60))
async def test_the_link_survives_a_gateway(gateway_pem: str, pki: LinkPki, cast: Cast, frames: Frames) -> None:
    agents_before = await in_database(Agent.objects.count)
    with watching():
        async with connected(gateway_pem) as communicator:
            await send_all(communicator, frames)
            await settled(communicator)
    assert await in_database(Agent.objects.count) == agents_before
    async with connected(gateway_pem) as communicator:
        agent = await in_database(lambda: LinkedAgent(pki, cast.acme.pk))
        await agent.come_in(communicator)
        await completes_a_command(agent, communicator)
    await in_database(forget)


def forget() -> None:
    """Examples share the database."""
    Command.objects.all().delete()
    AgentSession.objects.all().delete()
    Agent.objects.all().delete()


@FUZZ
@given(said=st.lists(changed(SEALED), min_size=20, max_size=60))
async def test_the_link_survives_an_agent(
    gateway_pem: str, pki: LinkPki, cast: Cast, said: list[dict[str, Any]]
) -> None:
    """Also one that is newer, or wrong, and seals it: neither its gateway nor the other agents notice."""
    wrong, honest = await in_database(
        lambda: (LinkedAgent(pki, cast.acme.pk, "srv-data-01", incarnation="6f1c2b9e"), LinkedAgent(pki, cast.acme.pk))
    )
    async with connected(gateway_pem) as communicator:
        await wrong.come_in(communicator)
        await honest.come_in(communicator)
        with watching():
            frames: Frames = [wrong.seal({**frame, "token": wrong.token}) for frame in said]
            await send_all(communicator, frames)
            assert await settled(communicator), "an agent has ended the link of its gateway"
        await completes_a_command(honest, communicator)
    await in_database(forget)
