"""What a host really executed: every command of a trial leaves its mark in its host's ledger, by itself, as it begins.

The ledger is the only witness that no part of the product has a hand in. A host is known to its commands by its HOME:
so one command sent to many hosts leaves a mark in the ledger of each.
"""

from __future__ import annotations

import stat
from collections import Counter
from pathlib import Path

_PROGRAM = """\
#!/bin/sh
# KEY SECONDS EXIT_CODE: makes the folder KEY.1, or KEY.2 if that is there, and so on: atomic, so that no run is ever
# counted as none, and of no size, so that a full disk does not matter.
run=1
until mkdir "$HOME/ledger/$1.$run" 2>/dev/null; do
    [ -d "$HOME/ledger" ] && [ "$run" -lt 100 ] || exit 90
    run=$((run + 1))
done
[ "$2" = 0 ] || sleep "$2"
printf 'done %s\\n' "$1"
exit "$3"
"""


def write_program(path: Path) -> None:
    """The program that all commands of trials run."""
    path.write_text(_PROGRAM, encoding="ascii")
    path.chmod(stat.S_IRWXU)


def command(program: Path, key: str, *, seconds: float, exit_code: int) -> dict[str, object]:
    """The spec of a command that runs for `seconds` and ends with `exit_code`."""
    return {"type": "execute", "path": str(program), "args": [key, f"{seconds:g}", str(exit_code)]}


class Ledger:
    """The ledger of the host with that home."""

    def __init__(self, home: Path) -> None:
        self.path = home / "ledger"
        self.path.mkdir(parents=True)

    def runs(self) -> Counter[str]:
        """How often each command began."""
        return Counter(run.name.rpartition(".")[0] for run in self.path.iterdir())
