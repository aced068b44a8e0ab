"""One of two gateways ends under load: what is lost, and how long its agents are out of reach.

Agents hold sessions to both gateways; each executes one small program after the other, which writes the command's
number into a ledger of its host. Then a gateway is killed (`kill -9`), and in a second run frozen (SIGSTOP: its
connections stay open, and nobody answers).

- `lost`, `twice`: commands of the first run without a definite and correct end: not `succeeded` with exactly one line
  in the ledger, or a line for what never succeeded. Waited for until the time is up for each of them.
- `gap_s`: the longest time without a completed command for any one agent that was using the killed gateway, seen by
  the one who calls. An agent has one command on its way at a time, so one that is stuck makes a gap.
- `half_open_…`: the same for the frozen gateway, which nobody hears of before a ping is not answered.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.measuring import percentile, report, say
from tests.smoke.errors import RefusedError
from tests.world import World

AGENTS = 20
AGENTS_PER_PROCESS = 10
PAUSE_S = 0.1
"""Between two commands of one agent: a steady load that leaves the machine time to notice a failure."""
RETRY_S = 0.05
WAIT_S = 30
"""The most that the API waits for an end; a caller who has no answer by then asks for the next command."""
BEFORE_S = 4.0
AFTER_S = 10.0
HALF_OPEN_AFTER_S = 45.0
SETTLE_TIMEOUT_S = 120.0


@dataclass
class Traffic:
    """What one agent was asked and when the caller had its answer. `numbers` are commands that were accepted."""

    host: str
    numbers: dict[int, str] = field(default_factory=dict)
    answered_at: list[float] = field(default_factory=list)
    refused: int = 0

    def gap_s(self, since: float) -> float:
        """The longest time between two answers, the last one before `since` included."""
        times = [at for at in self.answered_at if at >= since]
        before = [at for at in self.answered_at if at < since]
        times = [*before[-1:], *times, time.monotonic()]
        return max(later - earlier for earlier, later in pairwise(times))


class Load:
    """One caller per agent, from `__enter__` to `__exit__`."""

    def __init__(self, world: World, ledgers: Path) -> None:
        self.traffic = {host: Traffic(host) for host in world.host_ids}
        self._world = world
        self._ledgers = ledgers
        self._is_over = threading.Event()
        self._failures: list[BaseException] = []
        self._threads = [threading.Thread(target=self._call, args=(host,), daemon=True) for host in world.host_ids]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()
        if self._failures:
            raise self._failures[0]

    def _call(self, host: str) -> None:
        traffic, rest = self.traffic[host], self._world.rest(timeout_s=2 * WAIT_S)
        number = 0
        try:
            while not self._is_over.is_set():
                number += 1
                self._ask(rest.post, traffic, number)
                self._is_over.wait(PAUSE_S)
        except BaseException as failure:
            self._failures.append(failure)

    def _ask(self, post: Callable[..., dict[str, str]], traffic: Traffic, number: int) -> None:
        path = f"/agents/{self._world.row_ids[traffic.host]}/commands?wait={WAIT_S}"
        try:
            command = post(path, _body(self._ledgers / traffic.host, number))
        except RefusedError as error:
            # Said at once and clearly: the agent is out of reach. Nothing was promised, but no time is given back.
            if error.status != 503:
                raise
            traffic.refused += 1
            self._is_over.wait(RETRY_S)
            return
        traffic.numbers[number] = command["id"]
        if command["state"] == "succeeded":
            traffic.answered_at.append(time.monotonic())


def _body(ledger: Path, number: int) -> dict[str, object]:
    line = f"echo {number} >> {ledger}"
    return {"command": {"type": "execute", "path": "/bin/sh", "args": ["-c", line], "detached": False}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", type=int, default=AGENTS)
    options = parser.parse_args()
    with World(gateways=2, agents=options.agents, agents_per_process=AGENTS_PER_PROCESS) as world:
        killed = _fail_over(world, "killed", AFTER_S)
        say(f"killed: {killed}")
        frozen = _fail_over(world, "frozen", HALF_OPEN_AFTER_S)
        say(f"frozen: {frozen}")
    report(killed | {f"half_open_{name}": value for name, value in frozen.items()})


def _fail_over(world: World, how: str, after_s: float) -> dict[str, float]:
    gateway_id = _wait_both_in_use(world)
    gateway = world.gateways[gateway_id]
    ledgers = world.folder / "ledgers" / how
    ledgers.mkdir(parents=True)
    with Load(world, ledgers) as load:
        time.sleep(BEFORE_S)
        affected = _agents_using(world, gateway_id)
        say(f"{gateway_id} is {how} now, with {len(affected)} agents on it")
        failed_at = time.monotonic()
        if how == "killed":
            gateway.kill()
        else:
            gateway.pause()
        time.sleep(after_s)
        gaps = [load.traffic[host].gap_s(failed_at) for host in affected]
        others = [traffic.gap_s(failed_at) for host, traffic in load.traffic.items() if host not in affected]
        if how == "killed":
            gateway.start()
        else:
            gateway.resume()
    lost, twice = _settle(world, load, ledgers)
    return {
        "lost": lost,
        "gap_s": round(max(gaps), 2),
        "gap_s_p50": round(percentile(gaps, 0.5), 2),
        "gap_others_s": round(max(others), 2),
        "twice": twice,
        "agents": len(affected),
        "commands": sum(len(traffic.numbers) for traffic in load.traffic.values()),
        "refused": sum(traffic.refused for traffic in load.traffic.values()),
    }


def _agents_using(world: World, gateway_id: str) -> list[str]:
    """The agents whose session in use is at this gateway."""
    query = """
        SELECT agent.agent_id FROM gateways_agent agent JOIN gateways_gateway gateway ON gateway.id = agent.gateway_id
        WHERE agent.session_id IS NOT NULL AND gateway.gateway_id = %s
    """
    with world.database() as database:
        return [agent_id for (agent_id,) in database.execute(query, (gateway_id,)).fetchall()]


def _wait_both_in_use(world: World) -> str:
    """Until every agent holds a session to each gateway; then the gateway that more of them use."""
    wanted = len(world.host_ids) * len(world.gateway_ids)
    deadline = time.monotonic() + SETTLE_TIMEOUT_S
    while True:
        with world.database() as database:
            row = database.execute("SELECT count(*) FROM gateways_agentsession").fetchone()
        if row is not None and row[0] == wanted:
            return max(world.gateway_ids, key=lambda gateway_id: len(_agents_using(world, gateway_id)))
        if time.monotonic() > deadline:
            raise TimeoutError(f"{row} of {wanted} sessions after {SETTLE_TIMEOUT_S:g} s")
        time.sleep(0.1)


def _settle(world: World, load: Load, ledgers: Path) -> tuple[int, int]:
    """Wait until each command has its end or its time is up; how many were lost, and how many ran twice."""
    deadline = time.monotonic() + SETTLE_TIMEOUT_S
    while (open_count := _count_open(world)) and time.monotonic() < deadline:
        time.sleep(0.5)
    if open_count:
        say(f"{open_count} commands have no end after {SETTLE_TIMEOUT_S:g} s")
    with world.database() as database:
        rows = database.execute("SELECT id::text, state FROM gateways_command").fetchall()
    states: dict[str, str] = dict(rows)
    lost = twice = 0
    for host, traffic in load.traffic.items():
        file = ledgers / host
        runs = Counter(int(line) for line in file.read_text(encoding="ascii").split()) if file.exists() else Counter()
        for number, command_id in traffic.numbers.items():
            has_run, has_succeeded = runs[number] > 0, states.get(command_id) == "succeeded"
            is_settled = states.get(command_id) in {"succeeded", "expired", "cancelled", "rejected", "not_started"}
            if has_run != has_succeeded or not is_settled:
                say(f"lost: {number} of {host}: {states.get(command_id)}, runs: {runs[number]} ({command_id})")
                lost += 1
            twice += runs[number] > 1
    return lost, twice


def _count_open(world: World) -> int:
    with world.database() as database:
        row = database.execute("SELECT count(*) FROM gateways_command WHERE finished_at IS NULL").fetchone()
    assert row is not None
    return int(row[0])


if __name__ == "__main__":
    main()
