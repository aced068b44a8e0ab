"""Events of journals: each counted once, in order, and only about the agent's own commands."""

from __future__ import annotations

from typing import Any

import pytest

from apps.audit.models import AuditEvent
from apps.gateways.actions.reports import release_refused
from apps.gateways.enums import CommandState
from apps.gateways.models import Agent, Command
from apps.gateways.signals import commands_ended, health_reported
from apps.gateways.tests.factories import (
    AT,
    SimulatedAgent,
    command_result,
    health_changed,
    heard,
    job_started,
    job_status,
    make_agent,
    make_gateway,
    put,
    queue,
)
from conftest import Cast
from opsmap_protocol import messages
from opsmap_protocol.enums import CommandOutcome, JobStatus


def state_of(command: Command) -> str:
    return Command.objects.get(pk=command.pk).state


def test_events_are_acknowledged_up_to_the_last_one_stored(agent: SimulatedAgent) -> None:
    first, second = queue(agent), queue(agent)
    frames = agent.report(command_result(first), command_result(second))
    assert frames == [{"type": "events_ack", "target_agent": "srv-1", "incarnation": "journal-1", "seq": 2}]
    assert agent.row.acked_seq == 2
    assert {state_of(first), state_of(second)} == {CommandState.SUCCEEDED}


def test_events_that_were_stored_before_are_acknowledged_and_not_applied_again(agent: SimulatedAgent) -> None:
    command = queue(agent)
    agent.report(command_result(command, result={"uptime": 1}))
    with heard(commands_ended) as news:
        frames = agent.report(command_result(command, CommandOutcome.FAILED, error="no"), seqs=[1])
    assert news == []
    assert state_of(command) == CommandState.SUCCEEDED
    assert frames[0]["seq"] == 1, "acknowledged again: the first ack may have been lost"


def test_events_overlapping_with_stored_ones_count_from_the_first_new_one(agent: SimulatedAgent) -> None:
    old, new = queue(agent), queue(agent)
    agent.report(command_result(old))
    frames = agent.report(command_result(old, CommandOutcome.FAILED), command_result(new), seqs=[1, 2])
    assert (state_of(old), state_of(new)) == (CommandState.SUCCEEDED, CommandState.SUCCEEDED)
    assert frames[0]["seq"] == 2


def test_events_behind_a_gap_wait_until_the_missing_ones_have_come(agent: SimulatedAgent) -> None:
    commands = [queue(agent) for _ in range(4)]
    agent.report(command_result(commands[0]))
    frames = agent.report(*(command_result(command) for command in (commands[1], commands[3])), seqs=[2, 4])
    assert (frames[0]["type"], frames[0]["acked_seq"]) == ("resume", 2), "asked for what is missing"
    assert [state_of(command) for command in commands] == ["succeeded", "succeeded", "queued", "queued"]

    frames = agent.report(command_result(commands[2]), command_result(commands[3]), seqs=[3, 4])
    assert frames[0]["seq"] == 4
    assert {state_of(command) for command in commands} == {"succeeded"}


def test_a_journal_that_has_forgotten_its_beginning_is_taken_from_where_it_starts(agent: SimulatedAgent) -> None:
    command = queue(agent)
    agent.first_seq = 500
    assert agent.connect()["acked_seq"] == 499
    frames = agent.report(command_result(command), seqs=[500])
    assert frames[0]["seq"] == 500
    assert state_of(command) == CommandState.SUCCEEDED


def test_the_first_event_of_a_journal_is_not_taken_for_its_beginning(agent: SimulatedAgent) -> None:
    command = queue(agent)
    frames = agent.report(command_result(command), seqs=[3])
    assert (frames[0]["type"], frames[0]["acked_seq"]) == ("resume", 0)
    assert state_of(command) == CommandState.QUEUED


def test_a_new_incarnation_counts_from_the_start(agent: SimulatedAgent) -> None:
    first, second = queue(agent), queue(agent)
    agent.report(command_result(first))
    agent.incarnation, agent.seq = "journal-2", 0
    greeting = agent.connect()
    assert (greeting["type"], greeting["incarnation"], greeting["acked_seq"]) == ("resume", "journal-2", 0)
    frames = agent.report(command_result(second))
    assert frames[0] == {"type": "events_ack", "target_agent": "srv-1", "incarnation": "journal-2", "seq": 1}
    assert state_of(second) == CommandState.SUCCEEDED


def test_events_of_another_incarnation_than_the_registered_one_are_not_acknowledged(agent: SimulatedAgent) -> None:
    command = queue(agent)
    agent.incarnation = "journal-of-yesterday"
    assert agent.report(command_result(command)) == []
    assert state_of(command) == CommandState.QUEUED


def test_the_same_incarnation_goes_on_after_a_reconnection(agent: SimulatedAgent) -> None:
    agent.report(command_result(queue(agent)))
    agent.disconnect()
    assert agent.connect()["acked_seq"] == 1


