"""Waiting with a limit, and saying what was waited for."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from tests.smoke.errors import SmokeError

T = TypeVar("T")


def until(condition: Callable[[], T | None], *, timeout_s: float, what: str, poll_s: float = 0.05) -> T:
    """Call `condition` until it returns something true, and return that.

    Raises:
        SmokeError: it did not within `timeout_s`.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        if result := condition():
            return result
        if time.monotonic() > deadline:
            raise SmokeError(f"not within {timeout_s:g} s: {what}")
        time.sleep(poll_s)
