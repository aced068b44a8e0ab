"""A whole installation of real processes on loopback, in a temporary folder, driven by a test or a benchmark.

    with World(gateways=2, agents=4) as world:        # starts all of it, waits until every agent is online
        rest = world.rest()                           # keep-alive, with the owner's token
        rest.post(f"/agents/{world.row_ids['host-001']}/commands?wait=5", {"command": {"type": "native", ...}})
        world.gateways["gateway-1"].kill()            # SIGKILL; also terminate, pause, resume, start, restart
        world.wait_online()

PostgreSQL, Valkey, web, link server, worker, beat, gateways and agents are the real programs with the command lines of
`make run`. `World(wrap=...)` may run any of them under another entry point; `world.link_urls` and `world.gateway_urls`
say where gateways and agents connect, so that a proxy can be put between. `with` leaves no process and no file behind;
should the test itself be killed, a guard process ends the others. Everything here blocks: from asyncio use a thread.
"""

from tests.world.process import WorldError, WorldProcess, Wrap
from tests.world.world import World

__all__ = ["World", "WorldError", "WorldProcess", "Wrap"]
