"""The databases of the demonstration: how a real PostgreSQL and a real Valkey are prepared, run and ended.

Both listen on loopback, where every user of the machine can reach them, so neither lets a stranger do more
than see that it is there: PostgreSQL wants a password, and Valkey's commands that reach files or the
configuration are off.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

from deploy.demo.components import Component, Kind
from deploy.demo.journal import say
from deploy.demo.keeper import Keeper, Program
from deploy.demo.settings import Account, Settings
from deploy.demo.slot import Slot

_POSTGRESQL_OPTIONS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "50",
    "shared_buffers": "16MB",
    "io_method": "sync",
    # Files of the data folder: segments in /dev/shm would outlive a killed server.
    "dynamic_shared_memory_type": "mmap",
}
_VALKEY_USER = "default on nopass ~* &* +@all -@admin -@dangerous +info"


def run_server(component: Component, slot: Slot, settings: Settings, *, is_over: Callable[[], bool]) -> int:
    """Prepare the component's data if this is its first start, run its server to the end, and return an exit code."""
    keeper = Keeper(is_over=is_over, before_exec=slot.bequeath)
    home = settings.data / component.name
    port = settings.ports[component.name]
    if component.kind is Kind.POSTGRESQL:
        if not (home / "data").exists() and (code := _create_cluster(keeper, home, settings)) is not None:
            return code
        # Whoever wrote it is gone, as the slot's lock shows; by now its pid may be that of another process
        # of the same user, and PostgreSQL would refuse to start for its sake.
        (home / "data" / "postmaster.pid").unlink(missing_ok=True)
        program = _postgresql(home, port, settings)
    else:
        if not (home / "data").exists():
            _make_private(home / "data", settings.account)
        program = _valkey(component, home, port, settings)
    code, was_asked = keeper.run(program, started=slot.record)
    if was_asked or code == 0:
        # `stop` signals the server itself, which then ends in order.
        say(f"{component.name} has ended")
        return 0
    say(f"{component.name} {_describe(code)}")
    return 128 - code if code < 0 else code or 1


def _create_cluster(keeper: Keeper, home: Path, settings: Settings) -> int | None:
    """Make `home/data`, or nothing: a run that is cut short leaves only a draft, which the next one throws away.

    Returns:
        The exit code to end with if there is no cluster now.
    """
    draft, password = home / "data.new", home / "password"
    if draft.exists():
        shutil.rmtree(draft)
    password.unlink(missing_ok=True)
    _make_private(draft, settings.account)
    _write_private(password, os.urandom(24).hex(), settings.account)
    say("creating the database cluster")
    argv = (
        *(
            str(settings.postgres_bin / "initdb"),
            "-D",
            str(draft),
            "-U",
            "trading",
            "--pwfile",
            str(password),
        ),
        *("--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions"),
    )
    program = Program(argv, draft, signal.SIGTERM, settings.account)
    code, was_asked = keeper.run(program, started=lambda pid: None)
    if was_asked:
        return 0
    if code != 0:
        say(f"initdb {_describe(code)}")
        return 1
    draft.rename(home / "data")
    return None


def _postgresql(home: Path, port: int, settings: Settings) -> Program:
    options = [f"--{name}={value}" for name, value in (*_POSTGRESQL_OPTIONS.items(), ("port", str(port)))]
    argv = (str(settings.postgres_bin / "postgres"), "-D", str(home / "data"), *options)
    # SIGINT is its "fast" shutdown; SIGTERM would wait for clients to leave.
    return Program(argv, home / "data", signal.SIGINT, settings.account)


def _valkey(component: Component, home: Path, port: int, settings: Settings) -> Program:
    # A cache forgets what was used least when it is full; a broker keeps what it was given, also over a
    # restart.
    is_cache = component.name == "redis-cache"
    argv = (
        str(settings.valkey_server),
        *("--bind", "127.0.0.1", "--port", str(port), "--dir", str(home / "data"), "--daemonize", "no"),
        *("--save", "", "--appendonly", "no" if is_cache else "yes"),
        *("--maxmemory", "32mb", "--maxmemory-policy", "allkeys-lru" if is_cache else "noeviction"),
        *("--user", *_VALKEY_USER.split()),
    )
    return Program(argv, home / "data", signal.SIGTERM, settings.account)


def _make_private(folder: Path, account: Account | None) -> None:
    folder.mkdir(mode=0o700)
    if account is not None:
        os.chown(folder, *account, follow_symlinks=False)


def _write_private(path: Path, text: str, account: Account | None) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(text + "\n")
        if account is not None:
            os.fchown(descriptor, *account)


def _describe(code: int) -> str:
    if code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"
