"""The demonstration's real processes: they come up in order, notice what they miss, and leave nothing behind.

The tests share one running branch (two databases and four services), and each leaves it as it found it.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from functools import partial
from http.client import HTTPConnection
from pathlib import Path

import psutil
import pytest

from deploy.demo.tests.stage import Stage, wait_until

LEVELS = (("postgresql", "redis-cache"), ("reference-data", "market-data"), ("pricing",), ("risk-engine",))
BRANCH = tuple(name for level in LEVELS for name in level)


def processes_of(stage: Stage, name: str) -> list[int]:
    """Every live process that belongs to the component: it has the component's lock file open."""
    lock = stage.state / name / "lock"
    found = []
    for pid in psutil.pids():
        try:
            files = [descriptor.readlink() for descriptor in Path(f"/proc/{pid}/fd").iterdir()]
        except (FileNotFoundError, PermissionError, ProcessLookupError):
            # It ended meanwhile, or belongs to somebody else.
            continue
        if lock in files:
            found.append(pid)
    return found


def is_gone(stage: Stage, name: str) -> bool:
    return not stage.slot(name).is_held()


@pytest.fixture(scope="module")
def branch(stage: Stage) -> Stage:
    """Started level by level: each refuses connections before, and is up when the next level starts."""
    for level in LEVELS:
        for name in level:
            assert not stage.is_open(name)
            stage.start(name)
        for name in level:
            stage.wait_until_ready(name)
    return stage


def test_each_component_of_a_started_branch_is_up(branch: Stage) -> None:
    code, body = branch.health("risk-engine")
    assert code == 200
    assert body["status"] == "UP"
    assert body["needs"] == {"pricing": "UP", "reference-data": "UP"}
    assert branch.health("pricing")[1]["uses"] == {"reference-data": "UP"}


def test_a_service_that_misses_what_it_needs_answers_503_and_says_what(branch: Stage) -> None:
    branch.start("web-frontend")
    wait_until(lambda: branch.is_down("web-frontend"), timeout_s=10, what="web-frontend is down")
    needs = branch.health("web-frontend")[1]["needs"]
    assert needs == {"trading-api": "connection refused"}
    assert branch.run("web-frontend", "stop").returncode == 0
    assert not branch.is_open("web-frontend")


def test_killing_the_database_shows_at_once_and_a_fresh_start_heals_it(branch: Stage) -> None:
    main = branch.pid("postgresql")
    os.kill(main, signal.SIGKILL)
    wait_until(lambda: not branch.is_open("postgresql"), timeout_s=0.5, what="the port is closed")
    assert branch.exit_code("postgresql") == 128 + signal.SIGKILL
    wait_until(partial(is_gone, branch, "postgresql"), timeout_s=3, what="no process is left")
    for name in ("reference-data", "risk-engine"):
        wait_until(partial(branch.is_down, name), timeout_s=2, what=f"{name} is down")
    assert branch.health("reference-data")[1]["needs"] == {"postgresql": "connection refused"}
    # A weak dependency does not spread, and the rest never noticed.
    assert branch.is_up("pricing")
    assert branch.is_up("market-data")
    branch.start_and_wait("postgresql")
    wait_until(lambda: branch.is_up("risk-engine"), timeout_s=3, what="risk-engine is up again")
    assert branch.pid("postgresql") != main


@pytest.mark.parametrize("name", ["postgresql", "redis-cache"])
def test_a_server_does_not_outlive_its_keeper(branch: Stage, name: str) -> None:
    keeper = psutil.Process(branch.pid(name)).ppid()
    os.kill(keeper, signal.SIGKILL)
    wait_until(partial(is_gone, branch, name), timeout_s=3, what="no process is left")
    assert not branch.is_open(name)
    branch.start_and_wait(name)
    wait_until(lambda: branch.is_up("risk-engine"), timeout_s=3, what="risk-engine is up again")


