"""The component state machine (SPEC 10.1), as a table. Pure: state, trigger and wish in, state out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum

from apps.maps.enums import ComponentState as S
from apps.maps.enums import DesiredState
from apps.maps.planning.plans import Condition


class Trigger(StrEnum):
    """What can happen to a component."""

    CHECK_HEALTHY = "check_healthy"
    CHECK_DEGRADED = "check_degraded"
    CHECK_UNHEALTHY = "check_unhealthy"
    START_SENT = "start_sent"
    START_SUCCEEDED = "start_succeeded"
    START_FAILED = "start_failed"
    STOP_SENT = "stop_sent"
    STOP_SUCCEEDED = "stop_succeeded"
    STOP_FAILED = "stop_failed"
    AGENT_LOST = "agent_lost"
    AGENT_BACK = "agent_back"
    """Only for components without a health check: for the others the next check says what is."""
    MAINTENANCE_BEGAN = "maintenance_began"
    MAINTENANCE_ENDED = "maintenance_ended"
    """What it is from then on, its last check or the absence of its agent says right after."""


FAILED_OR_STOPPED = "failed_or_stopped"
"""A component that does not answer has failed if it should be up, and is simply stopped if nobody wants it up."""

_SETTLED = (S.UNKNOWN, S.STOPPED, S.RUNNING, S.DEGRADED, S.FAILED, S.UNREACHABLE)
_ALL_BUT_MAINTENANCE = (*_SETTLED, S.STARTING, S.STOPPING)

# While a command is under way (starting, stopping) its own end decides, not a check or a lost agent in between: a
# component that is starting does not answer yet, and that is no failure.
TRANSITIONS: Mapping[Trigger, Mapping[S, S | str]] = {
    Trigger.CHECK_HEALTHY: dict.fromkeys(_SETTLED, S.RUNNING),
    Trigger.CHECK_DEGRADED: dict.fromkeys(_SETTLED, S.DEGRADED),
    Trigger.CHECK_UNHEALTHY: {
        **dict.fromkeys((S.UNKNOWN, S.RUNNING, S.DEGRADED, S.UNREACHABLE), FAILED_OR_STOPPED),
        S.STOPPED: S.STOPPED,
        S.FAILED: S.FAILED,
    },
    # Who works on a component starts and stops it: that changes what it should be afterwards, and nothing else.
    Trigger.START_SENT: {**dict.fromkeys(_ALL_BUT_MAINTENANCE, S.STARTING), S.MAINTENANCE: S.MAINTENANCE},
    Trigger.START_SUCCEEDED: dict.fromkeys(_ALL_BUT_MAINTENANCE, S.RUNNING),
    Trigger.START_FAILED: {S.STARTING: S.FAILED, S.UNREACHABLE: S.FAILED},
    Trigger.STOP_SENT: {**dict.fromkeys(_ALL_BUT_MAINTENANCE, S.STOPPING), S.MAINTENANCE: S.MAINTENANCE},
    Trigger.STOP_SUCCEEDED: dict.fromkeys(_ALL_BUT_MAINTENANCE, S.STOPPED),
    # It may well still run: the health check, asked right after, says so.
    Trigger.STOP_FAILED: {S.STOPPING: S.UNKNOWN},
    Trigger.AGENT_LOST: dict.fromkeys(_SETTLED, S.UNREACHABLE),
    Trigger.AGENT_BACK: {S.UNREACHABLE: S.UNKNOWN},
    # Not while a command is under way: an operation holds the component then.
    Trigger.MAINTENANCE_BEGAN: dict.fromkeys(_SETTLED, S.MAINTENANCE),
    Trigger.MAINTENANCE_ENDED: {S.MAINTENANCE: S.UNKNOWN},
}

WISHES: Mapping[Trigger, DesiredState] = {
    Trigger.START_SENT: DesiredState.UP,
    Trigger.STOP_SENT: DesiredState.DOWN,
    Trigger.CHECK_HEALTHY: DesiredState.UP,
}
"""What a trigger says about what the component should be; a component seen healthy is meant to be up."""


def next_state(state: S, trigger: Trigger, desired: DesiredState) -> tuple[S, DesiredState]:
    """Where a component goes, and what it should be from then on. A trigger without an entry changes nothing."""
    target = TRANSITIONS[trigger].get(state)
    if target is None:
        return state, desired
    wished = WISHES.get(trigger, desired)
    if target == FAILED_OR_STOPPED:
        target = S.FAILED if desired == DesiredState.UP else S.STOPPED
    return S(target), wished


def condition_of(state: S) -> Condition:
    """What planning makes of a state."""
    return _CONDITIONS[state]


_CONDITIONS = {
    S.UNKNOWN: Condition.DOWN,
    S.STOPPED: Condition.DOWN,
    S.STARTING: Condition.UP,
    S.RUNNING: Condition.UP,
    S.DEGRADED: Condition.IMPAIRED,
    S.STOPPING: Condition.UP,
    S.FAILED: Condition.FAILED,
    S.UNREACHABLE: Condition.UP,
    S.MAINTENANCE: Condition.UP,
}

_WORST_FIRST = (S.FAILED, S.DEGRADED, S.UNREACHABLE, S.STOPPING, S.STARTING)


def derive_state(states: Iterable[S]) -> S:
    """The state of a Map or a group from those of its components: the worst that somebody should look at."""
    present = set(states)
    for state in _WORST_FIRST:
        if state in present:
            return state
    present -= {S.MAINTENANCE}
    if present == {S.RUNNING}:
        return S.RUNNING
    if S.RUNNING in present:
        # Some run and some do not: the application as a whole is not what it should be.
        return S.DEGRADED
    if S.STOPPED in present:
        return S.STOPPED
    return S.UNKNOWN
