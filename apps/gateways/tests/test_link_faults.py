"""What goes wrong around the link: a database that fails in a batch, results that no column holds, many at once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.db import OperationalError, connection
from django.test.utils import CaptureQueriesContext

from apps.gateways.actions import reports
from apps.gateways.actions.sessions import close_gateway_session
from apps.gateways.enums import CommandState
from apps.gateways.models import Agent, AgentSession, Command, Gateway
from apps.gateways.signals import agents_lost
from apps.gateways.tests.factories import (
    SimulatedAgent,
    claim,
    claimed_ids,
    command_result,
    connect_gateway,
    gateway_hello,
    heard,
    make_agent,
    make_gateway,
    put,
    queue,
)
from apps.gateways.tests.sockets import (
    LinkedAgent,
    LinkPki,
    close_code,
    connected,
    hear,
    hear_nothing,
    in_database,
    link,
    say,
)
from conftest import Cast
from opsmap_protocol import messages
from opsmap_protocol.session import Session


@pytest.fixture
def linked(cast: Cast, pki: LinkPki) -> LinkedAgent:
    return LinkedAgent(pki, cast.acme.pk)


@pytest.mark.django_db(transaction=True)
async def test_nothing_is_acknowledged_that_was_not_committed(
    gateway_pem: str, linked: LinkedAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database fails after the last statement, at the commit: the agent tells it again, and it counts once."""
    stored = reports._store
    failures = iter([True])

    def fail_once(rows: Any) -> None:
        stored(rows)
        if next(failures, False):
            raise OperationalError("the server closed the connection unexpectedly")

    monkeypatch.setattr(reports, "_store", fail_once)
    async with connected(gateway_pem) as communicator:
        await linked.come_in(communicator)
        command = await in_database(lambda: queue(linked.row))
        await hear(communicator, "command")
        await say(communicator, linked.events(command_result(command)))
        assert await close_code(communicator) == 1011
    assert (await in_database(Command.objects.get)).state == CommandState.SENT
    assert (await in_database(lambda: linked.row)).acked_seq == 0
    linked.seq = 0
    async with connected(gateway_pem) as communicator:
        await linked.come_in(communicator)
        await say(communicator, linked.events(command_result(command)))
        assert (await hear(communicator, "events_ack"))["seq"] == 1
    assert (await in_database(Command.objects.get)).state == CommandState.SUCCEEDED


