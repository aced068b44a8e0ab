"""How commands end, as their agents tell it: results, jobs, refusals."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from apps.gateways.enums import CommandState
from apps.gateways.models import Command
from apps.gateways.selectors import get_latest_job
from apps.gateways.signals import commands_ended
from apps.gateways.tests.factories import (
    AT,
    DETACHED,
    SimulatedAgent,
    check_result,
    claim,
    command_result,
    heard,
    job_started,
    job_status,
    put,
    queue,
)
from opsmap_protocol import messages
from opsmap_protocol.enums import CommandOutcome, JobStatus


def sent(agent: SimulatedAgent) -> Command:
    command = queue(agent, execution=DETACHED, subject=agent.row.pk)
    claim(agent.gateway)
    return command


def running(agent: SimulatedAgent) -> Command:
    command = sent(agent)
    agent.receive(command)
    agent.report(job_started(command))
    command.refresh_from_db()
    return command


def test_received_ends_the_lease(agent: SimulatedAgent) -> None:
    command = sent(agent)
    agent.receive(command)
    command.refresh_from_db()
    assert (command.state, command.lease_until) == (CommandState.RECEIVED, None)
    assert command.received_at is not None


@pytest.mark.parametrize("outcome", CommandOutcome)
def test_every_outcome_becomes_the_state_of_its_name(agent: SimulatedAgent, outcome: CommandOutcome) -> None:
    command = sent(agent)
    result = {"exit_code": 3, "stdout": "…"}
    agent.report(command_result(command, outcome, result=result, error="as it was told", duration_ms=120))
    command.refresh_from_db()
    assert command.state == CommandState(outcome.value)
    assert (command.detail, command.result, command.exit_code) == ("as it was told", result, 3)
    assert command.duration_ms == 120
    assert command.finished_at is not None


def test_a_result_that_is_no_object_is_kept_as_it_is(agent: SimulatedAgent) -> None:
    command = sent(agent)
    agent.report(command_result(command, result=["eth0", "lo"]))
    command.refresh_from_db()
    assert (command.result, command.exit_code) == (["eth0", "lo"], None)


def test_a_job_goes_from_started_through_running_to_completed(agent: SimulatedAgent) -> None:
    command = running(agent)
    assert (command.state, command.job_id, command.pid) == (CommandState.STARTED, f"job-{command.pk}", 4711)
    assert command.started_at == AT
    assert command.next_poll_at is not None

    agent.report(job_status(command, JobStatus.RUNNING, check_result=check_result(passed=False)))
    command.refresh_from_db()
    assert command.state == CommandState.STARTED
    assert command.check_result is not None
    assert command.check_result["passed"] is False

    done = job_status(command, JobStatus.COMPLETED, check_result=check_result(passed=True), log_tail="ready")
    agent.report(done)
    command.refresh_from_db()
    assert (command.state, command.log_tail, command.duration_ms) == (CommandState.SUCCEEDED, "ready", 1500)
    assert command.check_result["passed"] is True
    assert command.next_poll_at is None

    agent.report(messages.JobExited(str(command.pk), command.job_id, 143))
    command.refresh_from_db()
    assert (command.state, command.exit_code) == (CommandState.SUCCEEDED, 143), "the service ended later"
    assert command.process_exited_at is not None


@pytest.mark.parametrize(
    ("status", "state", "detail"),
    [
        (JobStatus.FAILED, CommandState.FAILED, ""),
        (JobStatus.TIMEOUT, CommandState.FAILED, "The completion check did not pass in time."),
        (JobStatus.CANCELLED, CommandState.CANCELLED, ""),
    ],
)
def test_a_job_that_does_not_complete(
    agent: SimulatedAgent, status: JobStatus, state: CommandState, detail: str
) -> None:
    command = running(agent)
    with heard(commands_ended) as news:
        agent.report(job_status(command, status, exit_code=1))
    command.refresh_from_db()
    assert (command.state, command.detail, command.exit_code) == (state, detail, 1)
    assert [[command.state for command in told["commands"]] for told in news] == [[state]]


def test_the_agent_s_own_words_are_kept(agent: SimulatedAgent) -> None:
    command = running(agent)
    agent.report(job_status(command, JobStatus.TIMEOUT, error="port 5432 is still closed"))
    command.refresh_from_db()
    assert command.detail == "port 5432 is still closed"


def test_an_answer_to_a_poll_counts_like_an_event(agent: SimulatedAgent) -> None:
    command = running(agent)
    assert agent.say(messages.JobStatuses("srv-1", agent.token, [job_status(command, JobStatus.COMPLETED)])) == []
    command.refresh_from_db()
    assert command.state == CommandState.SUCCEEDED
    assert agent.row.acked_seq == 1, "it is no event of the journal"


def test_a_late_running_status_does_not_touch_an_ended_job(agent: SimulatedAgent) -> None:
    command = running(agent)
    agent.report(job_status(command, JobStatus.FAILED, exit_code=7))
    agent.say(messages.JobStatuses("srv-1", agent.token, [job_status(command, JobStatus.RUNNING, elapsed_ms=9)]))
    command.refresh_from_db()
    assert (command.state, command.exit_code, command.duration_ms) == (CommandState.FAILED, 7, 1500)


def test_late_evidence_corrects_a_command_that_was_given_up(agent: SimulatedAgent) -> None:
    command = put(sent(agent), CommandState.UNKNOWN)
    agent.report(command_result(command))
    command.refresh_from_db()
    assert command.state == CommandState.SUCCEEDED


def test_a_job_begun_without_a_received_is_begun_all_the_same(agent: SimulatedAgent) -> None:
    command = sent(agent)
    agent.report(job_started(command))
    command.refresh_from_db()
    assert (command.state, command.lease_until) == (CommandState.STARTED, None)


@pytest.mark.parametrize("exit_code", [3221225786, -(2**40)])
def test_exit_codes_that_no_column_holds_do_not_stop_the_agent_s_events(agent: SimulatedAgent, exit_code: int) -> None:
    # Windows ends processes with codes such as 0xC000013A.
    failed, exited = running(agent), running(agent)
    frames = agent.report(
        job_status(failed, JobStatus.FAILED, exit_code=exit_code),
        messages.JobExited(str(exited.pk), exited.job_id, exit_code),
        command_result(queue(agent), CommandOutcome.FAILED, result={"exit_code": exit_code}, duration_ms=2**40),
    )
    assert frames[0]["seq"] == agent.seq
    failed.refresh_from_db()
    assert (failed.state, failed.exit_code) == (CommandState.FAILED, None)


def test_the_newest_job_of_a_subject_is_the_one_with_the_log(agent: SimulatedAgent) -> None:
    subject = agent.row.pk
    older, newer, sync = (queue(agent, subject=subject) for _ in range(3))
    assert get_latest_job(subject) is None
    agent.report(job_started(newer), job_started(older), command_result(sync))
    assert get_latest_job(subject) == newer


def test_the_next_poll_waits_at_least_half_a_second(agent: SimulatedAgent) -> None:
    command = sent(agent)
    before = timezone.now()
    agent.report(job_started(command, suggested_poll_interval_ms=1))
    command.refresh_from_db()
    assert command.next_poll_at is not None
    assert command.next_poll_at >= before + timedelta(milliseconds=500)