def test_an_agent_cannot_speak_of_the_commands_of_another(cast: Cast, agent: SimulatedAgent) -> None:
    neighbour = make_agent(agent.gateway, "srv-2")
    outsider = make_agent(make_gateway(cast.umbrella))
    commands = [put(queue(agent), CommandState.SENT), put(queue(agent), CommandState.STARTED)]
    before = list(Command.objects.order_by("pk").values())
    for stranger in (neighbour, outsider):
        for command in commands:
            stranger.receive(command)
            stranger.say(
                messages.JobStatuses(stranger.agent_id, stranger.token, [job_status(command, JobStatus.FAILED)])
            )
            stranger.refuse(command)
            acks = stranger.report(
                command_result(command, CommandOutcome.FAILED),
                job_started(command),
                job_status(command, JobStatus.COMPLETED),
                messages.JobExited(str(command.pk), "job", 9),
            )
            assert acks[0]["seq"] == stranger.seq, "acknowledged all the same, or it would come for ever"
    assert list(Command.objects.order_by("pk").values()) == before


def test_a_gateway_cannot_speak_for_the_agents_of_another_organization(cast: Cast, agent: SimulatedAgent) -> None:
    command = queue(agent)
    foreign = make_gateway(cast.umbrella)
    frames = make_agent(foreign).say(agent.events(command_result(command)))
    assert frames == []
    assert state_of(command) == CommandState.QUEUED


@pytest.mark.parametrize("request_id", ["", "not-an-id", "01a1fc23-2091-7470-abc6-e4e6f5e24e03", "x" * 5000])
def test_unknown_ids_are_harmless(agent: SimulatedAgent, request_id: str) -> None:
    agent.say(messages.CommandReceived("srv-1", agent.token, request_id))
    gone = messages.CommandRefused("gw-1", request_id, "srv-1", "agent_offline", "gone")
    release_refused(gateway=agent.gateway, refused=gone)
    agent.say(messages.ProbeResult("srv-1", agent.token, AT, [], [request_id]))
    agent.say(
        messages.JobStatuses("srv-1", agent.token, [messages.AsyncStatus(request_id, "job", JobStatus.FAILED, 0)])
    )
    frames = agent.report(
        messages.CommandResult(request_id, True, CommandOutcome.SUCCEEDED),
        messages.JobExited(request_id, "job", 0),
        health_changed(request_id, "healthy"),
    )
    assert [frame["seq"] for frame in frames] == [3]
    assert not Command.objects.exists()


def test_one_batch_of_several_agents_is_acknowledged_to_each(agent: SimulatedAgent) -> None:
    other = make_agent(agent.gateway, "srv-2")
    frames = agent.say(
        agent.events(command_result(queue(agent))),
        other.events(command_result(queue(other)), command_result(queue(other))),
        agent.events(command_result(queue(agent))),
    )
    assert {frame["target_agent"]: frame["seq"] for frame in frames} == {"srv-1": 2, "srv-2": 2}
    assert len(frames) == 2
    assert set(Agent.objects.values_list("acked_seq", flat=True)) == {2}


def test_health_of_one_batch_is_told_upwards_once_and_in_order(agent: SimulatedAgent) -> None:
    with heard(health_reported) as news:
        agent.report(health_changed("a", "unhealthy"), health_changed("b", "healthy"), health_changed("a", "healthy"))
    [told] = news
    assert told["agent"].agent_id == "srv-1"
    assert [(report.check_id, report.status) for report in told["reports"]] == [
        ("a", "unhealthy"),
        ("b", "healthy"),
        ("a", "healthy"),
    ]


def test_a_batch_is_stored_whole_or_not_at_all(agent: SimulatedAgent) -> None:
    command = queue(agent)

    def refuse(sender: type, **arguments: Any) -> None:
        raise RuntimeError("the app above could not")

    health_reported.connect(refuse)
    try:
        with pytest.raises(RuntimeError, match="the app above could not"):
            agent.report(command_result(command), health_changed("a", "healthy"))
    finally:
        health_reported.disconnect(refuse)
    assert state_of(command) == CommandState.QUEUED
    assert agent.row.acked_seq == 0


def lost(first_seq: int, **kinds: int) -> messages.EventsLost:
    return messages.EventsLost(first_seq, kinds, "the buffer is full (100 MB)")


def test_dropped_events_are_passed_over_and_counted_and_in_the_audit_trail(agent: SimulatedAgent) -> None:
    before, after = queue(agent), queue(agent)
    agent.report(command_result(before))
    frames = agent.report(lost(2, health_changed=7, command_output=1), command_result(after), seqs=[9, 10])
    assert frames[0] == {"type": "events_ack", "target_agent": "srv-1", "incarnation": "journal-1", "seq": 10}
    assert state_of(after) == CommandState.SUCCEEDED
    assert agent.row.lost_events == 8
    assert agent.row.lost_events_at is not None
    (told,) = AuditEvent.objects.filter(action="agent.events_lost")
    assert told.details == {
        "events": 8,
        "kinds": {"health_changed": 7, "command_output": 1},
        "reason": "the buffer is full (100 MB)",
    }
    agent.report(lost(2, health_changed=7), seqs=[9])
    assert agent.row.lost_events == 8, "told again, it is not lost again"


def test_a_gap_that_begins_behind_a_gap_is_a_gap(agent: SimulatedAgent) -> None:
    frames = agent.report(lost(5, health_changed=3), seqs=[7])
    assert (frames[0]["type"], frames[0]["acked_seq"]) == ("resume", 0)
    assert agent.row.lost_events == 0


def test_what_a_host_claims_to_have_lost_fits_the_columns(agent: SimulatedAgent) -> None:
    agent.report(lost(-(2**62), **{"x" * 10_000: 2**62, "negative": -5}), seqs=[2**63 - 1])
    assert agent.row.acked_seq == 2**63 - 1
    assert agent.row.lost_events == 10**9
