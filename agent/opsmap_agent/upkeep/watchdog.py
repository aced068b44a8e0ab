"""A thread that sees that the event loop still turns, and starts a stuck agent anew.

Two lines of defence, for the two ways of being stuck:

1. The event loop does not turn, but Python does: the thread writes the stacks of all threads to the log and lets the
   process execute itself anew. The process id stays, the kernel closes descriptors and locks, and the next life goes
   on as after any crash: the journal says what was taken in, detached processes are found again.
2. Not even the thread runs, because a library holds the interpreter: a timer of faulthandler, which needs no
   interpreter, writes the stacks to standard error and ends the process, for the service manager to start it.

An agent that is stuck again and again is not helped by being started: after some times within an hour it ends, and
the service manager decides.
"""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

import psutil

_logger = logging.getLogger(__name__)

EXIT_STUCK = 70
"""EX_SOFTWARE of sysexits.h."""

_MAX_RESTARTS = 3
_WINDOW_S = 3600.0
_VARIABLE = "OPSMAP_WATCHDOG_RESTARTS"
_TURNS = 10
"""So often the thread looks within the time limit."""

_LOG_TIMEOUT_S = 2.0
_REAP_TIMEOUT_S = 1.0
_MAX_STACK_BYTES = 64 * 1024


class RestartRecord:
    """When this process was started anew by its watchdog, kept in its environment, which outlives the program.

    Times are seconds of the monotonic clock, which goes on too.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        texts = os.environ.pop(_VARIABLE, "").split(",")
        self._times = [float(text) for text in texts if text.replace(".", "", 1).isdigit()]

    @property
    def recent(self) -> list[float]:
        """Those of the last hour, as how many seconds ago."""
        now = self._clock()
        return [now - at for at in self._times if 0 <= now - at < _WINDOW_S]

    @property
    def is_exhausted(self) -> bool:
        return len(self.recent) >= _MAX_RESTARTS

    def environment_with_one_more(self) -> dict[str, str]:
        now = self._clock()
        times = [now - age for age in self.recent] + [now]
        return {**os.environ, _VARIABLE: ",".join(f"{at:.3f}" for at in times)}


class Watchdog:
    """`watch` gives signs of life from the event loop, until cancelled; a thread waits for them.

    Args:
        timeout_s: how long the event loop may stand still.
        restarts: what this process has been through.
        on_stuck: what is done then, in the thread; for tests.
    """

    def __init__(
        self,
        timeout_s: float,
        restarts: RestartRecord,
        on_stuck: Callable[[float], None] | None = None,
    ) -> None:
        self._timeout_s = timeout_s
        self._restarts = restarts
        self._on_stuck = on_stuck or self._begin_anew
        self._turns = 0
        self._is_over = threading.Event()
        # Not in the stuck moment: what is needed then is loaded and open now.
        self._stacks = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as it watches

    async def watch(self) -> None:
        thread = threading.Thread(target=self._look, name="watchdog", daemon=True)
        thread.start()
        try:
            while True:
                self._turns += 1
                await asyncio.sleep(self._timeout_s / _TURNS / 2)
        finally:
            self._is_over.set()
            thread.join()
            self._stacks.close()

    def _look(self) -> None:
        pause_s = self._timeout_s / _TURNS
        seen, still_looks = 0, 0
        while True:
            faulthandler.dump_traceback_later(2 * self._timeout_s, exit=True, file=2)
            if self._is_over.wait(pause_s):
                faulthandler.cancel_dump_traceback_later()
                return
            # Looks are counted, not time: while the whole process is stopped, this thread is as well.
            still_looks = 0 if self._turns != seen else still_looks + 1
            seen = self._turns
            if still_looks >= _TURNS:
                self._on_stuck(still_looks * pause_s)
                still_looks = 0

    def _begin_anew(self, stuck_s: float) -> NoReturn:
        is_last = self._restarts.is_exhausted
        what = "it ends, as it has been started anew too often" if is_last else "it is started anew"
        text = f"the event loop has stood still for {stuck_s:.1f} s: {what}. The stacks:\n{self._take_stacks()}"
        _log_whatever_happens(text)
        end_sync_commands()
        if is_last:
            os._exit(EXIT_STUCK)
        try:
            arguments = [sys.executable, *sys.orig_argv[1:]]
            os.execve(sys.executable, arguments, self._restarts.environment_with_one_more())  # noqa: S606 - ourselves
        except OSError as error:
            _log_whatever_happens(f"{sys.executable} cannot be executed: {error.strerror}; the agent ends")
            os._exit(EXIT_STUCK)

    def _take_stacks(self) -> str:
        self._stacks.seek(0)
        self._stacks.truncate()
        faulthandler.dump_traceback(self._stacks)
        self._stacks.seek(0)
        return self._stacks.read(_MAX_STACK_BYTES).decode("utf-8", "replace")


def end_sync_commands() -> None:
    """Kill the commands that only this life of the agent could have waited for, and reap them.

    They lead sessions of their own. Detached processes are not our children, and a launch on its way is no leader.
    """
    leaders = [child.pid for child in psutil.Process().children() if _leads_a_session(child.pid)]
    for pid in leaders:
        with suppress(OSError):
            os.killpg(pid, signal.SIGKILL)
    ends_at = time.monotonic() + _REAP_TIMEOUT_S
    while leaders and time.monotonic() < ends_at:
        leaders = [pid for pid in leaders if not _is_reaped(pid)]
        time.sleep(0.01)


def _leads_a_session(pid: int) -> bool:
    try:
        return os.getsid(pid) == pid
    except OSError:
        return False


def _is_reaped(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG) != (0, 0)
    except ChildProcessError:
        return True


def _log_whatever_happens(text: str) -> None:
    """What is stuck may be the log itself, or hold its lock."""
    writing = threading.Thread(target=_logger.critical, args=("%s", text), daemon=True)
    writing.start()
    writing.join(_LOG_TIMEOUT_S)
    if writing.is_alive():
        with suppress(OSError):
            os.write(2, text.encode("utf-8", "replace"))
