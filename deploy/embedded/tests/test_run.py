"""The whole stack for real: it gets ready, heals, and leaves nothing behind, whether it is stopped or killed."""

import json
import signal
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

import psutil
import pytest

from deploy.embedded.tests.running import Embedded, eventually, none_alive
from opsmap.lib.health_key import HEADER, health_key

pytestmark = pytest.mark.processes
DAEMONS = {"daphne", "opsmap.link", "worker", "beat", "gateway.yaml", "srv-data-01", "srv-app-01"}


def start(embedded: Embedded) -> tuple[subprocess.Popen[str], dict[str, Any]]:
    """Start it and wait until it is ready; with what its ready file says."""
    ready_file = embedded.state.parent / "ready.json"
    ready_file.unlink(missing_ok=True)  # one that was killed could not
    process = embedded.start("run", "--no-demo", "--free-ports", "--ready-file", str(ready_file), is_quiet=True)
    eventually(lambda: ready_file.exists() or process.poll() is not None)
    assert process.poll() is None, (embedded.state / "logs" / "opsmap.log").read_text(encoding="utf-8")
    return process, json.loads(ready_file.read_text(encoding="utf-8"))


def child(parent: int, word: str) -> psutil.Process | None:
    """The child of the supervisor with this word in its command line."""
    for each in psutil.Process(parent).children():
        try:
            if word in " ".join(each.cmdline()):
                return each
        except psutil.NoSuchProcess:  # it has just ended, or is not reaped yet
            continue
    return None


def health(url: str, key: str = "") -> dict[str, Any]:
    request = urllib.request.Request(f"{url}healthz", headers={HEADER: key})
    with urllib.request.urlopen(request, timeout=5) as answer:
        value: dict[str, Any] = json.load(answer)
    return value


def test_from_an_empty_folder_to_a_page_and_back(embedded: Embedded) -> None:
    process, ready = start(embedded)
    eventually(lambda: all(child(process.pid, word) for word in DAEMONS))
    assert ready["pid"] == process.pid
    assert health(ready["web_url"]) == {"status": "ok"}
    secret = (embedded.state / "secret_key").read_text(encoding="utf-8").strip()
    assert health(ready["web_url"], health_key(secret))["agents_online"] == 2
    assert set(json.loads((embedded.state / "credentials.json").read_text(encoding="utf-8"))) == {"email", "password"}
    below = psutil.Process(process.pid).children(recursive=True)
    check_that_the_edge_has_no_secret_of_the_backend(process.pid)

    second = embedded.run("run")
    assert second.returncode == 3
    assert second.stderr == f"opsmap: OpsMap already runs here (pid {process.pid}, {ready['web_url']}).\n"

    agent = child(process.pid, "srv-app-01")
    assert agent is not None
    agent.kill()
    eventually(lambda: (again := child(process.pid, "srv-app-01")) is not None and again.pid != agent.pid)
    below += psutil.Process(process.pid).children(recursive=True)

    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == 0
    assert none_alive(below)
    log = (embedded.state / "logs" / "opsmap.log").read_text(encoding="utf-8")
    assert "srv-app-01 ended unexpectedly (killed by SIGKILL): starting it again in 0.5 s." in log
    assert "killed." not in log


def check_that_the_edge_has_no_secret_of_the_backend(supervisor: int) -> None:
    for word in ("gateway.yaml", "srv-data-01", "srv-app-01"):
        edge = child(supervisor, word)
        assert edge is not None
        given = Path(f"/proc/{edge.pid}/environ").read_text(encoding="utf-8")
        assert "PATH=" in given
        for name in ("OPSMAP_SECRET_KEY", "OPSMAP_DATABASE_URL", "OPSMAP_REDIS_URL"):
            assert name not in given


def test_kill_9_leaves_nothing_and_the_next_run_is_whole(embedded: Embedded) -> None:
    process, _ = start(embedded)
    eventually(lambda: all(child(process.pid, word) for word in DAEMONS))
    below = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    eventually(lambda: none_alive(below))

    process, ready = start(embedded)
    assert health(ready["web_url"])["status"] == "ok"
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 0
