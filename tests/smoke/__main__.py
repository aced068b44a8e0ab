"""Entry point: runs the scenario within its deadline, cleans up whatever happened, and prints the verdict."""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import sys
from types import FrameType
from typing import Any

from tests.smoke.errors import SmokeError
from tests.smoke.scenario import Scenario
from tests.smoke.stack import Stack

DEADLINE_S = 120

log = logging.getLogger("smoke")


def main() -> int:
    signal.signal(signal.SIGALRM, _too_late)
    signal.signal(signal.SIGTERM, _asked_to_end)
    signal.alarm(DEADLINE_S)
    stack = Stack()
    scenario = Scenario(stack)
    verdict: dict[str, Any]
    try:
        scenario.run()
        verdict = {"ok": True, **scenario.figures}
    except (Exception, KeyboardInterrupt) as error:
        # Whatever it was, the last line must say so: who reads it is often a program.
        signal.alarm(0)
        print(stack.log_tail(), file=sys.stderr)
        log.exception("failed to %s", scenario.step)
        verdict = {"ok": False, "failed": scenario.step, "reason": _reason(error), **scenario.figures}
        verdict["reason"] += _clean_up(stack)
    signal.alarm(0)
    print(json.dumps(verdict), flush=True)
    return 0 if verdict["ok"] else 1


def _clean_up(stack: Stack) -> str:
    """End and remove everything; returns what to add to the reason if even that fails."""
    try:
        stack.abandon()
    except (SmokeError, OSError, subprocess.SubprocessError) as error:
        log.exception("failed to clean up")
        return f"; and while cleaning up: {_reason(error)}"
    return ""


def _reason(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    return str(error) if isinstance(error, SmokeError) else f"{type(error).__name__}: {error}"


def _too_late(signum: int, frame: FrameType | None) -> None:
    raise SmokeError(f"not done within {DEADLINE_S} s")


def _asked_to_end(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