def test_a_database_that_hangs_is_named_before_the_health_check_times_out(branch: Stage) -> None:
    main = branch.pid("postgresql")
    os.kill(main, signal.SIGSTOP)
    try:
        wait_until(lambda: branch.is_down("reference-data"), timeout_s=3, what="reference-data is down")
        began = time.monotonic()
        time.sleep(0.3)  # older than a verdict may be, so that the question is asked anew
        _code, body = branch.health("reference-data")
        assert time.monotonic() - began - 0.3 < 0.8
        assert body["needs"]["postgresql"].startswith("no answer within")
    finally:
        os.kill(main, signal.SIGCONT)
    wait_until(lambda: branch.is_up("risk-engine"), timeout_s=3, what="risk-engine is up again")


def test_status_start_and_stop_may_be_repeated(branch: Stage) -> None:
    pid = branch.pid("market-data")
    again = branch.run("market-data", "start")
    assert again.returncode == 0
    assert f"already running (pid {pid})" in again.stdout
    assert branch.run("market-data", "status").returncode == 0
    assert branch.run("ops-dashboard", "status").returncode == 3
    stop = branch.run("ops-dashboard", "stop")
    assert stop.returncode == 0
    assert "already stopped" in stop.stdout


@pytest.mark.parametrize("name", ["postgresql", "redis-cache", "market-data"])
def test_stop_leaves_no_process_and_no_pid_file(branch: Stage, name: str) -> None:
    assert processes_of(branch, name)
    began = time.monotonic()
    stop = branch.run(name, "stop")
    assert stop.returncode == 0, stop.stdout
    assert branch.exit_code(name) == 0
    assert time.monotonic() - began < 2.5
    assert processes_of(branch, name) == []
    assert not branch.is_open(name)
    assert not branch.slot(name).pid_file.exists()
    branch.start_and_wait(name)


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/etc/passwd", 404), ("POST", "/health", 405)])
def test_only_health_is_served_and_only_for_reading(branch: Stage, method: str, path: str, status: int) -> None:
    connection = HTTPConnection("127.0.0.1", branch.ports["pricing"], timeout=2)
    connection.request(method, path)
    assert connection.getresponse().status == status
    connection.close()


def test_a_client_that_says_nothing_does_not_keep_others_waiting(branch: Stage) -> None:
    with socket.create_connection(("127.0.0.1", branch.ports["pricing"])):
        began = time.monotonic()
        assert branch.is_up("pricing")
        assert time.monotonic() - began < 0.8


def test_root_runs_databases_as_somebody_else(branch: Stage) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root has somebody else to run them as")
    for name in ("postgresql", "redis-cache"):
        assert all(uid != 0 for uid in psutil.Process(branch.pid(name)).uids())


def test_when_the_supervisor_is_gone_everything_ends(branch: Stage) -> None:
    pids = {name: processes_of(branch, name) for name in BRANCH}
    assert all(pids.values())
    branch.release_lease()
    try:
        for name in BRANCH:
            wait_until(partial(is_gone, branch, name), timeout_s=4, what=f"{name} has ended")
            assert not branch.is_open(name)
        refused = branch.run("market-data", "start")
        assert refused.returncode == 1
        assert "no supervisor holds" in refused.stdout
    finally:
        branch.hold_lease()


def test_without_a_lease_file_nothing_starts(branch: Stage) -> None:
    Path(branch.lease).rename(branch.root / "lease.away")
    try:
        refused = branch.run("order-queue", "start")
        assert refused.returncode == 1
        assert not branch.is_open("order-queue")
    finally:
        (branch.root / "lease.away").rename(branch.lease)


def test_a_first_start_that_is_cut_short_is_made_good_by_the_next(root: Path) -> None:
    stage = Stage(root, python=Path(sys.executable))
    try:
        first = stage.start("postgresql")
        wait_until(
            lambda: b"creating the database cluster" in stage.log.read_bytes(),
            timeout_s=5,
            what="initdb runs",
        )
        assert stage.run("postgresql", "stop").returncode == 0
        assert first.wait(timeout=3) == 0
        assert not stage.is_open("postgresql")
        stage.start_and_wait("postgresql")
    finally:
        stage.close()
