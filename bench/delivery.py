"""How fast commands get to hosts and their results into the database, with permission, audit and durability.

Everything runs on this machine: PostgreSQL, Valkey, web, link server, worker, beat, two gateways, and 200 agents in a
few processes (see `bench/fleet.py`). Each command goes from a REST call through all of it to a committed result.

- `idle_ms_p50`, `idle_ms_p99`: one `POST /agents/{id}/commands?wait=` at a time (native `uptime`), call to answer.
- `true_ms_p50`: the same for a process, `/bin/true`, as the peers were measured.
- `fanout_200_ms`: one `POST /broadcasts` to all agents, from the call until the last result is stored (median).
- `sustained_per_s`: results stored per second while broadcasts to all agents follow each other without a pause, in the
  steady part. A request carries 200 commands there; `single_calls_per_s` is the same with one command a request.
- `…_cpu_ms`: the processor time that each part of the installation spends on one of these commands. Unlike the rates it
  hardly depends on what else the machine does; two cores have 2,000 ms a second.
- `echo_per_s`, `echo_ms_p50`: frames that only come back, over the same kind of connection (see `bench/echo.py`).
- `memory_journals`: what changes when the agents' journals are on a file system in memory. Real hosts each have a disk
  of their own; here 200 journals share one.

Every figure counts only if each command of it succeeded and the audit trail names it; else there is none.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import psycopg

from bench.measuring import Loops, milliseconds, percentile, report, say
from deploy.embedded.stack import ROOT
from tests.world import World

AGENTS = 200
AGENTS_PER_PROCESS = 100
UPTIME = {"command": {"type": "native", "name": "uptime", "params": {}}, "timeoutMs": 10_000}
TRUE = {"command": {"type": "execute", "path": "/bin/true", "detached": False}, "timeoutMs": 10_000}
WARM_UP_CALLS = 50
IDLE_CALLS = 400
TRUE_CALLS = 100
FANOUTS = 15
BROADCASTS_AT_ONCE = 3
CALLERS_AT_ONCE = 8
STEADY_S = 12.0
WARM_UP_S = 3.0
END_TIMEOUT_S = 30.0
POLL_S = 0.002


class DeliveryError(Exception):
    """A command did not do what it was measured for."""


def main() -> None:
    options = _parser().parse_args()
    figures = measure(None, options)
    if not options.quick:
        with tempfile.TemporaryDirectory(prefix="opsmap-journals-", dir="/dev/shm") as journals:
            in_memory = measure(Path(journals), options)
        names = ("idle_ms_p50", "idle_ms_p99", "sustained_per_s", "fanout_200_ms")
        figures["memory_journals"] = {name: in_memory[name] for name in names}
    report(figures)


def measure(journals: Path | None, options: argparse.Namespace) -> dict[str, Any]:
    say(f"A world of {options.agents} agents, journals {'in memory' if journals else 'on disk'}")
    with World(gateways=2, agents=options.agents, agents_per_process=AGENTS_PER_PROCESS, journals=journals) as world:
        figures: dict[str, Any] = {}
        for part in (_measure_calls, _measure_fanout, _measure_sustained, _check_everything, _measure_echo):
            found = part(world)
            say(f"  {found}")
            figures |= found
    return figures


# One at a time


def _measure_calls(world: World) -> dict[str, float]:
    caller = _caller(world, UPTIME)
    for _ in range(WARM_UP_CALLS):
        caller()
    idle = [milliseconds(caller) for _ in range(IDLE_CALLS)]
    caller = _caller(world, TRUE)
    processes = [milliseconds(caller) for _ in range(TRUE_CALLS)]
    return {
        "idle_ms_p50": round(percentile(idle, 0.5), 2),
        "idle_ms_p99": round(percentile(idle, 0.99), 2),
        "true_ms_p50": round(percentile(processes, 0.5), 2),
    }


def _caller(world: World, body: dict[str, Any]) -> Callable[[], None]:
    """What sends one command to one agent after the other, and waits for its end each time."""
    rest, agents = world.rest(), cycle(world.row_ids.values())

    def call() -> None:
        command = rest.post(f"/agents/{next(agents)}/commands?wait=10", body)
        if command["state"] != "succeeded":
            raise DeliveryError(f"a command {command['state']}: {command['detail']}")

    return call


# Many at once


def _measure_fanout(world: World) -> dict[str, float]:
    broadcaster = _broadcaster(world)
    broadcaster()
    times = []
    for _ in range(FANOUTS):
        times.append(milliseconds(broadcaster))
        time.sleep(0.2)
    return {"fanout_200_ms": round(median(times), 1), "fanout_200_ms_worst": round(max(times), 1)}


def _broadcaster(world: World) -> Callable[[], None]:
    """What sends one broadcast to all agents, and waits until all its results are stored."""
    rest, database = world.rest(), world.database()

    def broadcast() -> None:
        answer = rest.post("/broadcasts", UPTIME | {"filter": {"all": True}})
        if answer["total"] != len(world.host_ids):
            raise DeliveryError(f"a broadcast reached {answer['total']} of {len(world.host_ids)} agents")
        _wait_stored(database, answer["id"], len(world.host_ids))

    return broadcast


def _wait_stored(database: psycopg.Connection[Any], broadcast_id: str, wanted: int) -> None:
    deadline = time.monotonic() + END_TIMEOUT_S
    query = "SELECT count(*) FROM gateways_command WHERE broadcast_id = %s AND finished_at IS NOT NULL"
    while (stored := _count(database, query, broadcast_id)) < wanted:
        if time.monotonic() > deadline:
            raise DeliveryError(f"{stored} of {wanted} results of a broadcast stored after {END_TIMEOUT_S:g} s")
        time.sleep(POLL_S)


def _measure_sustained(world: World) -> dict[str, Any]:
    many = _rate(world, BROADCASTS_AT_ONCE, lambda: _broadcaster(world))
    single = _rate(world, CALLERS_AT_ONCE, lambda: _caller(world, UPTIME))
    return {
        "sustained_per_s": many.per_s,
        "sustained_cpu_ms": many.cpu_ms,
        "single_calls_per_s": single.per_s,
        "single_calls_cpu_ms": single.cpu_ms,
    }


@dataclass(frozen=True)
class Rate:
    """Results stored per second, and the processor time of each part of the installation for one of them."""

    per_s: float
    cpu_ms: dict[str, float]


def _rate(world: World, loops: int, make_step: Callable[[], Callable[[], None]]) -> Rate:
    """In the steady part of so many closed loops."""
    query = "SELECT count(*) FROM gateways_command WHERE finished_at IS NOT NULL"
    with world.database() as database, Loops(loops, make_step) as running:
        running.wait(WARM_UP_S)
        began, before, cpu_before = time.perf_counter(), _count(database, query), _cpu_s(world)
        running.wait(STEADY_S)
        count, seconds = _count(database, query) - before, time.perf_counter() - began
        used = {part: cpu_s - cpu_before[part] for part, cpu_s in _cpu_s(world).items()}
    cpu_ms = {part: round(cpu_s * 1000 / max(count, 1), 2) for part, cpu_s in used.items()}
    return Rate(round(count / seconds, 1), cpu_ms | {"all": round(sum(cpu_ms.values()), 2)})


def _cpu_s(world: World) -> dict[str, float]:
    parts = {
        "web": [world.web],
        "link": [world.link],
        "gateways": world.gateways.values(),
        "agents": world.agents.values(),
        "postgres": [world.postgres],
        "valkey": [world.valkey],
        "safety_nets": [world.worker, world.beat],
    }
    return {part: sum(process.cpu_s() for process in processes) for part, processes in parts.items()}


def _count(database: psycopg.Connection[Any], query: str, *values: object) -> int:
    row = database.execute(query, values).fetchone()
    assert row is not None
    return int(row[0])


# What the figures stand on


def _check_everything(world: World) -> dict[str, int]:
    """Every command of this world has succeeded, and an audit event says who asked for it."""
    with world.database() as database:
        total = _count(database, "SELECT count(*) FROM gateways_command")
        succeeded = _count(database, "SELECT count(*) FROM gateways_command WHERE state = 'succeeded'")
        unaudited = _count(database, UNAUDITED)
    if succeeded != total:
        raise DeliveryError(f"{succeeded} of {total} commands succeeded")
    if unaudited:
        raise DeliveryError(f"{unaudited} of {total} commands are not in the audit trail")
    return {"commands": total}


# A command of a broadcast is in the event of the broadcast, which lists its agents.
UNAUDITED = """
    SELECT count(*)
    FROM gateways_command command JOIN gateways_agent agent ON agent.id = command.agent_id
    LEFT JOIN audit_auditevent single
        ON single.action = 'command.requested' AND single.target ->> 'commandId' = command.id::text
    LEFT JOIN audit_auditevent broadcast
        ON broadcast.action = 'broadcast.requested'
        AND broadcast.target ->> 'broadcastId' = command.broadcast_id::text
        AND broadcast.details -> 'agents' ? agent.agent_id
    WHERE single.id IS NULL AND broadcast.id IS NULL
"""


def _measure_echo(world: World) -> dict[str, float]:
    command = [sys.executable, "-m", "bench.echo", str(world.state.pki), world.gateway_ids[0], world.host_ids[0]]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", type=int, default=AGENTS)
    parser.add_argument("--quick", action="store_true", help="journals on disk only")
    return parser


if __name__ == "__main__":
    main()
