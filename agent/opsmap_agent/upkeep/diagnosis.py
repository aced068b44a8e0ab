"""What a status means: the lines that a person reads, and each trouble with what to do about it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from opsmap_agent.upkeep.status import Status

_CLOCK_TOLERANCE_S = 10.0
_LATE_SHARE_OF_LIFE = 0.1
_FULL_SHARE = 0.9
_SILENCE = timedelta(seconds=180)
"""The status file is written every minute: an agent that did not for so long does not turn."""

_GRACE = timedelta(seconds=60)
"""How long an agent that has just started, or lost its gateway, may take to be connected."""


@dataclass(frozen=True, slots=True)
class Trouble:
    what: str
    advice: str

    def __str__(self) -> str:
        return f"{self.what}. {self.advice}."


def find_troubles(status: Status, now: datetime) -> list[Trouble]:
    """What is wrong with an agent that runs, the most urgent first; none if it is well."""
    return [
        *_of_life(status, now),
        *_of_certificate(status, now),
        *_of_gateways(status, now),
        *_of_clock(status),
        *_of_buffer(status),
    ]


def _of_life(status: Status, now: datetime) -> Iterator[Trouble]:
    silent = now - status.written_at
    if silent > _SILENCE:
        advice = (
            f"If it is stuck, its watchdog starts it anew within {status.watchdog.timeout_secs} s; its disk may be full"
            if status.watchdog.is_enabled
            else "It may be stuck, or its disk full, and its watchdog is switched off: look at its log, and restart it"
        )
        yield Trouble(f"the agent has written no status for {_span(silent)}", advice)
    if status.watchdog.restarts_last_hour:
        times = status.watchdog.restarts_last_hour
        advice = "The stacks in its log say where it stood still"
        yield Trouble(f"the watchdog has started the agent anew {times} times within the last hour", advice)


def _of_certificate(status: Status, now: datetime) -> Iterator[Trouble]:
    certificate = status.certificate
    life, left = certificate.not_after - certificate.not_before, certificate.not_after - now
    if left < timedelta(0):
        yield Trouble(
            f"its certificate ended {_span(-left)} ago",
            "Enrol the host anew (opsmap-agent enroll --force), unless its clock is wrong",
        )
    elif left < life * _LATE_SHARE_OF_LIFE:
        yield Trouble(
            f"its certificate ends in {_span(left)} and has not been renewed",
            "Its log says why; without a new one it has to be enrolled anew",
        )


def _of_gateways(status: Status, now: datetime) -> Iterator[Trouble]:
    if status.gateways:
        if not any(gateway.is_in_use for gateway in status.gateways):
            newest = max(gateway.connected_since for gateway in status.gateways)
            if now - newest > _GRACE:
                yield Trouble(
                    "a gateway is connected, but the backend has not begun to use the agent",
                    "Look whether the gateway reaches the backend, and whether OpsMap knows this agent",
                )
        return
    since = status.last_contact or status.started_at
    if now - since > _GRACE:
        what = f"since {_moment(status.last_contact)}" if status.last_contact else "since it started"
        yield Trouble(
            f"no gateway is connected {what}",
            "The agent's log says what each attempt ended with; what commands did meanwhile is kept",
        )


def _of_clock(status: Status) -> Iterator[Trouble]:
    ahead_s = status.clock_ahead_s
    if ahead_s is not None and abs(ahead_s) > _CLOCK_TOLERANCE_S:
        how = "fast" if ahead_s > 0 else "slow"
        yield Trouble(
            f"this host's clock is {_span(timedelta(seconds=abs(ahead_s)))} {how}, by the gateway's",
            "Commands are refused as expired or too early: let chrony or systemd-timesyncd set the clock",
        )


def _of_buffer(status: Status) -> Iterator[Trouble]:
    buffer = status.buffer
    if buffer.size_bytes > buffer.quota_bytes * _FULL_SHARE:
        yield Trouble(
            f"the buffer is full ({_size(buffer.size_bytes)} of {_size(buffer.quota_bytes)})",
            "New commands are refused until the backend has taken what waits, or buffer.max_size_mb is raised",
        )
    if buffer.lost_events:
        yield Trouble(
            f"{buffer.lost_events} events were dropped because the buffer was full",
            "Results of commands are never among them; the current health is told again by itself",
        )


def describe(status: Status, now: datetime) -> list[str]:
    """The whole status, for people."""
    buffer, watchdog = status.buffer, status.watchdog
    oldest = f", the oldest of {_moment(buffer.oldest)}" if buffer.oldest else ""
    lines = [
        f"agent        {status.agent_id} of organization {status.organization_id}",
        f"process      {status.pid}, version {status.version}, for {_span(now - status.started_at)}",
        f"certificate  until {_moment(status.certificate.not_after)}",
        *(f"gateway      {line}" for line in _gateway_lines(status)),
        f"buffer       {buffer.events} events, {_size(buffer.size_bytes)} of {_size(buffer.quota_bytes)}{oldest}",
        f"commands     {status.running_commands} running, {status.jobs} jobs; done: {_counts(status.done_commands)}",
        f"refused      {_counts(status.refused)}",
        *(f"             {_moment(each.at)} {each.kind}: {each.reason}" for each in status.latest_refusals),
        f"health       {status.health_checks} checks",
        f"discovery    {_moment(status.last_discovery) if status.last_discovery else 'none yet'}",
        f"watchdog     {f'after {watchdog.timeout_secs} s' if watchdog.is_enabled else 'off'}",
    ]
    if status.remote_settings:
        lines.append(f"set by OpsMap  {', '.join(status.remote_settings)}")
    return lines


def _gateway_lines(status: Status) -> list[str]:
    if not status.gateways:
        return [f"none connected, last contact {_moment(status.last_contact) if status.last_contact else 'never'}"]
    return [
        f"{each.url} since {_moment(each.connected_since)}, last contact {_moment(each.last_contact)}"
        f" ({'in use' if each.is_in_use else 'stands by'})"
        for each in status.gateways
    ]


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items())) or "none"


def _moment(moment: datetime) -> str:
    return moment.astimezone().isoformat(sep=" ", timespec="seconds")


def _span(span: timedelta) -> str:
    seconds = int(span.total_seconds())
    for unit, size in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def _size(size: int) -> str:
    return f"{size / 1024**2:.1f} MB" if size >= 1024**2 else f"{size / 1024:.0f} kB"