@pytest.mark.django_db(transaction=True)
async def test_a_fault_of_ours_leaves_no_gateway_that_seems_connected(
    gateway_pem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The application ends without a `disconnect` then."""
    communicator = link(gateway_pem)
    assert (await communicator.connect(timeout=5))[0]
    await say(communicator, gateway_hello("gw-1"))
    await hear(communicator, "gateway_registered")
    assert await in_database(Gateway.objects.filter(session_id__isnull=False).exists)

    def fail(*arguments: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Session, "read", fail)
    await say(communicator, messages.GoAway("anything"))
    with pytest.raises(ZeroDivisionError):
        await communicator.wait(timeout=5)
    assert not await in_database(Gateway.objects.filter(session_id__isnull=False).exists)


@pytest.mark.django_db(transaction=True)
async def test_a_gateway_speaks_for_the_agents_of_its_organization_only(
    cast: Cast, gateway_pem: str, linked: LinkedAgent, pki: LinkPki
) -> None:
    foreign_pem = await in_database(pki.gateway_pem, cast.umbrella, "gw-x")
    async with connected(gateway_pem) as ours, connected(foreign_pem, "gw-x") as theirs:
        await linked.come_in(ours)
        command = await in_database(lambda: queue(linked.row))
        await hear(ours, "command")
        # It announces the agent with its true words, and hands on what it overheard.
        await say(theirs, messages.AgentOnline("gw-x", "stolen", linked.register()))
        await say(theirs, linked.twin(token=linked.token).events(command_result(command)))
        await say(theirs, linked.offline())
        await say(theirs, messages.CommandRefused("gw-x", str(command.pk), "srv-1", "agent_offline", "gone"))
        await hear_nothing(theirs, "challenge", for_s=0.5)
        assert (await in_database(Command.objects.get)).state == CommandState.SENT
        assert (await in_database(lambda: linked.row)).is_online


def test_a_result_that_cannot_be_stored_is_the_failure_of_its_command(agent: SimulatedAgent) -> None:
    before, poisoned, after = (queue(agent) for _ in range(3))
    answers = agent.report(
        command_result(before), command_result(poisoned, result={"stdout": "\0"}), command_result(after)
    )
    assert answers[0]["seq"] == 3, "or it would come for ever"
    states = {command.pk: command for command in Command.objects.all()}
    assert [states[each.pk].state for each in (before, poisoned, after)] == ["succeeded", "failed", "succeeded"]
    assert states[poisoned.pk].detail.startswith("its result could not be stored: ")


def test_a_result_that_cannot_be_stored_stops_no_other_agent(agent: SimulatedAgent) -> None:
    other = make_agent(agent.gateway, "srv-2")
    poisoned, healthy = queue(agent), queue(other)
    agent.say(
        agent.events(command_result(poisoned, result={"stdout": "\0"})),
        other.events(command_result(healthy)),
    )
    assert set(Agent.objects.values_list("acked_seq", flat=True)) == {1}
    healthy.refresh_from_db()
    assert healthy.state == CommandState.SUCCEEDED


def test_words_of_a_session_that_is_not_in_use_are_not_stored(cast: Cast, agent: SimulatedAgent) -> None:
    command = queue(agent)
    old = SimulatedAgent(agent.gateway, token=agent.token)
    agent.connect(make_gateway(cast.acme, "gw-2"))
    assert old.report(command_result(command)) == []
    command.refresh_from_db()
    assert command.state == CommandState.QUEUED


def fleet(gateway: Gateway, count: int) -> list[SimulatedAgent]:
    return [make_agent(gateway, f"srv-{number}") for number in range(count)]


def test_the_loss_of_a_gateway_takes_as_many_statements_for_many_agents_as_for_few(cast: Cast) -> None:
    spare = make_gateway(cast.acme, "gw-spare")
    counts = []
    for size in (2, 12):
        gateway = make_gateway(cast.acme, f"gw-{size}")
        for agent in fleet(gateway, size):
            twin = SimulatedAgent(spare, agent.agent_id, agent.hostname, is_preferred=False)
            twin.connect()
            agent.connect()
            put(queue(agent), CommandState.SENT, lease_until=None)
        gateway.refresh_from_db()
        assert gateway.session_id is not None
        with (
            heard(agents_lost) as lost,
            CaptureQueriesContext(
                connection,
            ) as queries,
        ):
            close_gateway_session(gateway=gateway, session_id=gateway.session_id)
        counts.append(len(queries))
        assert lost == []
        assert Agent.objects.filter(gateway=spare, session_id__isnull=False).count() == size
        AgentSession.objects.all().delete()
        Agent.objects.all().delete()
    assert counts[0] == counts[1]


def test_of_a_lost_gateways_agents_only_those_without_another_session_are_lost(
    cast: Cast, agent: SimulatedAgent
) -> None:
    spare = make_gateway(cast.acme, "gw-2")
    safe = make_agent(spare, "srv-2")
    safe.connect(agent.gateway)
    command = put(queue(safe), CommandState.SENT)
    assert agent.gateway.session_id is not None
    with heard(agents_lost) as lost:
        close_gateway_session(gateway=agent.gateway, session_id=agent.gateway.session_id)
    assert [each.agent_id for told in lost for each in told["agents"]] == ["srv-1"]
    assert claimed_ids(spare) == [str(command.pk)], "at once, by the other way"


def test_a_gateway_that_comes_anew_does_not_take_its_agents_away_from_their_other_sessions(
    cast: Cast, agent: SimulatedAgent
) -> None:
    spare = make_gateway(cast.acme, "gw-2")
    SimulatedAgent(spare).connect()
    agent.connect()
    command = queue(agent)
    with heard(agents_lost) as lost:
        connect_gateway(agent.gateway)
    assert lost == []
    assert claimed_ids(agent.gateway) == []
    assert claimed_ids(spare) == [str(command.pk)]


def in_threads(*jobs: Callable[[], Any]) -> None:
    """All at once; raises what one of them raises."""
    faults: list[BaseException] = []
    begin = threading.Barrier(len(jobs))

    def run(job: Callable[[], Any]) -> None:
        try:
            begin.wait(10)
            job()
        except BaseException as error:
            faults.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert faults == []


@pytest.mark.django_db(transaction=True)
def test_two_connections_never_claim_the_same_command(cast: Cast) -> None:
    agent = make_agent(make_gateway(cast.acme))
    commands = {str(queue(agent).pk) for _ in range(60)}
    found: list[str] = []

    def claim_all() -> None:
        while ids := claimed_ids(agent.gateway):
            found.extend(ids)

    in_threads(claim_all, claim_all, claim_all)
    assert sorted(found) == sorted(commands)


@pytest.mark.django_db(transaction=True)
def test_sessions_that_change_while_commands_are_claimed_and_reported_lose_nothing(cast: Cast) -> None:
    """Two gateways come and go; whatever happens in between, nothing waits for a deadlock or stays leased to nobody."""
    first, second = make_gateway(cast.acme, "gw-1"), make_gateway(cast.acme, "gw-2")
    agents = fleet(first, 6)
    for agent in agents:
        for _ in range(3):
            queue(agent)

    def come_and_go(gateway: Gateway) -> None:
        for _ in range(5):
            session_id = connect_gateway(gateway)
            for agent in agents:
                SimulatedAgent(gateway, agent.agent_id, agent.hostname).connect()
            claim(gateway)
            close_gateway_session(gateway=gateway, session_id=session_id)

    def sweep() -> None:
        for _ in range(20):
            claim_by = Gateway.objects.filter(session_id__isnull=False).first()
            if claim_by is not None and claim_by.session_id is not None:
                claim(claim_by, claim_by.session_id)

    in_threads(lambda: come_and_go(first), lambda: come_and_go(second), sweep)
    assert not Agent.objects.filter(session_id__isnull=False).exists()
    assert not AgentSession.objects.exists()
    connect_gateway(first)
    for agent in agents:
        agent.connect(first)
    assert len(claimed_ids(first)) == 18
