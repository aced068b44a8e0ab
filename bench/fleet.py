"""Many agents in one process: `python -m bench.fleet <agent.yaml> …`, so that 200 hosts fit on one machine.

Each is a whole `opsmap_agent.agent.Agent` with its own configuration, certificate, journal and log folder, and talks to
its gateways over its own mutual TLS connections; only the interpreter and the event loop are shared. That is less than
200 real hosts in two ways. Commands of different hosts compete for one core here, so what is measured is slower than
the agents of a real fleet. And the journals share one disk, whose syncs the file system may put together.

What the agents hold is kept out of the garbage collector's sight once they are up: its full collections would look at
the objects of a hundred hosts each time, where a host has only its own.

A process looks into the backend's certificate once, in a child process. So the first agent goes ahead of the others:
all at once they would each start that child, on a machine where 100 hosts have one core.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from pathlib import Path

from opsmap_agent.agent import Agent
from opsmap_agent.configuration import Configuration
from opsmap_agent.identity import trust
from opsmap_agent.upkeep.instance import keep_descriptors_private
from opsmap_daemon import lifecycle, logs
from opsmap_daemon.configuration import load

# A journal has a connection or two to its database, a session one to its gateway.
_FILES_PER_AGENT = 24
_POLL_S = 0.02
_FREEZE_INTERVAL_S = 5.0


def main() -> None:
    configurations = [load(Path(argument), Configuration) for argument in sys.argv[1:]]
    logs.configure(configurations[0].logging)
    keep_descriptors_private()
    lifecycle.allow_open_files(_FILES_PER_AGENT * len(configurations) + 100)
    agents = [Agent(configuration) for configuration in configurations]

    async def run_all() -> None:
        first, *others = agents
        async with asyncio.TaskGroup() as group:
            group.create_task(first.run(), name=first.agent_id)
            while others and not trust._inspected:  # noqa: ASYNC110 - there is nothing to wait on
                await asyncio.sleep(_POLL_S)
            for agent in others:
                group.create_task(agent.run(), name=agent.agent_id)
            while True:
                await asyncio.sleep(_FREEZE_INTERVAL_S)
                gc.freeze()

    lifecycle.run(run_all)


if __name__ == "__main__":
    main()
