"""Certificates that live for a minute, under a steady stream of commands: how many rotations, and what they cost.

Every agent and gateway of a world of real processes renews itself at two thirds of its life. Prints
`{"rotations", "commands", "failed", "seconds"}`; a command has failed if it was refused, lost, or did not succeed.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.measuring import report, say
from tests.smoke.errors import LostAnswerError, RefusedError
from tests.smoke.rest import Rest
from tests.world import World

ROTATIONS = 100
LIFE_S = 60
AGENTS, GATEWAYS = 14, 2
MAX_S = 1_200.0
_PAUSE_S = 0.2
_WAIT_S = 20
_END_S = 30.0


def rotating_world(*, agents: int, gateways: int, life_s: int) -> World:
    """A world whose certificates live for `life_s`, from 10 s on."""
    return World(
        agents=agents,
        gateways=gateways,
        backend_environment={"OPSMAP_CERTIFICATE_LIFE": f"{life_s}s"},
    )


class Stream:
    """One command after another to one host, from a thread of its own."""

    def __init__(self, world: World, host: str) -> None:
        self._rest: Rest = world.rest(timeout_s=2 * _WAIT_S)
        self._path = f"/agents/{world.row_ids[host]}/commands"
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"commands of {host}")
        self.outcomes: Counter[str] = Counter()

    def __enter__(self) -> Stream:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._is_over.wait(_PAUSE_S):
            self.outcomes[self._command()] += 1

    def _command(self) -> str:
        """How one command ended; why, if nothing is known of it."""
        body = {"command": {"type": "native", "name": "uptime", "params": {}}}
        try:
            command = self._rest.post(f"{self._path}?wait={_WAIT_S}", body)
            deadline = time.monotonic() + _END_S
            while command["state"] in ("queued", "sent", "running") and time.monotonic() < deadline:
                time.sleep(_PAUSE_S)
                command = self._rest.get(f"/commands/{command['id']}")
        except (RefusedError, LostAnswerError) as error:
            return str(error)[:300]
        return str(command["state"])


def rotate(world: World, rotations: int, *, max_s: float = MAX_S) -> dict[str, object]:
    """The figures of a world that has started, once so many rotations have happened or `max_s` is over."""
    before, began = _issued(world), time.monotonic()
    streams = [Stream(world, host) for host in world.host_ids]
    done = 0
    for stream in streams:
        stream.__enter__()
    try:
        while done < rotations and time.monotonic() - began < max_s:
            time.sleep(1)
            if _issued(world) - before != done:
                done = _issued(world) - before
                say(f"{done} rotations after {time.monotonic() - began:.0f} s")
        # What follows the last rotations, new sessions and links, counts too.
        time.sleep(3)
    finally:
        for stream in streams:
            stream.__exit__()
    outcomes = sum((stream.outcomes for stream in streams), Counter[str]())
    for outcome, count in outcomes.items():
        if outcome != "succeeded":
            say(f"{count} x {outcome}")
    return {
        "rotations": done,
        "commands": outcomes.total(),
        "failed": outcomes.total() - outcomes["succeeded"],
        "seconds": round(time.monotonic() - began, 1),
    }


def _issued(world: World) -> int:
    """How many certificates were issued: to each agent and gateway its first, and then one for each rotation."""
    with world.database() as database:
        row = database.execute("SELECT count(*) FROM gateways_certificate").fetchone()
    assert row is not None, "a count has a row"
    return int(row[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rotations", type=int, default=ROTATIONS)
    parser.add_argument("--life", type=int, default=LIFE_S, help="of a certificate, in seconds")
    parser.add_argument("--agents", type=int, default=AGENTS)
    parser.add_argument("--gateways", type=int, default=GATEWAYS)
    parser.add_argument("--keep-logs", action="store_true", help="say where the logs of the processes are kept")
    options = parser.parse_args()
    with rotating_world(agents=options.agents, gateways=options.gateways, life_s=options.life) as world:
        figures = rotate(world, options.rotations)
        kept: Path | None = world.keep_logs() if options.keep_logs else None
    if kept is not None:
        say(f"logs: {kept}")
    report(figures)


if __name__ == "__main__":
    main()
