"""The safety nets: commands that nobody will answer, sessions that nobody closed, jobs to ask about."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from apps.gateways.actions.claims import due_questions
from apps.gateways.actions.commands import ANSWER_GRACE, sweep_commands
from apps.gateways.actions.sessions import GATEWAY_SILENCE, RETURN_TIME, record_heartbeats, sweep_sessions
from apps.gateways.enums import CommandState
from apps.gateways.models import Command, Gateway
from apps.gateways.signals import agents_lost, commands_ended
from apps.gateways.tests.factories import (
    DETACHED,
    SimulatedAgent,
    claim,
    connect_gateway,
    heard,
    job_started,
    job_status,
    later,
    make_agent,
    make_gateway,
    put,
    queue,
)
from conftest import Cast
from opsmap_protocol import messages
from opsmap_protocol.enums import JobStatus

A_MOMENT = timedelta(milliseconds=1)


@pytest.mark.parametrize(
    ("state", "outcome", "words"),
    [
        (CommandState.QUEUED, CommandState.EXPIRED, "could not be delivered"),
        (CommandState.SENT, CommandState.UNKNOWN, "it may have run"),
    ],
)
def test_sweep_closes_what_was_not_taken_in_time(
    agent: SimulatedAgent, state: CommandState, outcome: CommandState, words: str
) -> None:
    command = put(queue(agent, subject=agent.row.pk), state)
    assert sweep_commands(now=command.not_after) == 0
    with heard(commands_ended) as news:
        assert sweep_commands(now=command.not_after + A_MOMENT) == 1
    command.refresh_from_db()
    assert command.state == outcome
    assert words in command.detail
    assert command.finished_at is not None
    assert [[ended.pk for ended in told["commands"]] for told in news] == [[command.pk]]
    assert sweep_commands(now=command.not_after + timedelta(days=1)) == 0


@pytest.mark.parametrize("state", [CommandState.RECEIVED, CommandState.STARTED])
def test_sweep_gives_what_has_begun_its_own_time_and_some_grace(agent: SimulatedAgent, state: CommandState) -> None:
    command = put(queue(agent, timeout_ms=120_000), state)
    end = command.not_after + timedelta(minutes=2) + ANSWER_GRACE
    assert sweep_commands(now=end) == 0
    assert sweep_commands(now=end + A_MOMENT) == 1
    command.refresh_from_db()
    assert command.state == CommandState.UNKNOWN


def test_sweep_leaves_a_job_that_is_late_but_answers(agent: SimulatedAgent) -> None:
    """Also one that had been given up and was corrected: it does not change to and fro."""
    job = put(start_job(agent), CommandState.UNKNOWN, finished_at=timezone.now(), not_after=later(hours=-3))
    agent.report(job_started(job))
    sweep_commands()
    job.refresh_from_db()
    assert job.state == CommandState.STARTED
    assert job.next_poll_at is not None

    Command.objects.update(heard_at=later(minutes=-5))
    agent.say(messages.JobStatuses(agent.agent_id, agent.token, [job_status(job, JobStatus.RUNNING)]))
    assert sweep_commands() == 0

    # Until it does not answer any more.
    job.refresh_from_db()
    assert job.heard_at is not None
    assert sweep_commands(now=job.heard_at + timedelta(seconds=2) + ANSWER_GRACE) == 0
    assert sweep_commands(now=job.heard_at + timedelta(seconds=2) + ANSWER_GRACE + A_MOMENT) == 1


def test_sweep_leaves_ended_commands_alone(agent: SimulatedAgent) -> None:
    for state in (CommandState.SUCCEEDED, CommandState.UNKNOWN, CommandState.EXPIRED, CommandState.CANCELLED):
        put(queue(agent), state)
    assert sweep_commands(now=timezone.now() + timedelta(days=1)) == 0


def test_sweep_sessions_closes_a_gateway_that_fell_silent(agent: SimulatedAgent) -> None:
    make_agent(agent.gateway, "srv-2")
    gateway = Gateway.objects.get()
    assert gateway.last_seen_at is not None
    sweep_sessions(now=gateway.last_seen_at + GATEWAY_SILENCE)
    assert agent.row.is_online

    with heard(agents_lost) as news:
        sweep_sessions(now=gateway.last_seen_at + GATEWAY_SILENCE + A_MOMENT)
    [told] = news
    assert {lost.agent_id for lost in told["agents"]} == {"srv-1", "srv-2"}
    assert not Gateway.objects.get().is_online
    assert not agent.row.is_online


def test_sweep_sessions_leaves_a_gateway_whose_heart_beats(agent: SimulatedAgent) -> None:
    old = timezone.now() - timedelta(hours=1)
    Gateway.objects.update(last_seen_at=old)
    record_heartbeats(gateway=agent.gateway, heartbeats=[])
    sweep_sessions()
    assert agent.row.is_online


def test_sweep_sessions_closes_agents_that_did_not_come_back_with_their_gateway(agent: SimulatedAgent) -> None:
    returned = make_agent(agent.gateway, "srv-2")
    connect_gateway(agent.gateway)
    returned.connect()
    connected_at = Gateway.objects.get().connected_at
    assert connected_at is not None
    sweep_sessions(now=connected_at + RETURN_TIME)
    assert agent.row.is_online, "it still has time"

    with heard(agents_lost) as news:
        sweep_sessions(now=connected_at + RETURN_TIME + A_MOMENT)
    [told] = news
    assert [lost.agent_id for lost in told["agents"]] == ["srv-1"]
    assert not agent.row.is_online
    assert returned.row.is_online


def start_job(agent: SimulatedAgent, interval_ms: int = 1000) -> Command:
    command = queue(agent, execution=DETACHED | {"poll_interval_ms": interval_ms})
    claim(agent.gateway)
    agent.report(job_started(command, suggested_poll_interval_ms=interval_ms))
    command.refresh_from_db()
    return command


def test_due_questions_asks_each_gateway_about_its_running_jobs_in_one_go(cast: Cast, agent: SimulatedAgent) -> None:
    second = make_agent(agent.gateway, "srv-2")
    elsewhere = make_agent(make_gateway(cast.acme, "gw-2"), "srv-3")
    jobs = [start_job(agent), start_job(agent), start_job(second), start_job(elsewhere)]
    due = due_questions(now=timezone.now() + timedelta(seconds=2))
    assert set(due) == {agent.gateway.pk, elsewhere.gateway.pk}
    ids = [job.job_id for job in jobs]
    assert {name: sorted(asked) for name, asked in due[agent.gateway.pk].jobs.items()} == {
        "srv-1": sorted(ids[:2]),
        "srv-2": [ids[2]],
    }
    assert due[elsewhere.gateway.pk].jobs == {"srv-3": [ids[3]]}


def test_due_questions_asks_again_after_the_interval_only(agent: SimulatedAgent) -> None:
    job = start_job(agent, interval_ms=4000)
    moment = job.next_poll_at
    assert moment is not None
    assert due_questions(now=moment - A_MOMENT) == {}
    assert len(due_questions(now=moment)) == 1
    assert due_questions(now=moment + timedelta(seconds=4) - A_MOMENT) == {}
    assert len(due_questions(now=moment + timedelta(seconds=4))) == 1


def test_due_questions_leaves_ended_jobs_and_agents_that_are_away(agent: SimulatedAgent) -> None:
    ended, away = start_job(agent), make_agent(agent.gateway, "srv-2")
    start_job(away)
    agent.succeed(ended)
    away.disconnect()
    assert due_questions(now=timezone.now() + timedelta(minutes=1)) == {}


def test_heartbeats_of_agents_behind_another_gateway_do_not_count(cast: Cast, agent: SimulatedAgent) -> None:
    beat = messages.Heartbeat("srv-1", 99, [0.5, 0.4, 0.3], 41.5, 2)
    record_heartbeats(gateway=make_gateway(cast.acme, "gw-2"), heartbeats=[beat])
    assert agent.row.load == {}
    record_heartbeats(gateway=agent.gateway, heartbeats=[beat])
    assert agent.row.load == {"uptimeSecs": 99, "load": [0.5, 0.4, 0.3], "memoryPercent": 41.5, "activeCommands": 2}
