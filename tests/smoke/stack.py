"""The stack under test as a process: started, watched from outside, and ended, with a count of what it leaves."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import psutil

from tests.processes import Kin, command_line, describe, is_alive
from tests.smoke.errors import SmokeError
from tests.smoke.waiting import until

REPOSITORY = Path(__file__).resolve().parents[2]
_READY_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 30.0
_LOG_TAIL_LINES = 80
_ROUTINE = (" INFO ", '"GET ')
"""What the stack's lines say all the time; after a failure they would push out the ones that matter."""


class Stack:
    """`python -m deploy.embedded run` on free ports with its state in a temporary folder."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="opsmap-smoke-"))
        self.state = self.folder / "state"
        self._log = self.folder / "stack.log"
        self._ready_file = self.folder / "ready.json"
        self._kin = Kin(self.folder)
        self._process: subprocess.Popen[bytes] | None = None
        self.ready: dict[str, Any] = {}

    def start(self) -> dict[str, Any]:
        """Start it and wait until it says that it is ready; returns what it wrote into its ready file."""
        command = [sys.executable, "-m", "deploy.embedded", "run", "--state", str(self.state), "--free-ports"]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*command, "--ready-file", str(self._ready_file)],
                cwd=REPOSITORY,
                env={**_environment(), **self._kin.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Ctrl-C in the terminal is for the smoke run, which then ends the stack in order.
                start_new_session=True,
            )
        until(self._is_ready, timeout_s=_READY_TIMEOUT_S, what="the stack is ready", poll_s=0.02)
        self.ready = json.loads(self._ready_file.read_text(encoding="utf-8"))
        return self.ready

    def credentials(self) -> dict[str, str]:
        kept: dict[str, str] = json.loads((self.state / "credentials.json").read_text(encoding="utf-8"))
        return kept

    def agent(self, name: str) -> psutil.Process | None:
        """The process of the agent `name`, if one runs now."""
        configuration = f"agents/{name}/agent.yaml"
        assert self._process is not None
        for process in psutil.Process(self._process.pid).children():
            try:
                if any(word.endswith(configuration) for word in process.cmdline()):
                    return process
            except psutil.NoSuchProcess:
                continue
        return None

    def component(self, name: str) -> psutil.Process | None:
        """The process that a demonstration's pid file names, if it lives."""
        try:
            pid = int((self.state / "demo" / "run" / name / "pid").read_text(encoding="ascii").split()[0])
            process = psutil.Process(pid)
        except (FileNotFoundError, psutil.NoSuchProcess):
            return None
        return process if is_alive(process) else None

    def survivors(self) -> list[psutil.Process]:
        """Every live process that the stack ever started, as far as it was seen or still bears its mark."""
        return self._kin.survivors()

    def demonstration(self) -> list[str]:
        """What of the survivors belongs to the demonstration."""
        run = str(self.state / "demo" / "run")
        keepers = [process for process in self.survivors() if any(run in word for word in command_line(process))]
        return [describe(process) for process in keepers]

    def stop(self) -> None:
        """Ctrl-C, then nothing of it may be left."""
        assert self._process is not None
        self.survivors()
        self._process.send_signal(signal.SIGINT)
        try:
            code = self._process.wait(timeout=_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired as error:
            raise SmokeError(f"the stack did not stop within {_STOP_TIMEOUT_S:g} s of SIGINT") from error
        if code != 0:
            raise SmokeError(f"the stack ended with exit code {code} after SIGINT")
        if left := [describe(process) for process in self.survivors()]:
            raise SmokeError(f"processes of the stack are left: {'; '.join(left)}")

    def remove(self) -> None:
        """Remove every file of it, also those that it keeps outside of its folder."""
        command = [sys.executable, "-m", "deploy.embedded", "clean", "--state", str(self.state), "--yes"]
        cleaned = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=30, check=False)
        if cleaned.returncode != 0:
            raise SmokeError(f"clean failed: {cleaned.stdout}{cleaned.stderr}")
        shutil.rmtree(self.folder)

    def abandon(self) -> None:
        """After a failure: end everything, whatever state it is in, and remove the files."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(timeout=_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._kin.kill()
        if self.folder.exists():
            self.remove()

    def log_tail(self) -> str:
        """The stack's last lines that are not routine."""
        if not self._log.exists():
            return ""
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join([line for line in lines if not any(text in line for text in _ROUTINE)][-_LOG_TAIL_LINES:])

    def _is_ready(self) -> bool:
        assert self._process is not None
        if (code := self._process.poll()) is not None:
            raise SmokeError(f"the stack ended with exit code {code} before it was ready")
        return self._ready_file.exists()


def _environment() -> dict[str, str]:
    """Ours without what would point the stack at somebody else's servers: it brings its own."""
    return {name: value for name, value in os.environ.items() if not name.startswith("OPSMAP_")}
