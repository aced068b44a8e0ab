"""What becomes of an agent's children when the agent is killed, stopped and upgraded: nothing, ever.

A real `opsmap-agent run` process under a scripted gateway starts `--children` detached processes, and is then ended and
started again `--restarts` times: kill -9, an orderly stop, and every third time a copy of its code under another path.
Then half of the children end while there is no agent, and half under it.

- `changed_pids`: children that were not the same living process, known to the agent, after some restart
- `restarted`: children that were run more than once, or never
- `unknown_exits`: children whose end was not told with the exit code that they had

Needs none of the services of `deploy.embedded`. `--restarts 100 --children 50`.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "agent" / "tests"))

from testing_survival import Outcome, Survival, write_configuration

from bench.measuring import report, say
from conftest import GatewaySide, _listen
from testing_pki import Pki


async def measure(restarts: int, children: int) -> Outcome:
    with tempfile.TemporaryDirectory(prefix="opsmap-bench-") as name:
        folder = Path(name)
        (folder / "pki").mkdir()
        pki = Pki(folder / "pki")
        async with _listen(pki.gateway("gw-1"), pki.agent_ca.ca) as server:
            gateway = GatewaySide(server, pki)
            file = write_configuration(folder, pki, pki.agent("srv-1"), server.port)
            say(f"{restarts} restarts with {children} children …")
            outcome = await Survival(gateway, folder, file).measure(restarts, children)
            await gateway.leave()
    return outcome


def main() -> int:
    parser = argparse.ArgumentParser(description="What becomes of an agent's children when it is restarted.")
    parser.add_argument("--restarts", type=int, default=100)
    parser.add_argument("--children", type=int, default=50)
    options = parser.parse_args()
    outcome = asyncio.run(measure(options.restarts, options.children))
    report(dataclasses.asdict(outcome))
    return 0 if (outcome.changed_pids, outcome.restarted, outcome.unknown_exits) == (0, 0, 0) else 1


if __name__ == "__main__":
    sys.exit(main())
