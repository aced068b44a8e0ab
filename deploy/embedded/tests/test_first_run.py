"""What an interrupted first run, a crash and a reused process id leave is repaired with a clear line."""

import os
import signal
import time
from pathlib import Path

import psutil

from deploy.embedded.tests.running import Embedded, eventually, none_alive


def test_killed_during_initdb(embedded: Embedded) -> None:
    process = embedded.start("services", "--", "true")
    eventually(lambda: any(data_home(embedded).glob("postgres.new-*/*")))
    below = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    eventually(lambda: none_alive(below))
    assert list(data_home(embedded).glob("postgres.new-*"))
    assert not (data_home(embedded) / "postgres").exists()

    done = embedded.services("true")

    assert done.returncode == 0, done.stderr
    assert "An earlier first run was interrupted" in done.stderr
    assert not list(data_home(embedded).glob("postgres.new-*"))


def test_asked_to_stop_during_initdb(embedded: Embedded) -> None:
    process = embedded.start("services", "--", "true")
    eventually(lambda: any(data_home(embedded).glob("postgres.new-*/*")))
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGTERM
    assert embedded.services("true").returncode == 0


def test_a_folder_that_is_no_cluster_is_moved_aside(embedded: Embedded) -> None:
    embedded.services("true")
    (data_home(embedded) / "postgres" / "global" / "pg_control").unlink()

    done = embedded.services("true")

    assert done.returncode == 0, done.stderr
    assert "is no complete PostgreSQL cluster" in done.stderr
    (aside,) = data_home(embedded).glob("postgres.incomplete-*")
    assert (aside / "PG_VERSION").exists()


def test_a_stale_pid_file_after_a_crash(embedded: Embedded) -> None:
    process, below = embedded.start_sleeping()
    process.send_signal(signal.SIGSTOP)  # so that it cannot take note of the crash
    for child in below:
        child.kill()
    process.kill()
    eventually(lambda: none_alive(below))
    assert (data_home(embedded) / "postgres" / "postmaster.pid").exists()

    assert embedded.services("true").returncode == 0


def test_a_stale_pid_that_belongs_to_a_stranger(embedded: Embedded) -> None:
    embedded.services("true")
    data = data_home(embedded) / "postgres"
    stranger, started = os.getpid(), int(time.time())
    (data / "postmaster.pid").write_text(
        f"{stranger}\n{data}\n{started}\n5432\n{embedded.state}\n\n  1 1\nready   \n", encoding="ascii"
    )

    done = embedded.services("true")

    assert done.returncode == 0, done.stderr
    assert f"pid {stranger} is another program now" in done.stderr
    assert psutil.pid_exists(stranger)


def test_data_of_another_version_are_left_alone(embedded: Embedded) -> None:
    embedded.services("true")
    version = data_home(embedded) / "postgres" / "PG_VERSION"
    version.write_text("12\n", encoding="ascii")

    done = embedded.services("true")

    assert done.returncode == 1
    assert "are of PostgreSQL 12, and PostgreSQL" in done.stderr
    assert version.read_text(encoding="ascii") == "12\n"


def data_home(embedded: Embedded) -> Path:
    """The test folder can be passed by everybody, so the data are inside, for root too."""
    return embedded.state
