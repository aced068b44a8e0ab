"""A process that is the agent's user `opsmap` on a host that has sudo and the agent's package, and runs commands there.

    python testing_run_as.py FOLDER < specs.json

Called as root in a mount namespace of its own (see `test_agent_run_as.py`), where users, sudo's rules and the package
are those of the test. Reads a list of [kind, fields, timeout_s], prints a list of what became of each.
"""

from __future__ import annotations

import asyncio
import codecs
import dataclasses
import json
import os
import pwd
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from opsmap_agent.commands.refusals import RefusalError
from opsmap_agent.commands.sync import SyncRunner
from opsmap_agent.configuration import Configuration, Gateway, ProcessLimits, RunAs, Scripts, Tls
from opsmap_agent.host.processes import wait_for_end
from opsmap_agent.jobs.folder import JobFolder
from opsmap_agent.jobs.launcher import launch
from opsmap_agent.rules.policy import Policy
from opsmap_protocol.specs import ExecuteCommand, ScriptCommand

_KINDS: dict[str, Any] = {"execute": ExecuteCommand, "script": ScriptCommand, "job": ScriptCommand}


def main() -> None:
    folder = Path(sys.argv[1])
    orders = json.load(sys.stdin)
    # Python itself may be where that user cannot look: what is imported late has to be here early.
    codecs.lookup("ascii")
    user = pwd.getpwnam("opsmap")
    os.initgroups("opsmap", user.pw_gid)
    os.setgid(user.pw_gid)
    os.setuid(user.pw_uid)
    os.environ.clear()
    os.environ["PATH"] = "/usr/bin:/bin"
    os.environ["SECRET"] = "of the agent"
    print(json.dumps(asyncio.run(_run_all(orders, folder))))


async def _run_all(orders: list[Any], folder: Path) -> list[Any]:
    unused = Path("/unused")
    policy = Policy(
        Configuration(
            Gateway("wss://unused"),
            Tls(unused, unused, unused),
            scripts=Scripts(allowed_paths=[folder / "scripts"], limits=ProcessLimits(max_open_files=55, nice=3)),
            identity=RunAs(allowed_runas_users=["db", "stranger", "gone", "root"], allowed_runas_groups=["webadmin"]),
        )
    )
    with ThreadPoolExecutor(2) as executor:
        runner = SyncRunner(executor, 100_000)
        return [await _run(policy, runner, order, folder / "jobs" / str(n)) for n, order in enumerate(orders)]


async def _run(policy: Policy, runner: SyncRunner, order: Any, job: Path) -> Any:
    kind, fields, timeout_s = order
    if kind == "plain":
        done = subprocess.run(fields["argv"], capture_output=True, text=True, check=False)
        return {"exit_code": done.returncode, "stdout": done.stdout, "stderr": done.stderr}
    try:
        program = policy.resolve(_KINDS[kind](**fields))
        if kind == "job":
            records = JobFolder(job)
            launched = await asyncio.to_thread(launch, program, records)
            await wait_for_end(launched.shim)
            return {"exit_code": records.exit_code(), "stdout": records.log_path.read_text()}
        return dataclasses.asdict(await runner.run(program, timeout_s))
    except RefusalError as refusal:
        return {"refused": str(refusal), "outcome": refusal.outcome.value}


if __name__ == "__main__":
    main()
