"""`python -m tests.guard <folder> <mark>`: ends a world whose owner was killed before it could do so itself.

Its standard input is a pipe from the owner. A byte says that all is in order; the pipe's end without one says that
the owner is gone. Not PR_SET_PDEATHSIG: that follows the thread which started a process, and owners have several.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.processes import Kin

ALL_IS_WELL = b"."
_REPOSITORY = Path(__file__).resolve().parents[1]


class Guard:
    """The owner's side. `dismiss` once everything has ended in order."""

    def __init__(self, kin: Kin, folder: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.guard", str(folder), kin.mark],
            cwd=_REPOSITORY,
            stdin=subprocess.PIPE,
            # Ctrl-C in the terminal is for the owner.
            start_new_session=True,
        )

    def dismiss(self) -> None:
        self._process.communicate(ALL_IS_WELL, timeout=10)


def main() -> None:
    folder, mark = sys.argv[1:]
    if os.read(sys.stdin.fileno(), 1) == ALL_IS_WELL:
        return
    # With patience: a PostgreSQL that ends in order takes its shared memory with it.
    Kin(Path(folder), mark).end(patience_s=10)


if __name__ == "__main__":
    main()
