"""The component state machine, against a table written out by hand: every state, trigger and wish."""

from __future__ import annotations

import itertools

import pytest

from apps.maps.enums import ComponentState, DesiredState
from apps.maps.planning.plans import Condition
from apps.operations.state_machine import Trigger, condition_of, derive_state, next_state

# `.` changes nothing. `down?` is failed for what should be up, and stopped for what nobody wants up.
EXPECTED = """
                 unknown     stopped     starting stopping running     degraded    failed      unreachable maintenance
check_healthy    running     running     .        .        running     running     running     running     .
check_degraded   degraded    degraded    .        .        degraded    degraded    degraded    degraded    .
check_unhealthy  down?       stopped     .        .        down?       down?       failed      down?       .
start_sent       starting    starting    starting starting starting    starting    starting    starting    maintenance
start_succeeded  running     running     running  running  running     running     running     running     .
start_failed     .           .           failed   .        .           .           .           failed      .
stop_sent        stopping    stopping    stopping stopping stopping    stopping    stopping    stopping    maintenance
stop_succeeded   stopped     stopped     stopped  stopped  stopped     stopped     stopped     stopped     .
stop_failed      .           .           .        unknown  .           .           .           .           .
agent_lost       unreachable unreachable .        .        unreachable unreachable unreachable unreachable .
agent_back       .           .           .        .        .           .           .           unknown     .
maintenance_began maintenance maintenance .       .        maintenance maintenance maintenance maintenance .
maintenance_ended .          .           .        .        .           .           .           .           unknown
"""
WISH_AFTER = {"check_healthy": "up", "start_sent": "up", "stop_sent": "down"}
"""Where the table has an entry, these triggers also say what the component should be from then on."""


def table() -> dict[tuple[str, str], str]:
    head, *rows = (line.split() for line in EXPECTED.strip().splitlines())
    return {(trigger, state): cell for trigger, *cells in rows for state, cell in zip(head, cells, strict=True)}


def test_the_table_is_complete() -> None:
    assert set(table()) == {(trigger.value, state.value) for trigger in Trigger for state in ComponentState}


@pytest.mark.parametrize(
    ("trigger", "state", "desired"), list(itertools.product(Trigger, ComponentState, DesiredState))
)
def test_next_state_follows_the_table(trigger: Trigger, state: ComponentState, desired: DesiredState) -> None:
    cell = table()[trigger, state]
    if cell == ".":
        expected = (state, desired)
    else:
        should_be_up = desired == "up"
        after = {"down?": "failed" if should_be_up else "stopped"}.get(cell, cell)
        expected = (ComponentState(after), DesiredState(WISH_AFTER.get(trigger, desired)))
    assert next_state(state, trigger, desired) == expected


@pytest.mark.parametrize(
    ("state", "condition"),
    [
        ("unknown", Condition.DOWN),
        ("stopped", Condition.DOWN),
        ("starting", Condition.UP),
        ("running", Condition.UP),
        ("degraded", Condition.IMPAIRED),
        ("stopping", Condition.UP),
        ("failed", Condition.FAILED),
        # Not seen is not failed: a repair must not touch what may well run.
        ("unreachable", Condition.UP),
        ("maintenance", Condition.UP),
    ],
)
def test_condition_of_every_state(state: str, condition: Condition) -> None:
    assert condition_of(ComponentState(state)) is condition


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ("", "unknown"),
        ("unknown", "unknown"),
        ("maintenance", "unknown"),
        ("running", "running"),
        ("running running", "running"),
        ("running maintenance", "running"),
        ("stopped", "stopped"),
        ("stopped maintenance", "stopped"),
        ("stopped unknown", "stopped"),
        # Some run and some do not: the application is not what it should be.
        ("running stopped", "degraded"),
        ("running unknown", "degraded"),
        # The worst that somebody should look at.
        ("running starting", "starting"),
        ("starting stopping", "stopping"),
        ("stopping unreachable", "unreachable"),
        ("unreachable degraded", "degraded"),
        ("degraded failed", "failed"),
        ("failed running stopped starting stopping unreachable degraded maintenance unknown", "failed"),
    ],
)
def test_derive_state_shows_the_worst(states: str, expected: str) -> None:
    assert derive_state(ComponentState(state) for state in states.split()) == ComponentState(expected)


def test_derive_state_does_not_depend_on_the_order() -> None:
    for pair in itertools.product(ComponentState, repeat=2):
        assert derive_state(pair) == derive_state(reversed(pair))
