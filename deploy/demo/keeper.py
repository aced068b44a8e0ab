"""Runs a real server as a child of this process and ends with it, whichever of the two goes first.

The keeper polls the lease, which a server of others cannot do, and passes signals on. If the keeper is
killed, the kernel signals the server (PR_SET_PDEATHSIG); if the server is killed, the keeper sees it at once
and ends as well.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, NoReturn

from deploy.demo.journal import say
from deploy.demo.lease import POLL_INTERVAL_S
from deploy.demo.settings import Account

_PR_SET_PDEATHSIG = 1
_WATCHED = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_STOP_TIMEOUT_S = 6.0


class Program(NamedTuple):
    """A program to run in `cwd`. `stop_signal` is the one that ends it soon and in order."""

    argv: tuple[str, ...]
    cwd: Path
    stop_signal: signal.Signals
    account: Account | None


class Keeper:
    """Runs programs one after the other. `is_over` is asked once a second whether to stop.

    From its creation on, the signals that matter wait to be taken by `run`, so none is lost between two
    programs.
    """

    def __init__(self, *, is_over: Callable[[], bool], before_exec: Callable[[], None]) -> None:
        self._is_over = is_over
        self._before_exec = before_exec
        # Found now: a child between fork and exec had better not load libraries.
        self._prctl = ctypes.CDLL(None, use_errno=True).prctl
        signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)

    def run(self, program: Program, *, started: Callable[[int], None]) -> tuple[int, bool]:
        """Run `program` to its end; `started` is told its pid.

        Returns:
            Its exit code (negative: the signal that killed it), and whether it had been asked to stop.
        """
        pid = self._spawn(program)
        started(pid)
        kill_at: float | None = None
        while True:
            received = signal.sigtimedwait(_WATCHED, POLL_INTERVAL_S)
            if received is not None and received.si_signo == signal.SIGCHLD:
                ended, status = os.waitpid(pid, os.WNOHANG)
                if ended:
                    return os.waitstatus_to_exitcode(status), kill_at is not None
            elif kill_at is None and (received is not None or self._is_over()):
                os.kill(pid, program.stop_signal)
                kill_at = time.monotonic() + _STOP_TIMEOUT_S
            elif kill_at is not None and time.monotonic() > kill_at:
                say(f"{program.argv[0]} did not stop within {_STOP_TIMEOUT_S:.0f} s: killed")
                os.kill(pid, signal.SIGKILL)

    def _spawn(self, program: Program) -> int:
        keeper = os.getpid()
        # fork and not subprocess: the identity must change before PR_SET_PDEATHSIG, which a change of
        # identity clears.
        pid = os.fork()
        if pid == 0:
            self._become(program, keeper)
        return pid

    def _become(self, program: Program, keeper: int) -> NoReturn:
        """The child's half of `_spawn`: turn into the program, or end with a line that says why not."""
        try:
            if program.account is not None:
                os.setgroups([])
                os.setgid(program.account.gid)
                os.setuid(program.account.uid)
            if self._prctl(_PR_SET_PDEATHSIG, int(program.stop_signal), 0, 0, 0) != 0:
                raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
            if os.getppid() != keeper:
                # The keeper died before the kernel was told whose death to report.
                os._exit(1)
            self._before_exec()
            os.chdir(program.cwd)
            # Python ignores SIGPIPE, and an ignored or blocked signal stays so in the program that follows.
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _WATCHED)
            os.execv(program.argv[0], program.argv)  # noqa: S606  (the program itself, and no shell)
        except OSError as error:
            say(f"cannot run {program.argv[0]}: {error}")
        finally:
            os._exit(127)
