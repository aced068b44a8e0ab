"""The real command line of `deploy.embedded`, run by tests on a state folder of their own."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from deploy.embedded.clean import clean
from deploy.embedded.liveness import is_alive

ROOT = Path(__file__).resolve().parent.parent.parent.parent
DEADLINE_S = 60.0
POLL_S = 0.02


def eventually(condition: Callable[[], bool]) -> None:
    """Poll until it holds; fail after the deadline."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "this did not come true in time"
        time.sleep(POLL_S)


class Embedded:
    """`python -m deploy.embedded` on one state folder, without the services of the test run itself."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self._started: list[subprocess.Popen[str]] = []

    def start(
        self, *arguments: str, environment: dict[str, str] | None = None, is_quiet: bool = False
    ) -> subprocess.Popen[str]:
        """Start it; `arguments` begin with the action, `--state` is put in. Whoever does not read wants it quiet."""
        action, *rest = arguments
        argv = [sys.executable, "-m", "deploy.embedded", action, "--state", str(self.state), *rest]
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("OPSMAP_", "PG"))}
        process = subprocess.Popen(
            argv,
            cwd=ROOT,
            env=kept | (environment or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL if is_quiet else subprocess.PIPE,
            stderr=subprocess.DEVNULL if is_quiet else subprocess.PIPE,
            text=True,
        )
        self._started.append(process)
        return process

    def run(self, *arguments: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run it to its end."""
        process = self.start(*arguments, environment=environment)
        output, errors = process.communicate(timeout=60)
        return subprocess.CompletedProcess(arguments, process.returncode, output, errors)

    def services(self, *command: str) -> subprocess.CompletedProcess[str]:
        return self.run("services", "--", *command)

    def start_sleeping(self) -> tuple[subprocess.Popen[str], list[psutil.Process]]:
        """The services around a command that waits; returns once it runs, with all processes below."""
        process = self.start("services", "--", "sh", "-c", "echo up; exec sleep 600")
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        return process, psutil.Process(process.pid).children(recursive=True)

    def end_processes(self) -> None:
        for process in self._started:
            if process.poll() is None:
                process.kill()
            process.communicate(timeout=30)
        self._started.clear()

    def end(self) -> None:
        self.end_processes()
        clean(self.state, is_confirmed=True)


def none_alive(processes: list[psutil.Process]) -> bool:
    return not any(is_alive(process) for process in processes)
