"""The real services: they start, answer to who may ask, keep their data, and pass the command's result on."""

import json
import os
import signal
import stat
import sys
from pathlib import Path

import psutil
import pytest

from deploy.embedded.tests.running import Embedded, eventually, none_alive

ASK_BOTH = """
import json, os, psycopg, redis
database = psycopg.connect(os.environ["OPSMAP_DATABASE_URL"])
row = database.execute(
    "select current_user, rolsuper, rolcreatedb, current_setting('fsync'), current_setting('listen_addresses'),"
    " pg_encoding_to_char(encoding), datlocprovider, datlocale"
    " from pg_roles, pg_database where rolname = current_user and datname = current_database()"
).fetchone()
broker = redis.Redis.from_url(os.environ["OPSMAP_REDIS_URL"])
settings = broker.config_get("maxmemory", "port", "appendonly", "save")
print(json.dumps({"database": row, "redis": settings, "key": len(os.environ["OPSMAP_SECRET_KEY"])}))
broker.close()
database.close()
"""
WRITE = """
import os, psycopg
with psycopg.connect(os.environ["OPSMAP_DATABASE_URL"]) as database:
    database.execute("create table if not exists kept (n int)")
    database.execute("truncate kept")
    database.execute("insert into kept values (42)")
"""
READ = """
import os, psycopg
with psycopg.connect(os.environ["OPSMAP_DATABASE_URL"]) as database:
    print(database.execute("select n from kept").fetchone()[0])
"""
REFUSED = """
import os, urllib.parse, psycopg, redis
url = urllib.parse.urlsplit(os.environ["OPSMAP_DATABASE_URL"])
folder = url.query.removeprefix("host=")
for user, password, name in (("opsmap", "wrong", "opsmap"), ("postgres", "", "postgres"), ("opsmap", "", "opsmap")):
    try:
        psycopg.connect(host=folder, user=user, password=password, dbname=name)
    except psycopg.OperationalError:
        continue
    raise SystemExit(f"{user} got in")
broker = redis.Redis(unix_socket_path=f"{folder}/valkey.sock")
try:
    broker.ping()
except redis.AuthenticationError:
    broker.close()
else:
    raise SystemExit("valkey asked for no password")
"""


def python(code: str) -> tuple[str, ...]:
    return (sys.executable, "-W", "error", "-c", code)


def test_both_answer_and_are_set_up_as_promised(installed: Embedded) -> None:
    done = installed.services(*python(ASK_BOTH))
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["database"] == ["opsmap", False, True, "on", "", "UTF8", "b", "C.UTF-8"]
    assert answer["redis"] == {"maxmemory": str(256 * 1024**2), "port": "0", "appendonly": "no", "save": ""}
    assert answer["key"] >= 32


def test_nobody_gets_in_without_the_password(installed: Embedded) -> None:
    done = installed.services(*python(REFUSED))
    assert done.returncode == 0, done.stdout + done.stderr


def test_data_are_kept_for_the_next_run(installed: Embedded) -> None:
    assert installed.services(*python(WRITE)).returncode == 0
    done = installed.services(*python(READ))
    assert (done.returncode, done.stdout) == (0, "42\n")


def test_a_lost_password_is_replaced(installed: Embedded) -> None:
    assert installed.services(*python(WRITE)).returncode == 0
    (installed.state / "postgres.password").unlink()
    assert installed.services(*python(READ)).stdout == "42\n"


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (("true",), 0),
        (("sh", "-c", "exit 7"), 7),
        (("sh", "-c", "kill -TERM $$"), 128 + 15),
        (("/nonexistent/program",), 127),
        (("/etc/passwd",), 126),
    ],
)
def test_exit_codes_are_passed_on(installed: Embedded, command: tuple[str, ...], code: int) -> None:
    assert installed.services(*command).returncode == code


def test_external_services_are_used_and_none_is_started(embedded: Embedded) -> None:
    given = {"OPSMAP_DATABASE_URL": "postgresql://you@there/db", "OPSMAP_REDIS_URL": "redis://there:6379/0"}
    done = embedded.run("services", "--", "sh", "-c", "echo $OPSMAP_DATABASE_URL $OPSMAP_REDIS_URL", environment=given)
    assert done.stdout.split() == list(given.values())
    assert not (embedded.state / "postgres").exists()
    assert not (embedded.state / "valkey").exists()


def test_a_signal_reaches_the_command_and_leaves_nothing(installed: Embedded) -> None:
    process, below = installed.start_sleeping()
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 128 + signal.SIGTERM
    assert none_alive(below)
    assert not list((installed.state / "sockets").glob("*"))


def test_the_death_of_a_service_ends_the_command_with_its_last_lines(installed: Embedded) -> None:
    process, below = installed.start_sleeping()
    next(child for child in below if child.name() == "postgres" and child.ppid() == process.pid).kill()
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "postgres ended unexpectedly (killed by SIGKILL)" in errors
    assert "ready to accept connections" in errors
    assert none_alive(below)


def test_secrets_are_private_files_and_on_no_command_line(installed: Embedded) -> None:
    _, below = installed.start_sleeping()
    password = (installed.state / "postgres.password").read_text(encoding="ascii").strip()
    for name in ("postgres.password", "secret_key"):
        assert stat.S_IMODE((installed.state / name).stat().st_mode) == 0o600
    logs = "".join(path.read_text(encoding="utf-8") for path in (installed.state / "logs").iterdir())
    assert password not in logs
    for child in below:
        words = [word for word in child.cmdline() if "requirepass" in word or password in word]
        assert not words


def test_services_listen_on_no_network_address(installed: Embedded) -> None:
    _, below = installed.start_sleeping()
    assert [connection for child in below for connection in child.net_connections("inet")] == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root changes user")
def test_root_runs_the_services_as_an_unprivileged_user(installed: Embedded) -> None:
    _, below = installed.start_sleeping()
    services = [child for child in below if child.name() in {"postgres", "valkey-server"}]
    assert services
    for child in services:
        assert child.username() == "nobody"
        groups = Path(f"/proc/{child.pid}/status").read_text(encoding="ascii")
        assert "\nGroups:\t \n" in groups


def test_kill_9_of_the_supervisor_leaves_nothing(installed: Embedded) -> None:
    process, below = installed.start_sleeping()
    names = {child.name() for child in below}
    assert {"postgres", "valkey-server"} <= names
    assert names & {"sh", "sleep"}, "the shell says that it is up just before it becomes what it runs"
    process.kill()
    eventually(lambda: none_alive(below))
    assert installed.services("true").returncode == 0


def test_a_run_right_after_kill_9_waits_for_the_old_server(installed: Embedded) -> None:
    process, below = installed.start_sleeping()
    process.kill()
    assert installed.services("true").returncode == 0
    assert none_alive(below)


def test_a_second_one_says_who_runs_here(installed: Embedded) -> None:
    process, _ = installed.start_sleeping()
    done = installed.run("run")
    assert done.returncode == 3
    assert f"OpsMap already runs here (pid {process.pid})" in done.stderr
    assert psutil.pid_exists(process.pid)
