"""`make chaos`: trials, then the planted faults; the last line is one JSON object.

make chaos ARGS="--seed 7"                                  another order, other moments
make chaos ARGS="--seed 7 --only kill-agent-launch-after"   one fault alone, again and again
make chaos ARGS="--list"
"""

from __future__ import annotations

import argparse
import json
import re
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.chaos.faults import catalogue
from tests.chaos.planted import are_planted_faults_found
from tests.chaos.runner import Outcome, Runner, say
from tests.chaos.site import Site
from tests.chaos.trial import Fault

_TRIALS = 320
_AGENTS = 4
_DELIVERY_S = 30.0
_DEADLINE_S = 20 * 60.0
_SHOWN = 20


def main() -> int:
    arguments = _arguments()
    faults = catalogue()
    if arguments.list:
        print("\n".join(faults))
        return 0
    chosen = [fault for name, fault in faults.items() if re.search(arguments.only, name)]
    if not chosen:
        sys.exit(f"no fault is named like {arguments.only!r}; --list shows all")
    # However it is ended, the world is taken down in order.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("opsmap: chaos was asked to end"))
    outcome = _run(chosen, arguments)
    is_found = arguments.no_planted or are_planted_faults_found(arguments.seed)
    _report(outcome)
    print(json.dumps({**outcome.summary(), "planted_found": None if arguments.no_planted else is_found}), flush=True)
    return 0 if outcome.is_clean and is_found else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make chaos", description="Kill everything, and count what was lost.")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--trials", type=int, default=_TRIALS)
    parser.add_argument("--agents", type=int, default=_AGENTS)
    parser.add_argument("--only", default="", help="a regular expression: only faults with such a name")
    parser.add_argument("--deadline-s", type=float, default=_DEADLINE_S, help="no new trial begins after this")
    parser.add_argument("--no-planted", action="store_true", help="without the test of the checker")
    parser.add_argument("--keep-logs", type=Path, help="copy the logs of all processes there in any case")
    parser.add_argument("--list", action="store_true")
    return parser.parse_args()


def _run(faults: Sequence[Fault], arguments: argparse.Namespace) -> Outcome:
    with Site(seed=arguments.seed, agents=arguments.agents, delivery_s=_DELIVERY_S) as site:
        say(f"seed {arguments.seed}: {arguments.trials} trials of {len(faults)} faults on {arguments.agents} hosts")
        outcome = Runner(site, arguments.seed, deadline_s=arguments.deadline_s).run(faults, arguments.trials)
        if arguments.keep_logs or not outcome.is_clean:
            logs = arguments.keep_logs or Path(tempfile.mkdtemp(prefix="opsmap-chaos-logs-"))
            site.keep_logs(logs)
            say(f"the logs of all processes are in {logs}")
    return outcome


def _report(outcome: Outcome) -> None:
    for finding in outcome.findings[:_SHOWN]:
        trial = finding.promise.key.rpartition(".")[0]
        name = trial.partition("-")[2]
        say(f"{finding.fault.value.upper()} {finding.promise.agent} {finding.promise.key}: {finding.reason}")
        say(f'    alone: make chaos ARGS="--seed {outcome.seed} --only ^{name}$ --trials 10 --no-planted"')
    if len(outcome.findings) > _SHOWN:
        say(f"and {len(outcome.findings) - _SHOWN} more")
    for misfire in outcome.misfires:
        say(f"MISFIRE {misfire[:300]}")


if __name__ == "__main__":
    sys.exit(main())
