"""Children of an agent that is killed, stopped and replaced by another copy of itself, again and again.

Shared by `test_agent_survival.py` and `bench/survival.py`. Each child writes a line when it begins, and then waits at a
pipe for the code that it is to end with; so whoever ran it twice is found out, and nothing is polled.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import opsmap_agent
from opsmap_agent.host.processes import ProcessIdentity
from opsmap_agent.jobs.folder import JobFolder
from opsmap_protocol.specs import AsyncMode, ExecuteCommand

if TYPE_CHECKING:
    from conftest import GatewaySide
    from testing_pki import Leaf, Pki

_MAIN = "import sys; from opsmap_agent.cli import main; sys.exit(main())"
_PACKAGES = ("opsmap_agent", "opsmap_daemon", "opsmap_protocol", "opsmap_trust")
_CHILD = 'echo begun >>"$1"; read -r code <"$2"; exit "$code"'


@dataclass
class Outcome:
    """What the restarts have cost. All but the first two and the last must be 0."""

    restarts: int
    children: int
    changed_pids: int = 0
    restarted: int = 0
    unknown_exits: int = 0
    seconds: float = 0.0


@dataclass
class _Child:
    request_id: str
    folder: Path
    number: int
    process: ProcessIdentity | None = None

    @property
    def code(self) -> int:
        return self.number % 200 + 1

    @property
    def begun(self) -> Path:
        return self.folder / f"begun_{self.number}"

    @property
    def pipe(self) -> Path:
        return self.folder / f"pipe_{self.number}"

    def end(self) -> None:
        self.pipe.write_text(f"{self.code}\n")


@dataclass
class Survival:
    """One agent, in the hands of a scripted gateway. `folder` holds all that it writes."""

    gateway: GatewaySide
    folder: Path
    file: Path
    children: list[_Child] = field(default_factory=list)
    _process: asyncio.subprocess.Process | None = None

    async def measure(self, restarts: int, children: int) -> Outcome:
        begun = time.monotonic()
        outcome = Outcome(restarts, children)
        homes = [Path(opsmap_agent.__file__).parents[1], _copy_of_the_code(self.folder / "upgrade")]
        await self._start(homes[0], 0)
        await self._launch(children)
        seen = int(self.gateway.events[-1]["seq"])
        try:
            for number in range(restarts):
                await self._stop(signal.SIGTERM if number % 3 == 1 else signal.SIGKILL)
                # Every third time another copy of the code goes on, as after an upgrade.
                await self._start(homes[(number // 3) % 2], seen)
                outcome.changed_pids += sum(not self._is_the_same(child) for child in self.children)
            outcome.unknown_exits = await self._end_children(homes[0], seen)
        finally:
            await self._stop(signal.SIGTERM)
            self._kill_children()
        outcome.restarted = sum(child.begun.read_text() != "begun\n" for child in self.children)
        outcome.seconds = round(time.monotonic() - begun, 1)
        return outcome

    async def _start(self, home: Path, acked_seq: int) -> dict[str, Any]:
        self.gateway.forget()
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", _MAIN, "run", "--config", str(self.file)),
            env={**os.environ, "PYTHONPATH": str(home), "PYTHONDONTWRITEBYTECODE": ""},
        )
        return await self.gateway.welcome(acked_seq)

    async def _stop(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)
            await self._process.wait()

    async def _launch(self, count: int) -> None:
        for number in range(count):
            child = _Child("", self.folder, number)
            os.mkfifo(child.pipe)
            spec = ExecuteCommand("sh", ["-c", _CHILD, "child", str(child.begun), str(child.pipe)])
            child.request_id = await self.gateway.command(spec, AsyncMode(max_wait_ms=3_600_000))
            self.children.append(child)
        for child in self.children:
            started = await self.gateway.body("async_started", child.request_id)
            child.process = self._records(child).process()
            assert child.process is not None
            assert child.process.pid == started["pid"]

    def _records(self, child: _Child) -> JobFolder:
        return JobFolder(self.folder / "detached" / f"job_{child.request_id}")

    def _is_the_same(self, child: _Child) -> bool:
        is_alive = child.process is not None and child.process.is_alive()
        is_known = child.request_id in self.gateway.presence["open_requests"]
        return is_alive and is_known and self._records(child).process() == child.process

    async def _end_children(self, home: Path, seen: int) -> int:
        """Half of them end while there is no agent, half under it. How many ends were not told, or wrongly."""
        await self._stop(signal.SIGKILL)
        half = len(self.children) // 2
        for child in self.children[:half]:
            child.end()
        for child in self.children[:half]:
            while self._records(child).has_shim():  # noqa: ASYNC110 - not our child
                await asyncio.sleep(0.005)
        await self._start(home, seen)
        for child in self.children[half:]:
            child.end()
        unknown = 0
        for child in self.children:
            status = await self.gateway.body("async_status", child.request_id)
            unknown += status.get("exit_code") != child.code
        return unknown

    def _kill_children(self) -> None:
        """After a failure: the pipes would hold them for ever."""
        for child in self.children:
            if child.process is not None and child.process.is_alive():
                os.kill(child.process.pid, signal.SIGKILL)


def write_configuration(folder: Path, pki: Pki, leaf: Leaf, port: int) -> Path:
    """The agent's file, with all its folders below `folder`."""
    file = folder / "agent.yaml"
    file.write_text(
        f"""
gateway: {{url: "wss://localhost:{port}", reconnect: {{initial_delay_ms: 10, max_delay_ms: 20}}}}
tls: {{cert_file: "{leaf.cert}", key_file: "{leaf.key}", ca_file: "{pki.gateway_ca.ca}",
  backend_ca_file: "{pki.backend_ca.ca}"}}
detached_execution: {{log_dir: detached}}
buffer: {{path: buffer}}
discovery: {{on_startup: false}}
logging: {{level: warn}}
"""
    )
    return file


def _copy_of_the_code(target: Path) -> Path:
    source = Path(opsmap_agent.__file__).parents[1]
    for package in _PACKAGES:
        shutil.copytree(source / package, target / package, ignore=shutil.ignore_patterns("__pycache__"))
    return target
