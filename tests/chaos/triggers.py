"""Switches between the runner and the processes it tests: files, so that they need nothing that might be broken.

One folder for each process. `arm` writes a file named after a step; the process that passes the step takes the file
away by a rename, which only one can do, and then does what it said.
"""

from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path


class Deed(StrEnum):
    """What happens at an armed step."""

    KILL = "kill"
    """SIGKILL to itself: nothing is flushed, closed or said."""
    HANG = "hang"
    """SIGSTOP to itself: its sockets stay open and silent. The runner wakes it with SIGCONT."""
    RAISE = "raise"
    """The database says that the connection broke: whoever called does not know whether the commit counts."""
    PAUSE = "pause"
    """The thread sleeps for a moment."""


@dataclass(frozen=True, slots=True)
class Shot:
    """What to do at a step, after passing it `skip` times unharmed."""

    deed: Deed = Deed.KILL
    skip: int = 0
    seconds: float = 0.5


class Triggers:
    """The switches of one process, from either side."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def arm(self, step: str, shot: Shot = Shot()) -> None:
        (self._folder / f"{step}.fired").unlink(missing_ok=True)
        draft = self._folder / f".{step}"
        draft.write_text(json.dumps(asdict(shot)), encoding="ascii")
        draft.rename(self._folder / step)

    def disarm(self, step: str) -> None:
        (self._folder / step).unlink(missing_ok=True)

    def has_fired(self, step: str) -> bool:
        return (self._folder / f"{step}.fired").exists()

    def reach(self, step: str) -> None:
        """Called by the process at the step: usually does nothing."""
        armed = self._folder / step
        if not armed.exists():
            return
        try:
            taken = armed.rename(self._folder / f"{step}.taken")
        except FileNotFoundError:
            return  # another thread or process was first
        shot = Shot(**json.loads(taken.read_text(encoding="ascii")))
        if shot.skip:
            taken.unlink()
            self.arm(step, Shot(Deed(shot.deed), shot.skip - 1, shot.seconds))
            return
        taken.rename(self._folder / f"{step}.fired")
        _do(Deed(shot.deed), shot.seconds)


def _do(deed: Deed, seconds: float) -> None:
    match deed:
        case Deed.KILL:
            os.kill(os.getpid(), signal.SIGKILL)
        case Deed.HANG:
            os.kill(os.getpid(), signal.SIGSTOP)
        case Deed.RAISE:
            from django.db import OperationalError

            raise OperationalError("chaos: the connection was lost, the commit may have happened")
        case Deed.PAUSE:
            time.sleep(seconds)
