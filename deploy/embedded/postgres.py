"""A PostgreSQL cluster of our own: made whole or not at all, served on a unix socket only.

The only role that can sign in is `opsmap`, by a generated password. The superuser has none and every rule of
pg_hba.conf but one rejects: whoever may read the files can use single-user mode, nobody else can do anything.
"""

import contextlib
import os
import re
import signal
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import psutil

from deploy.embedded.account import Account, give
from deploy.embedded.errors import ServiceError
from deploy.embedded.liveness import is_alive, wait_gone
from deploy.embedded.process import ProcessSpec
from deploy.embedded.removal import remove_folder

NAME = "postgres"
SETUP_NAME = "initdb"
ROLE = "opsmap"
DATABASE = "opsmap"
SUPERUSER = "postgres"
PORT = 5432
CLIENT_AUTHENTICATION = f"""\
# Written by OpsMap. One role, by password, over the unix socket; nothing else.
local all {ROLE} scram-sha-256
"""
SETTINGS = {
    "listen_addresses": "",
    "port": str(PORT),
    "unix_socket_permissions": "0700",
    "max_connections": "200",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m ",
    "cluster_name": "opsmap",
}
# Fast shutdown; then immediate, after which the next start recovers from the log; only then it is killed.
STOP = ((signal.SIGINT, 30.0),)
FORCE = ((signal.SIGQUIT, 5.0),)
NOTEWORTHY = re.compile(r"\b(WARNING|ERROR|FATAL|PANIC|DETAIL|HINT|STATEMENT):")
# Line 8 of postmaster.pid, as pg_ctl reads it.
STATUS_LINE = 7

RunOnce = Callable[[ProcessSpec], Awaitable[int]]
Say = Callable[[str], None]


