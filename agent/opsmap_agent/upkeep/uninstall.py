"""Taking the agent's traces off a host: keys first, so that whatever fails later, nobody can be this agent any more.

Only what the agent made itself is removed, by name. Folders go if nothing else is in them; the configuration, the unit
and the program belong to the package or to whoever put them there.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from opsmap_agent.configuration import Configuration
from opsmap_agent.jobs.folder import JobFolder

_JOURNAL_FILES = ("journal.sqlite3", "journal.sqlite3-wal", "journal.sqlite3-shm", "status.json", "status.json.next")
_DAMAGED = "journal.damaged-*"
_LOCK = "agent.lock"
_JOB_FOLDERS = ("job_*", "sync_*")


@dataclass(frozen=True, slots=True)
class Traces:
    """What there is to remove. `kept` says what is left on purpose, one text each."""

    secrets: list[Path]
    authorities: list[Path]
    state: list[Path]
    logs: list[Path]
    folders: list[Path]
    kept: list[str]

    def all(self) -> list[Path]:
        return [*self.secrets, *self.authorities, *self.state, *self.logs]


def find_traces(configuration: Configuration, configuration_file: Path, *, keeps_logs: bool) -> Traces:
    files, buffer = configuration.tls, configuration.buffer.path
    kept = [f"the configuration, {configuration_file}", "the program and its systemd unit: remove the package"]
    authorities = []
    neighbour = configuration_file.with_name("gateway.yaml")
    for path in (files.ca_file, files.backend_ca_file, files.root_ca_file):
        if path is None or not path.exists():
            continue
        if _mentions(neighbour, path):
            kept.append(f"{path}: the gateway of this host uses it too ({neighbour})")
        else:
            authorities.append(path)
    logs = list(_logs(configuration))
    if keeps_logs and logs:
        kept.append(f"logs: {', '.join(map(str, logs[:3]))}{' …' if len(logs) > 3 else ''}")
    state = [buffer / name for name in _JOURNAL_FILES if (buffer / name).exists()]
    state += sorted(buffer.glob(_DAMAGED))
    return Traces(
        secrets=[path for path in _secrets(configuration) if path.exists()],
        authorities=authorities,
        state=state,
        logs=[] if keeps_logs else logs,
        folders=[buffer] if keeps_logs else [buffer, configuration.detached_execution.log_dir],
        kept=kept,
    )


def live_jobs(configuration: Configuration) -> list[str]:
    """The folders of jobs whose process still runs."""
    log_dir = configuration.detached_execution.log_dir
    return sorted(path.name for path in log_dir.glob("job_*") if JobFolder(path).has_shim())


def remove(traces: Traces) -> list[str]:
    """Remove them; what could not be, one line each."""
    failures = []
    for path in traces.secrets:
        failures += _try_to(_overwrite, path) + _try_to(_unlink, path)
    for path in (*traces.authorities, *traces.state, *traces.logs):
        failures += _try_to(shutil.rmtree if path.is_dir() and not path.is_symlink() else _unlink, path)
    for folder in traces.folders:
        (folder / _LOCK).unlink(missing_ok=True)
        if folder.is_dir() and not any(folder.iterdir()):
            failures += _try_to(Path.rmdir, folder)
    return failures


def _secrets(configuration: Configuration) -> Iterator[Path]:
    """Also those that a renewal has left half done."""
    for path in (configuration.tls.key_file, configuration.tls.cert_file):
        yield path
        yield path.with_name(path.name + ".next")


def _logs(configuration: Configuration) -> Iterator[Path]:
    log_dir, file = configuration.detached_execution.log_dir, configuration.logging.file
    for pattern in _JOB_FOLDERS:
        yield from sorted(log_dir.glob(pattern))
    if file is not None and file.parent.is_dir():
        yield from sorted(path for path in file.parent.iterdir() if path.name.startswith((f"{file.name}.", file.name)))


def _mentions(configuration_file: Path, path: Path) -> bool:
    try:
        return str(path) in configuration_file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False


def _overwrite(path: Path) -> None:
    """As far as this can be done from outside: a file system that copies on write, or a flash disk, may keep blocks."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        size = os.fstat(descriptor).st_size
        for content in (os.urandom(size), bytes(size)):
            os.pwrite(descriptor, content, 0)
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unlink(path: Path) -> None:
    """Also what a link leads to: the link alone would leave the secret."""
    target = path.resolve()
    path.unlink(missing_ok=True)
    target.unlink(missing_ok=True)


def _try_to(act: object, path: Path) -> list[str]:
    try:
        act(path)  # type: ignore[operator]
    except OSError as error:
        return [f"{path} cannot be removed: {error.strerror}"]
    return []
