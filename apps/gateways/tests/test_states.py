"""The states of a command: forward only, by compare-and-set."""

from __future__ import annotations

from typing import Any

import pytest

from apps.gateways.actions.commands import change_state
from apps.gateways.enums import OPEN_STATES, PREDECESSORS, CommandState
from apps.gateways.models import Command
from apps.gateways.signals import commands_ended
from apps.gateways.tests.factories import SimulatedAgent, heard, later, put, queue

ENDED = [state for state in CommandState if state not in OPEN_STATES]


def row_of(command: Command) -> dict[str, Any]:
    return Command.objects.values().get(pk=command.pk)


@pytest.mark.parametrize("after", PREDECESSORS)
def test_change_state_moves_once_from_every_predecessor_and_never_from_elsewhere(
    agent: SimulatedAgent, after: CommandState
) -> None:
    for before in CommandState:
        command = put(queue(agent, subject=agent.row.pk), before, detail="as it was")
        untouched = row_of(command)
        with heard(commands_ended) as news:
            first = change_state(command.pk, after, detail="moved")
            second = change_state(command.pk, after, detail="moved again")
        if before in PREDECESSORS[after]:
            assert first, f"{before} → {after}"
            assert row_of(command)["state"] == after
            # Only `sent` may be entered again: a lease that ended.
            is_repeatable = after in PREDECESSORS[after]
            assert second is is_repeatable
            assert len(news) == (after not in OPEN_STATES), "the end of a command is told, once"
            assert row_of(command)["detail"] == ("moved again" if is_repeatable else "moved")
        else:
            assert not first, f"{before} → {after}"
            assert not second
            assert row_of(command) == untouched, f"{before} → {after} changed the row"
            assert news == []


def test_no_state_leads_back_to_the_queue(agent: SimulatedAgent) -> None:
    for before in CommandState:
        command = put(queue(agent), before)
        with pytest.raises(KeyError):
            change_state(command.pk, CommandState.QUEUED)
        assert row_of(command)["state"] == before


def test_what_a_host_has_reported_is_final() -> None:
    reported = {state for state in ENDED if state not in {CommandState.UNKNOWN, CommandState.EXPIRED}}
    for state, predecessors in PREDECESSORS.items():
        assert not reported & predecessors, f"{state} may undo what a host has reported"


@pytest.mark.parametrize("presumed", [CommandState.UNKNOWN, CommandState.EXPIRED])
def test_evidence_corrects_what_was_only_presumed(agent: SimulatedAgent, presumed: CommandState) -> None:
    command = put(queue(agent), presumed)
    assert change_state(command.pk, CommandState.SUCCEEDED)
    assert not change_state(command.pk, presumed)


def test_an_ended_command_is_neither_leased_nor_polled(agent: SimulatedAgent) -> None:
    for state in ENDED:
        command = put(queue(agent), CommandState.SENT, lease_until=later(seconds=10), next_poll_at=later(seconds=1))
        change_state(command.pk, state)
        command.refresh_from_db()
        assert (command.lease_until, command.next_poll_at) == (None, None)


def test_change_state_of_an_unknown_id_changes_nothing(agent: SimulatedAgent) -> None:
    command = queue(agent)
    command_id = command.pk
    command.delete()
    assert not change_state(command_id, CommandState.SENT)


def test_change_state_honours_narrower_origins(agent: SimulatedAgent) -> None:
    command = put(queue(agent), CommandState.STARTED)
    assert not change_state(command.pk, CommandState.EXPIRED, from_states={CommandState.QUEUED})
    assert row_of(command)["state"] == CommandState.STARTED