@dataclass(frozen=True)
class Cluster:
    """Where the cluster is, who runs it, and how a client signs in."""

    binaries: Path
    data: Path
    sockets: Path
    client_authentication: Path
    account: Account | None
    password: str

    def url(self) -> str:
        return f"postgresql://{ROLE}:{quote(self.password)}@/{DATABASE}?host={quote(str(self.sockets))}"

    def server(self) -> ProcessSpec:
        settings = SETTINGS | {
            "unix_socket_directories": str(self.sockets),
            "hba_file": str(self.client_authentication),
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return self._program(
            "postgres",
            "-D",
            str(self.data),
            *options,
            name=NAME,
            stop=STOP,
            force=FORCE,
            death_signal=signal.SIGINT,
            is_line_shown=lambda line: NOTEWORTHY.search(line) is not None,
        )

    def initdb(self, folder: Path) -> ProcessSpec:
        return self._program(
            "initdb",
            f"--pgdata={folder}",
            f"--username={SUPERUSER}",
            "--encoding=UTF8",
            # The collation comes from PostgreSQL itself, so no locale of this machine is needed and none can
            # change.
            "--locale=C",
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
            "--auth-local=reject",
            "--auth-host=reject",
            "--no-instructions",
            is_line_shown=lambda line: False,
        )

    def single_user(self, folder: Path, *statements: str) -> ProcessSpec:
        """Statements run without a server, as the superuser; the first error ends it with a failure."""
        return self._program(
            "postgres",
            "--single",
            "-D",
            str(folder),
            "-c",
            "exit_on_error=on",
            "-c",
            # The statements hold the password.
            "log_min_error_statement=panic",
            "postgres",
            stdin="".join(f"{statement}\n" for statement in statements).encode("ascii"),
            is_line_shown=lambda line: NOTEWORTHY.search(line) is not None,
        )

    def is_ready(self, pid: int) -> bool:
        """Whether the server with this pid accepts connections; it writes so itself."""
        lines = _pid_file_lines(self.data)
        return len(lines) > STATUS_LINE and lines[0].strip() == str(pid) and lines[STATUS_LINE].strip() == "ready"

    def _program(
        self,
        program: str,
        *arguments: str,
        stdin: bytes = b"",
        stop: tuple[tuple[signal.Signals, float], ...] = ((signal.SIGTERM, 10.0),),
        force: tuple[tuple[signal.Signals, float], ...] = (),
        death_signal: signal.Signals = signal.SIGTERM,
        is_line_shown: Callable[[str], bool],
        name: str = SETUP_NAME,
    ) -> ProcessSpec:
        return ProcessSpec(
            name=name,
            argv=(str(self.binaries / program), *arguments),
            environment=_clean_environment(),
            cwd=Path("/"),
            account=self.account,
            stdin=stdin,
            stop=stop,
            force=force,
            death_signal=death_signal,
            is_line_shown=is_line_shown,
        )


async def prepare(cluster: Cluster, *, is_password_new: bool, run: RunOnce, say: Say) -> None:
    """Leave a complete cluster under `cluster.data` that nobody runs.

    1. What an interrupted first run left is removed; what is no cluster is moved aside, never deleted.
    2. A server that a killed supervisor left behind is stopped, or its stale pid file removed.
    3. A missing cluster is made in a temporary sibling and renamed when it is complete.
    """
    _write_client_authentication(cluster.client_authentication)
    if await _discard_unfinished(cluster.data):
        say("An earlier first run was interrupted while it prepared PostgreSQL: preparing it afresh.")
    if cluster.data.exists() and not _is_cluster(cluster.data):
        aside = cluster.data.with_name(f"{cluster.data.name}.incomplete-{time.strftime('%Y%m%d-%H%M%S')}")
        cluster.data.rename(aside)
        say(f"{cluster.data} is no complete PostgreSQL cluster: moved to {aside.name}, preparing a new one.")
    if not cluster.data.exists():
        await _create(cluster, run)
        return
    _check_version(cluster)
    await stop_leftover(cluster.data, say)
    if is_password_new:
        await _expect_success(
            run, cluster.single_user(cluster.data, f"ALTER ROLE {ROLE} PASSWORD '{cluster.password}';")
        )


async def stop_leftover(data: Path, say: Say, *, patience_s: float = 15.0) -> None:
    """Deal with the postmaster.pid of a server that no supervisor of this state folder owns any more.

    The caller holds the folder's lock, so whatever the file names was left behind. A pid that is free is
    PostgreSQL's own business: it takes over the file after making sure that nothing is attached to the old
    shared memory.
    """
    lines = _pid_file_lines(data)
    if not lines:
        return
    server = _server_of(data, lines[0])
    if server is None:
        _disown_pid_file(data, lines[0], say)
        return
    say(f"PostgreSQL of an earlier run is still there (pid {server.pid}): waiting for its end.")
    for number, seconds in ((signal.SIGINT, patience_s), (signal.SIGQUIT, 5.0), (signal.SIGKILL, 5.0)):
        with contextlib.suppress(psutil.NoSuchProcess):
            server.send_signal(number)
        if not await wait_gone([server], timeout_s=seconds):
            return
    raise ServiceError(f"PostgreSQL of an earlier run (pid {server.pid}) cannot be stopped.")


def _disown_pid_file(data: Path, pid: str, say: Say) -> None:
    """Make a stale pid file harmless when its number belongs to another program now.

    PostgreSQL would refuse to start. Removing the file would skip its check of the shared memory, which
    protects the data; with its own parent's pid in the file it knows that the file is stale and still does
    that check.
    """
    if not (pid.strip().isdecimal() and psutil.pid_exists(int(pid))):
        return
    descriptor = os.open(data / "postmaster.pid", os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(descriptor, "r+", encoding="utf-8") as file:
        rest = file.read().split("\n")[1:]
        file.seek(0)
        file.write("\n".join((str(os.getpid()), *rest)))
        file.truncate()
    say(f"postmaster.pid was stale: pid {pid.strip()} is another program now. PostgreSQL takes it over.")


def _server_of(data: Path, pid: str) -> psutil.Process | None:
    """The live postmaster of this very data directory, if the pid is one.

    By its command line: its working directory cannot be read across users in a container.
    """
    try:
        process = psutil.Process(int(pid))
        is_ours = process.name() == "postgres" and str(data) in process.cmdline() and is_alive(process)
    except (psutil.NoSuchProcess, ValueError):
        return None
    return process if is_ours else None


async def _create(cluster: Cluster, run: RunOnce) -> None:
    folder = _make_unfinished(cluster)
    await _expect_success(run, cluster.initdb(folder))
    await _expect_success(
        run,
        cluster.single_user(
            folder,
            f"CREATE ROLE {ROLE} LOGIN CREATEDB PASSWORD '{cluster.password}';",
            f"CREATE DATABASE {DATABASE} OWNER {ROLE};",
        ),
    )
    _finish(cluster, folder)


def _make_unfinished(cluster: Cluster) -> Path:
    folder = Path(tempfile.mkdtemp(prefix=f"{cluster.data.name}.new-", dir=cluster.data.parent))
    give(folder, cluster.account)
    return folder


def _finish(cluster: Cluster, folder: Path) -> None:
    folder.rename(cluster.data)
    parent = os.open(cluster.data.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(parent)
    finally:
        os.close(parent)


async def _expect_success(run: RunOnce, spec: ProcessSpec) -> None:
    code = await run(spec)
    if code != 0:
        raise ServiceError(f"PostgreSQL cannot be prepared: {Path(spec.argv[0]).name} ended with exit code {code}.")


def _write_client_authentication(path: Path) -> None:
    """Beside the data, not inside: root never writes into a folder that belongs to the service user."""
    if not path.exists() or path.read_text(encoding="ascii") != CLIENT_AUTHENTICATION:
        path.write_text(CLIENT_AUTHENTICATION, encoding="ascii")
    path.chmod(0o644)  # it holds no secret, and the service user reads it


async def _discard_unfinished(data: Path) -> bool:
    unfinished = list(data.parent.glob(f"{data.name}.new-*"))
    for folder in unfinished:
        await remove_folder(folder)
    return bool(unfinished)


def _is_cluster(data: Path) -> bool:
    return (data / "PG_VERSION").is_file() and (data / "global" / "pg_control").is_file()


def _check_version(cluster: Cluster) -> None:
    """PostgreSQL reads only data of its own major version."""
    written_by = (cluster.data / "PG_VERSION").read_text(encoding="ascii").strip()
    catalogue = cluster.binaries.parent / "share"
    known = next(iter(sorted(catalogue.rglob("postgres.bki"))), None)
    if known is None:
        return
    with known.open(encoding="ascii") as file:
        ours = file.readline().split()[-1]
    if ours != written_by:
        raise ServiceError(
            f"The data in {cluster.data} are of PostgreSQL {written_by}, and PostgreSQL {ours} is installed. "
            "Dump and restore them, or remove them with `python -m deploy.embedded clean`."
        )


def _pid_file_lines(data: Path) -> list[str]:
    try:
        return (data / "postmaster.pid").read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []


def _clean_environment() -> Mapping[str, str]:
    """No PG* variable and no locale of the caller reaches the server."""
    return {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}
