"""What one agent costs its host: memory and processor time, at work as on a real one.

A real installation with one gateway and one agent, which watches 50 components (HTTP, TCP, process, file and command
checks every 30 s, as is usual; --interval-ms for others) and has looked around its host once.

- `rss_mb`: resident memory of the agent's process when it rests, the most seen; `rss_mb_start` before checks.
- `cpu_percent`: of one core, over `--seconds`, with the checks running.
- `natives_ms_p50`: one read-only native command after the other, from the REST call to the stored answer, over all of
  NATIVES; `natives_in_agent_ms_p50` is what the agent itself says it took.
- `findings`: what the discovery found, by kind: an agent that found nothing would be cheap.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import psutil

from bench.measuring import milliseconds, report, say
from deploy.embedded.ports import WEB
from tests.world import World

CHECKS = 50
ROUNDS = 20
SETTLE_S = 20.0
TIMEOUT_S = 60.0
NATIVES: dict[str, dict[str, Any]] = {
    "os_info": {},
    "uptime": {},
    "cpu_load": {},
    "memory_usage": {},
    "disk_space": {},
    "network_interfaces": {},
    "listening_ports": {},
    "process_list": {},
    "process_find": {"pattern": "opsmap"},
    "file_stat": {"path": "/etc/hostname"},
    "file_read": {"path": "/etc/passwd"},
    "file_checksum": {"path": "/etc/passwd", "algorithm": "sha256"},
    "dir_list": {"path": "/etc"},
    "dns_lookup": {"hostname": "localhost"},
}


class AgentBenchError(Exception):
    """Something did not happen that is part of what is measured."""


def main() -> None:
    options = _parser().parse_args()
    with World(gateways=1, agents=1, agent_settings={"discovery": {"on_startup": True}}) as world:
        process = psutil.Process(world.agents["host-001"].pid)
        at_start_mb = _rss_mb(process)
        _watch_components(world, options.interval_ms)
        findings = _wait_for_discovery(world)
        say(f"50 checks run, the host is known: {findings}; letting it settle")
        time.sleep(SETTLE_S)
        rss_mb, cpu_percent = _observe(process, options.seconds)
        calls, inside = _call_natives(world)
        figures = {
            "rss_mb": round(rss_mb, 1),
            "cpu_percent": round(cpu_percent, 2),
            "natives_ms_p50": round(median(calls), 1),
            "natives_in_agent_ms_p50": round(median(inside), 1),
            "rss_mb_start": round(at_start_mb, 1),
            "rss_mb_after_natives": round(_rss_mb(process), 1),
            "checks": CHECKS,
            "interval_ms": options.interval_ms,
            "findings": findings,
        }
    report(figures)


def _watch_components(world: World, interval_ms: int) -> None:
    """A Map of 50 components on the host, each with a check that finds something alive."""
    rest = world.rest()
    with world.database() as database:
        row = database.execute("SELECT id FROM orgs_workspace LIMIT 1").fetchone()
    if row is None:
        raise AgentBenchError("the world has no workspace")
    documents = [
        {"path": "map.yaml", "content": "apiVersion: opsmap.io/v1\nkind: Map\nmetadata: {name: agent-bench}\n"}
    ]
    documents += [
        {"path": f"components/{number}.yaml", "content": _component(world, number, interval_ms)}
        for number in range(CHECKS)
    ]
    created = rest.post("/maps", {"workspaceId": str(row[0]), "documents": documents})
    _wait_until(lambda: _states(rest.get(f"/maps/{created['id']}")) == {"running"}, "all components running")


def _component(world: World, number: int, interval_ms: int) -> str:
    web = world.ports[WEB]
    probe = (
        f"type: http, url: 'http://127.0.0.1:{web}/healthz', expected_status: 200",
        f"type: tcp, port: {web}",
        "type: process, process_name: python",
        "type: file, path: /etc/hostname",
        "type: command, command: /bin/true",
    )[number % 5]
    return f"""\
apiVersion: opsmap.io/v1
kind: Component
metadata: {{name: component-{number}}}
spec:
  type: service
  host: host-001
  healthcheck: {{{probe}, interval_ms: {interval_ms}, timeout_ms: 5000}}
"""


def _states(described: dict[str, Any]) -> set[str]:
    return {component["state"] for component in described["components"]}


def _wait_for_discovery(world: World) -> dict[str, int]:
    found: dict[str, Any] = {}

    def is_there() -> bool:
        with world.database() as database:
            row = database.execute("SELECT findings FROM gateways_agentdiscovery LIMIT 1").fetchone()
        found.update(row[0] if row else {})
        return bool(found)

    _wait_until(is_there, "a discovery")
    return {kind: len(items) for kind, items in sorted(found.items())}


def _observe(process: psutil.Process, seconds: float) -> tuple[float, float]:
    """The most memory, in MB, and the share of a core, over so long."""
    most_mb = 0.0
    began, before = time.monotonic(), process.cpu_times()
    while time.monotonic() - began < seconds:
        most_mb = max(most_mb, _rss_mb(process))
        time.sleep(0.5)
    after, elapsed_s = process.cpu_times(), time.monotonic() - began
    spent_s = after.user + after.system - before.user - before.system
    return most_mb, 100 * spent_s / elapsed_s


def _call_natives(world: World) -> tuple[list[float], list[float]]:
    """Milliseconds of each call, as the caller sees them and as the agent says."""
    rest, address = world.rest(), f"/agents/{world.row_ids['host-001']}/commands?wait=10"
    calls: list[float] = []
    inside: list[float] = []
    for _ in range(ROUNDS):
        for name, params in NATIVES.items():
            body = {"command": {"type": "native", "name": name, "params": params}, "timeoutMs": 10_000}
            answers: list[Any] = []
            calls.append(milliseconds(lambda body=body, answers=answers: answers.append(rest.post(address, body))))
            if answers[0]["state"] != "succeeded":
                raise AgentBenchError(f"{name}: {answers[0]}")
            inside.append(float(answers[0]["durationMs"]))
    return calls, inside


def _rss_mb(process: psutil.Process) -> float:
    return float(process.memory_info().rss) / 1024**2


def _wait_until(is_so: Any, what: str) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not is_so():
        if time.monotonic() > deadline:
            raise AgentBenchError(f"there was no sign of {what} within {TIMEOUT_S:g} s")
        time.sleep(0.2)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="What one agent costs its host.")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to observe (default: %(default)s)")
    parser.add_argument("--interval-ms", type=int, default=30_000, help="between two runs of a check")
    return parser


if __name__ == "__main__":
    main()
