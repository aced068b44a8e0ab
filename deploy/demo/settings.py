"""What `render` decides once and the processes read when they start: ports, binaries, and where the databases live.

Deciding needs the placement code of `deploy.embedded`, which is more than a small resident process should
load.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

_FILE = "settings.json"


class Account(NamedTuple):
    """The unprivileged user that databases run as when this process is root."""

    uid: int
    gid: int


class Settings(NamedTuple):
    """`data` holds a folder for each database; `account` is None for an ordinary user, who runs them himself."""

    ports: dict[str, int]
    data: Path
    postgres_bin: Path
    valkey_server: Path
    account: Account | None

    @classmethod
    def read(cls, state: Path) -> Settings:
        """Raises FileNotFoundError if nothing was rendered for `state`."""
        kept = json.loads((state / _FILE).read_text(encoding="utf-8"))
        return cls(
            ports=kept["ports"],
            data=Path(kept["data"]),
            postgres_bin=Path(kept["postgres_bin"]),
            valkey_server=Path(kept["valkey_server"]),
            account=Account(*kept["account"]) if kept["account"] else None,
        )

    def write(self, state: Path) -> None:
        draft = state / f"{_FILE}.new"
        draft.write_text(json.dumps(self._asdict(), indent=2, default=str) + "\n", encoding="utf-8")
        draft.replace(state / _FILE)
