"""The state folder (`.opsmap/`): which files it holds, and how secrets are written into it.

Nothing outside the names listed here is ever removed by `clean`, whatever folder it was pointed at.
"""

import json
import os
import secrets
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

# What one run leaves in a state folder. Nested states are those of `make test`, `make check` and the
# benchmarks.
NESTED_STATES = ("test", "check", "bench", "smoke")
OWN_NAMES = (
    "agents",
    "celerybeat-schedule",
    "celerybeat-schedule-shm",
    "celerybeat-schedule-wal",
    "children.json",
    "credentials.json",
    "demo",
    "gateway",
    "logs",
    "pg_hba.conf",
    "pki",
    "ports.json",
    "postgres",
    "postgres.password",
    "secret_key",
    "sockets",
    "supervisor.lock",
    "valkey",
)
# Names that carry a suffix: an interrupted first run, a folder moved aside.
OWN_PREFIXES = ("postgres.new-", "postgres.incomplete-", "celerybeat-schedule.")


@dataclass(frozen=True)
class StateFolder:
    """One state folder; `path` is absolute with every symbolic link resolved."""

    path: Path
    is_root: bool = field(default_factory=lambda: os.geteuid() == 0)

    @classmethod
    def create(cls, path: Path) -> "StateFolder":
        """Make the folder if it is missing; one that exists keeps its mode and owner.

        As root the folder may be passed through (not listed) by the service user; otherwise it is private.
        """
        state = cls(path.expanduser().resolve())
        missing = [folder for folder in (state.path, *state.path.parents) if not folder.exists()]
        return state.with_folders(*reversed(missing))

    def with_folders(self, *folders: Path) -> "StateFolder":
        """Make the folders that are missing, each with the mode of a state folder."""
        for folder in folders:
            try:
                folder.mkdir(mode=0o700)
            except FileExistsError:
                continue
            # Spelled out: the umask takes part in the mode of mkdir.
            folder.chmod(0o711 if self.is_root else 0o700)
        return self

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def pki(self) -> Path:
        return self.path / "pki"

    @property
    def credentials(self) -> Path:
        return self.path / "credentials.json"

    @property
    def demo(self) -> Path:
        return self.path / "demo"

    @property
    def demo_run(self) -> Path:
        return self.demo / "run"

    @property
    def lease(self) -> Path:
        return self.demo / "lease"

    @property
    def documents(self) -> Path:
        return self.demo / "documents" / "trading-platform"

    @property
    def gateway_configuration(self) -> Path:
        return self.path / "gateway" / "gateway.yaml"

    def agent_configuration(self, agent_id: str) -> Path:
        return self.path / "agents" / agent_id / "agent.yaml"

    def secret(self, name: str) -> str:
        """The generated secret kept in the file `name` (0600); made on first use."""
        path = self.path / name
        try:
            kept = path.read_text(encoding="ascii").strip()
        except FileNotFoundError:
            kept = ""
        if kept:
            return kept
        made = secrets.token_urlsafe(36)
        write_private(path, made + "\n")
        return made


def write_private(path: Path, text: str) -> None:
    """Write a file only its owner can read, whole or not at all: a reader never sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mkstemp makes it 0600
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Mapping[str, object]) -> None:
    """`write_private` for a JSON object."""
    write_private(path, json.dumps(value, indent=2) + "\n")
