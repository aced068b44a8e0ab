"""What the tests do to the demonstration: render it, run the documents' own commands, and ask `/health`."""

from __future__ import annotations

import fcntl
import json
import os
import random
import shlex
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from deploy.demo import PORT_NAMES, render
from deploy.demo.slot import Slot
from deploy.embedded.placement import outside_folder
from deploy.embedded.state import StateFolder


def free_ports(count: int) -> list[int]:
    """Ports nobody listens on, below the range that the kernel hands out to outgoing connections."""
    found: list[int] = []
    for port in random.sample(range(20000, 32000), 2000):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                found.append(port)
        if len(found) == count:
            return found
    raise AssertionError(f"there are no {count} free ports")


def wait_until(condition: Callable[[], bool], *, timeout_s: float, what: str) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
        time.sleep(0.02)


def discard_outside(root: Path) -> None:
    """Remove the data of `root` that lie outside of it.

    They do when root runs the tests, whose temporary folders the databases' user cannot reach.
    """
    outside = outside_folder(StateFolder(root.resolve()))
    if outside.exists():
        shutil.rmtree(outside)


class Stage:
    """One rendered demonstration under `root`, which plays the state folder of `make run`."""

    def __init__(self, root: Path, *, python: Path) -> None:
        self.root = root
        self.state = root / "demo" / "run"
        self.documents = root / "demo" / "documents" / "trading-platform"
        self.lease = root / "demo" / "lease"
        self.ports = dict(zip(PORT_NAMES, free_ports(len(PORT_NAMES)), strict=True))
        self.log = root / "log"
        self._started: list[subprocess.Popen[bytes]] = []
        self._latest: dict[str, subprocess.Popen[bytes]] = {}
        self._lease_file: int | None = None
        self.render(python)
        self.hold_lease()

    def render(self, python: Path) -> None:
        render(self.documents, python=python, state=self.state, ports=self.ports, lease=self.lease)

    def hold_lease(self) -> None:
        self._lease_file = os.open(self.lease, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
        fcntl.flock(self._lease_file, fcntl.LOCK_EX)

    def release_lease(self) -> None:
        if self._lease_file is not None:
            os.close(self._lease_file)
            self._lease_file = None

    def close(self) -> None:
        self.release_lease()
        for process in self._started:
            process.wait(timeout=10)
        discard_outside(self.root)

    def document(self, name: str) -> Any:
        return YAML(typ="safe").load(self.documents / "components" / f"{name}.yaml")

    def command(self, name: str, action: str) -> list[str]:
        """The command of the document, split the way an agent splits it."""
        return shlex.split(self.document(name)["spec"]["commands"][action]["command"])

    def start(self, name: str) -> subprocess.Popen[bytes]:
        """Run the start command, which goes on until the component ends; its lines go to the stage's log."""
        with self.log.open("ab") as log:
            # An empty environment: a document's command must not depend on the one it is started from.
            process = subprocess.Popen(self.command(name, "start"), stdout=log, stderr=log, env={}, cwd="/")
        self._started.append(process)
        self._latest[name] = process
        return process

    def exit_code(self, name: str) -> int:
        """How the latest start command of `name` ended, or is about to end."""
        return self._latest[name].wait(timeout=3)

    def run(self, name: str, action: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(name, action),
            capture_output=True,
            text=True,
            env={},
            cwd="/",
            timeout=15,
            check=False,
        )

    def start_and_wait(self, name: str) -> None:
        self.start(name)
        self.wait_until_ready(name)

    def wait_until_ready(self, name: str) -> None:
        is_ready = self.is_up if self.document(name)["spec"]["healthcheck"]["type"] == "http" else self.is_open
        wait_until(lambda: is_ready(name), timeout_s=10, what=f"{name} is ready")

    def slot(self, name: str) -> Slot:
        return Slot(self.state, name)

    def pid(self, name: str) -> int:
        pid = self.slot(name).main_pid()
        assert pid is not None, f"{name} is not running"
        return pid

    def is_open(self, name: str) -> bool:
        with socket.socket() as connection:
            return connection.connect_ex(("127.0.0.1", self.ports[name])) == 0

    def health(self, name: str) -> tuple[int, Any]:
        """Status and body of the component's `/health`."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.ports[name]}/health", timeout=2) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.loads(error.read())

    def is_up(self, name: str) -> bool:
        return self.is_open(name) and self.health(name)[0] == 200

    def is_down(self, name: str) -> bool:
        return self.is_open(name) and self.health(name)[0] == 503
