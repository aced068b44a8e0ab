"""An agent that is killed, stopped and upgraded leaves what it started alone, and knows how each process ended.

The short form of `make bench-survival`, which does it 100 times with 50 children.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from testing_survival import Survival, write_configuration

if TYPE_CHECKING:
    from conftest import GatewaySide, Listen
    from testing_pki import Pki


async def test_children_survive_kill_stop_and_upgrade(
    pki: Pki, listen: Listen, gateway_side: type[GatewaySide], tmp_path: Path
) -> None:
    async with listen(pki.gateway("gw-1"), pki.agent_ca.ca) as server:
        gateway = gateway_side(server, pki)
        file = write_configuration(tmp_path, pki, pki.agent("srv-1"), server.port)
        outcome = await Survival(gateway, tmp_path, file).measure(restarts=4, children=6)
        await gateway.leave()
    assert (outcome.changed_pids, outcome.restarted, outcome.unknown_exits) == (0, 0, 0)
