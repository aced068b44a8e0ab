"""One supervisor per state folder, and the lease of the demonstration."""

import fcntl
import os
from pathlib import Path

import pytest

from deploy.embedded.errors import AlreadyRunningError
from deploy.embedded.lock import Lease, SupervisorLock


def test_the_second_learns_where_the_first_is(tmp_path: Path) -> None:
    path = tmp_path / "supervisor.lock"
    with SupervisorLock(path) as first:
        first.describe("http://127.0.0.1:8000/")
        with pytest.raises(AlreadyRunningError) as caught, SupervisorLock(path):
            pass
        assert str(caught.value) == f"OpsMap already runs here (pid {os.getpid()}, http://127.0.0.1:8000/)."
    with SupervisorLock(path):
        assert path.stat().st_mode & 0o777 == 0o600


def test_a_holder_that_has_not_said_its_name_yet(tmp_path: Path) -> None:
    path = tmp_path / "supervisor.lock"
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(AlreadyRunningError, match="is in use"), SupervisorLock(path):
            pass


def test_the_lease_is_exclusive_while_it_is_held(tmp_path: Path) -> None:
    lease = Lease(tmp_path / "demo" / "lease")
    lease.acquire()
    with lease.path.open() as watcher:
        with pytest.raises(BlockingIOError):
            fcntl.flock(watcher, fcntl.LOCK_SH | fcntl.LOCK_NB)
        lease.release()
        fcntl.flock(watcher, fcntl.LOCK_SH | fcntl.LOCK_NB)
